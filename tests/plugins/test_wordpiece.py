"""The vocabulary trained on a dataset's own texts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.models import _wordpiece

CORPUS = Path(__file__).resolve().parents[2] / "data" / "redsm5" / "redsm5_annotations.csv"
PRINT_VOCABULARY = """
import csv, json, sys
from plugins.models import _wordpiece
with open(sys.argv[1], newline="", encoding="utf-8") as stream:
    records = [{"text": row["sentence_text"]} for row in csv.DictReader(stream)]
tokenizer = _wordpiece.train(records, 700, token_types=True)
print(json.dumps(sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])))
"""
TEXTS = ["She sleeps badly, and wakes at four.", "Naïve café talk; 2 coffees (no sugar)."]


def records(*texts: str) -> list[dict[str, str]]:
    """Records of single texts."""
    return [{"text": text} for text in texts]


def test_the_same_texts_give_the_same_vocabulary_in_every_process() -> None:
    """Processes with other hash seeds and threads train the same vocabulary, ids and all."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", PRINT_VOCABULARY, str(CORPUS)],
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed, threads in (("1", "1"), ("2", "4"), ("3", "2"))
    ]
    first, *others = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert len(first) > 5000
    assert all(other == first for other in others)


@settings(max_examples=60)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=8), st.integers(20, 400))
def test_training_texts_have_no_unknown_words(texts: list[str], size: int) -> None:
    """Every training text is encoded without [UNK], however small the vocabulary."""
    tokenizer = _wordpiece.train(records(*texts), size, token_types=True)
    plain = [text for text in texts if "[UNK]" not in text]
    encoded = tokenizer(plain)["input_ids"] if plain else []
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)


def test_both_texts_of_a_pair_are_learnt() -> None:
    """The second text of a pair is as known as the first."""
    pair = [{"text": "alpha", "text_pair": "omega"}]
    tokenizer = _wordpiece.train(pair, 100, token_types=True)
    assert {"alpha", "omega"} <= set(tokenizer.get_vocab())


def test_the_size_is_a_limit() -> None:
    """The vocabulary grows to the size asked for and no further."""
    texts = records(
        *(f"{word}ing {word}ed {word}er" for word in ("abc", "abd", "xyz", "xyw", "mno"))
    )
    small, large = (_wordpiece.train(texts, size, token_types=True) for size in (40, 60))
    assert len(small) == 40
    assert 40 < len(large) <= 60


def test_characters_that_training_lacks_are_unknown() -> None:
    """A word with a character that no training text has is [UNK], and no crash."""
    tokenizer = _wordpiece.train(records(*TEXTS), 200, token_types=True)
    ids = tokenizer("she ☃", add_special_tokens=False)["input_ids"]
    assert ids[-1] == tokenizer.unk_token_id != ids[0]


@pytest.mark.parametrize("token_types", [True, False])
def test_pairs_are_joined_as_bert_does(token_types: bool) -> None:  # noqa: FBT001
    """A pair is [CLS] a [SEP] b [SEP], with types 0 and 1 where the model takes them."""
    tokenizer = _wordpiece.train(records(*TEXTS), 400, token_types=token_types)
    encoded = tokenizer("She sleeps", "talk")
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    first, second = tokenizer.tokenize("She sleeps"), tokenizer.tokenize("talk")
    assert tokens == ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
    if token_types:
        assert encoded["token_type_ids"] == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    else:
        assert "token_type_ids" not in encoded


def test_case_and_accents_fold() -> None:
    """Texts that differ in case and accents alone have the same ids."""
    tokenizer = _wordpiece.train(records(*TEXTS), 400, token_types=True)
    assert tokenizer("NAIVE CAFE")["input_ids"] == tokenizer("naïve café")["input_ids"]


def test_ids_are_the_vocabularys() -> None:
    """What a configuration is told of special tokens is where the vocabulary has them."""
    tokenizer = _wordpiece.train(records(*TEXTS), 400, token_types=True)
    vocabulary = tokenizer.get_vocab()
    assert _wordpiece.ids(tokenizer) == {
        "vocab_size": len(vocabulary),
        "pad_token_id": vocabulary["[PAD]"],
        "bos_token_id": vocabulary["[CLS]"],
        "cls_token_id": vocabulary["[CLS]"],
        "eos_token_id": vocabulary["[SEP]"],
        "sep_token_id": vocabulary["[SEP]"],
    }
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


def test_a_vocabulary_of_keyed_records_is_trained_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records with a key give the tokenizer from the cache that training gave; others never."""

    class Keyed(list[Any]):
        key = "of a file"

    texts = Keyed(records(*TEXTS))
    fresh = _wordpiece.train(texts, 200, token_types=True)
    first = _wordpiece.train(texts, 200, token_types=True, cache=tmp_path)
    other = _wordpiece.train(texts, 90, token_types=True, cache=tmp_path)
    assert len(other) < len(first)
    kept = sorted(tmp_path.rglob("tokenizer.json"))
    _wordpiece.train([*texts], 200, token_types=True, cache=tmp_path)
    assert sorted(tmp_path.rglob("tokenizer.json")) == kept
    monkeypatch.setattr(_wordpiece, "_trained", None)
    again = _wordpiece.train(texts, 200, token_types=True, cache=tmp_path)
    for found in (first, again):
        assert found.backend_tokenizer.to_str() == fresh.backend_tokenizer.to_str()
