"""The checks of data: twelve faults fail a row each, and only that; real ones are found."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chi2_contingency
from support import ROOT

from plugins.checks import _minhash, _records
from plugins.checks.classes import drift
from tests.checks.planted_data import ended, looked

FAULTS = {
    "record": "no record in two splits",
    "group": "no group in two splits",
    "text": "no text in two splits",
    "near": "no near-duplicate in two splits",
    "conflict": "one label for one text",
    "empty": "no text is empty",
    "range": "labels in range",
    "balance": "label balance",
    "drift": "label drift",
    "counts": "class counts of train",
}


def test_a_sound_experiment_passes(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No row warns or fails, and every area says something."""
    code, rows = looked(capsys, planted)
    assert ended(rows, "fail", "warn") == set()
    assert {"data", "input", "optimizer", "environment"} <= {row["area"] for row in rows}
    assert code == 0


@pytest.mark.parametrize(("fault", "row"), FAULTS.items())
def test_a_fault_fails_its_row(
    planted: Path, capsys: pytest.CaptureFixture[str], fault: str, row: str
) -> None:
    """A record, group or text on two sides, labels that are wrong or count wrong, empty texts."""
    code, rows = looked(capsys, planted, f"dataset.fault={fault}")
    assert ended(rows, "fail", "warn") == {("data", row)}
    assert code == 1
    (told,) = (found for found in rows if found["name"] == row)
    assert told["advice"]
    assert "amber" not in json.dumps(rows), "a text is told"


@pytest.mark.parametrize(
    ("set_", "row"),
    [
        ("model.fault=one", "more than one token"),
        ("model.max_length=8", "texts are read to their end"),
    ],
)
def test_what_is_not_read_is_told(
    planted: Path, capsys: pytest.CaptureFixture[str], set_: str, row: str
) -> None:
    """A token of each record alone, and ends that are cut off, with the field that loses them."""
    code, rows = looked(capsys, planted, set_)
    assert ended(rows, "fail", "warn") == {("data", row)}
    assert code == 1
    if row.startswith("texts"):
        (told,) = (found["observed"] for found in rows if found["name"] == row)
        assert "text_pair: " in told


def test_repeated_sessions_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of HDFS's kind: sessions of few names, most of the test's standing in train as well.

    That is the data's nature, and so a warning with its share and ids; the sample that ships,
    where it is a few, passes.
    """
    draw = random.Random(1)  # noqa: S311 - sessions of a test
    usual = [[draw.randrange(9) for _ in range(6)] for _ in range(12)]
    for name, count in (("train_all", 120), ("test", 40)):
        lines = [
            json.dumps({"session": f"{name}{at}", "events": usual[at % 12], "label": int(at < 9)})
            for at in range(count)
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    file = ROOT / "experiments" / "session_mlm.toml"
    sets = ("model.layers=1", "model.d_model=16", "model.heads=2", "trainer.threads=1")
    code, rows = looked(capsys, file, f"dataset.root={tmp_path}", *sets, only="data")
    assert ended(rows, "fail", "warn") == {("data", "no text in two splits")}
    (told,) = (row["observed"] for row in rows if row["status"] == "warn")
    assert "40 of test (100.0%)" in told
    assert "'test0'" in told
    assert code == 0
    code, rows = looked(capsys, file, *sets, only="data")
    assert (ended(rows, "fail", "warn"), code) == (set(), 0)


def test_claims_that_are_worded_alike_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of SciFact's kind: two of the test's claims are worded as in train, under other ids.

    Sentences are cited by many claims, and so are no claim's own.
    """
    draw = random.Random(2)  # noqa: S311 - claims of a test
    words = "cells grow in mice where zinc binds p53 and sleep falls after heat".split()  # noqa: SIM905
    cited = [" ".join(draw.choices(words, k=9)) for _ in range(30)]
    claims = [" ".join(draw.sample(words, 8)) for _ in range(140)]
    claims[100:102] = [claim.capitalize() for claim in claims[3:5]]
    for name, first, last in (("train", 0, 100), ("dev", 100, 140)):
        rows = [
            {
                "claim_id": str(at),
                "claim": claims[3 + at - 100].capitalize()
                if name == "dev" and at < 102
                else claims[at],
                "sentence": sentence,
                "evidence": int(sentence == cited[at % 30]),
            }
            for at in range(first, last)
            for sentence in {cited[at % 30], *draw.sample(cited, 4)}
        ]
        lines = "\n".join(map(json.dumps, rows))
        (tmp_path / f"claim_sentence_pairs_{name}.jsonl").write_text(lines)
    file = tmp_path / "claims.toml"
    file.write_text(
        f"""\
extends = "{ROOT}/experiments/scifact_evidence.toml"
[model]
pretrained = ""
config = {{ hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2, vocab_size = 200 }}
[dataset]
train = "claim_sentence_pairs_train.jsonl"
test = "claim_sentence_pairs_dev.jsonl"
"""
    )
    code, found = looked(capsys, file, f"dataset.root={tmp_path}", only="data")
    (told,) = (row["observed"] for row in found if row["name"] == "no text in two splits")
    assert "2 under 'text'" in told
    assert "test:1'" in told
    assert ended(found, "fail") == {("data", "no text in two splits")}
    assert code == 1


def test_near_duplicates_are_those_of_brute_force() -> None:
    """Every pair of texts as like as 0.9 is found, with Jaccard's index of all runs of letters."""
    draw = random.Random(4)  # noqa: S311 - texts of a test
    letters = "abcdefghij "
    texts = ["".join(draw.choices(letters, k=200)) for _ in range(60)]
    changed = []
    for text in texts:
        signs = [*text]
        for _ in range(draw.randrange(9)):
            signs[draw.randrange(len(signs))] = draw.choice(letters)
        changed.append("".join(signs))
    found = {at: (other, like) for at, other, like in _minhash.alike(changed, texts, 0.9)}
    runs = [
        [{text[at : at + 5] for at in range(len(text) - 4)} for text in t] for t in (changed, texts)
    ]
    near = {}
    for (at, one), (other, two) in itertools.product(*(enumerate(part) for part in runs)):
        like = len(one & two) / len(one | two)
        if like >= 0.9:
            near[at] = other, pytest.approx(like, abs=1e-12)
    assert 10 < len(near) < 60
    assert found == near


def test_few_letters_are_texts_too() -> None:
    """Texts shorter than a run are alike where they are the same, and nothing is like nothing."""
    assert list(_minhash.alike(["ab", "", "a"], ["ab", "abc", ""], 0.9)) == [(0, 0, 1.0)]


def test_of_large_splits_some_are_read() -> None:
    """They are drawn, alike each time and of labels that come in turn, and how many is said."""
    chosen: Any = [*_records.some(range(1000), 50)]  # type: ignore[arg-type]
    assert chosen == [*_records.some(range(1000), 50)] == sorted({*chosen})  # type: ignore[arg-type]
    for period in (2, 5, 20):
        assert len({at % period for at in chosen}) > period // 2
    assert [*_records.some(range(5), 5)] == [0, 1, 2, 3, 4]  # type: ignore[arg-type]
    part = _records.Contents(1000, ids=["a"] * 5)
    said = " (5 of 1000 in val were read, drawn at random)"
    assert _records.told({"train": _records.Contents(1, ids=["b"]), "val": part}) == said


def test_a_rare_label_is_not_missed_in_a_part(
    planted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where some records are read, and none of them has a label, the dataset's counts decide."""
    monkeypatch.setattr(_records, "MOST", 1)
    for fault, expected in (("", set()), ("balance", {("data", "label balance")})):
        _, rows = looked(capsys, planted, f"dataset.fault={fault}", only="data")
        assert ended(rows, "fail") & {("data", "label balance")} == expected


def test_drift_is_pearsons_chi_squared() -> None:
    """Chance and effect are SciPy's."""
    table = np.asarray([[30, 12, 5], [11, 19, 4]])
    chance, effect = drift(table)
    expected = chi2_contingency(table, correction=False)
    assert chance == pytest.approx(expected.pvalue, rel=1e-10)
    assert effect == pytest.approx((expected.statistic / table.sum()) ** 0.5, rel=1e-12)
