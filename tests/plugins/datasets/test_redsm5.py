"""ReDSM5: its schema, its splits, and every fault named with file, row and column."""

from __future__ import annotations

import csv
import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framework.errors import UserError
from plugins.datasets.redsm5 import LABELS, Redsm5

POSTS = ["post_id", "text"]
ANNOTATIONS = ["post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation"]
CRITERIA = {
    "diagnosis": "MDD",
    "criteria": [{"id": f"A.{at}", "text": f"criterion {at}"} for at in range(1, 10)],
}
SYMPTOMS = [
    "DEPRESSED_MOOD",
    "ANHEDONIA",
    "APPETITE_CHANGE",
    "SLEEP_ISSUES",
    "PSYCHOMOTOR",
    "FATIGUE",
    "WORTHLESSNESS",
    "COGNITIVE_ISSUES",
    "SUICIDAL_THOUGHTS",
    "SPECIAL_CASE",
]
Write = Callable[[Path, list[list[Any]]], None]


def put(file: Path, rows: list[list[Any]]) -> None:
    """Write a CSV."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture
def root(tmp_path: Path, secret: str) -> Path:
    """A folder with 40 posts, of which 30 are annotated, and all the symptoms."""
    folder = tmp_path / "data"
    folder.mkdir()
    put(folder / "redsm5_posts.csv", [POSTS, *([f"p{at}", secret] for at in range(40))])
    rows = [
        [f"p{at % 30}", f"p{at % 30}_{at}", f"{secret} {at}", SYMPTOMS[at % 10], at // 10 % 2, "so"]
        for at in range(60)
    ]
    put(folder / "redsm5_annotations.csv", [ANNOTATIONS, *rows])
    (folder / "MDD_Criteria.json").write_text(json.dumps(CRITERIA))
    return folder


def edit(file: Path, row: int, column: int, value: str) -> None:
    """Change one cell; the header is row 1."""
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    rows[row - 1][column] = value
    put(file, rows)


def fault(dataset: Redsm5, secret: str) -> str:
    """Build; the error's message, which is one line without any record's text."""
    with pytest.raises(UserError) as caught:
        dataset.build(0)
    message = str(caught.value)
    assert "\n" not in message
    assert secret not in message
    assert secret[:12] not in message
    return message


def test_records_are_pairs_of_criterion_and_sentence(root: Path, secret: str) -> None:
    """A record has criterion, sentence, status, post and symptom; ids tell symptoms apart."""
    live = Redsm5(root=root).build(1)
    records = {record["id"]: record for split in live.keys() for record in live[split]}  # noqa: SIM118
    assert len(records) == 60
    assert records["p12_12/APPETITE_CHANGE"] == {
        "id": "p12_12/APPETITE_CHANGE",
        "text": "criterion 3",
        "text_pair": f"{secret} 12",
        "label": 1,
        "group": "p12",
        "meta": {"symptom": "APPETITE_CHANGE"},
    }


def test_what_the_dataset_says_of_itself_is_json(root: Path) -> None:
    """Labels, class counts of train, counts, symptoms in order and criteria survive JSON."""
    live = Redsm5(root=root).build(1)
    info = json.loads(json.dumps(live.info))
    assert info == live.info
    assert info["labels"] == list(LABELS)
    train = Counter(record["label"] for record in live["train"])
    assert info["class_counts"] == [train[0], train[1]]
    assert info["counts"] == {split: len(live[split]) for split in ("train", "val", "test")}
    assert info["meta"] == {"symptom": SYMPTOMS}
    assert list(info["criteria"]) == SYMPTOMS
    assert [file.name for file in live.files] == [
        "redsm5_posts.csv",
        "redsm5_annotations.csv",
        "MDD_Criteria.json",
    ]


def test_the_split_is_by_post_and_repeatable(root: Path) -> None:
    """No post lies on two sides, the order is the file's, and the same seed splits the same."""
    live, again = Redsm5(root=root).build(3), Redsm5(root=root).build(3)
    assert list(live.keys()) == ["train", "val", "test"]
    posts = {split: {record["group"] for record in live[split]} for split in live.keys()}  # noqa: SIM118
    assert not posts["train"] & (posts["val"] | posts["test"])
    assert not posts["val"] & posts["test"]
    for split, found in posts.items():
        assert set(live.manifest[split]) == found
        assert [r["id"] for r in live[split]] == [r["id"] for r in again[split]]
    order = [int(record["id"].split("/")[0].split("_")[1]) for record in live["train"]]
    assert order == sorted(order)
    assert Redsm5(root=root).build(4).manifest != live.manifest


def test_records_are_made_on_access_and_pickle(root: Path) -> None:
    """A split keeps no records; slices are lazy as well, and all of it can be pickled."""
    live = Redsm5(root=root).build(1)
    assert live["train"][0] is not live["train"][0]
    assert live["train"][-1] == list(live["train"])[-1]
    assert [*live["train"][2:4]] == [live["train"][2], live["train"][3]]
    copy = pickle.loads(pickle.dumps(live))  # noqa: S301 - our own
    assert [*copy["val"]] == [*live["val"]]
    with pytest.raises(KeyError):
        live["other"]
    with pytest.raises(IndexError):
        live["val"][len(live["val"])]


def test_a_manifest_gives_the_split_back(root: Path, tmp_path: Path) -> None:
    """The manifest of one seed pins the split under another; it may list unannotated posts."""
    first = Redsm5(root=root).build(1)
    file = tmp_path / "splits.json"
    manifest = {split: list(posts) for split, posts in first.manifest.items()}
    manifest["val"].append("p39")
    file.write_text(json.dumps(manifest))
    second = Redsm5(root=root, splits=file).build(2)
    assert second.manifest == first.manifest
    assert [*second["test"]] == [*first["test"]]
    assert second.files[-1] == file


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: m["val"].append("p99"), "'val': 'p99' is not in the data; remove it"),
        (lambda m: m["val"].append(m["train"][0]), "stands under 'train' too; keep one of them"),
        (lambda m: m["train"].remove("p0"), "'p0' stands under no split; expected it under 'tr"),
        (lambda m: m["train"].extend(m.pop("test")), "'test' is empty; list at least one id"),
        (lambda m: m.update(dev=[]), "expected an object with the keys 'train', 'val', 'test'"),
        (lambda m: m["val"].append(3), "'val': expected a list of ids, each of them text"),
    ],
)
def test_a_wrong_manifest_is_refused(
    root: Path, secret: str, change: Callable[[dict[str, list[Any]]], Any], found: str
) -> None:
    """A post unknown, on two sides or on none, and an empty split, are each one clear line."""
    manifest: dict[str, list[Any]] = {
        "train": [f"p{at}" for at in range(20)],
        "val": [f"p{at}" for at in range(20, 25)],
        "test": [f"p{at}" for at in range(25, 30)],
    }
    change(manifest)
    (root / "m.json").write_text(json.dumps(manifest))
    message = fault(Redsm5(root=root, splits="m.json"), secret)
    assert message.startswith(f"{root / 'm.json'}: ")
    assert found in message


def test_a_manifest_that_is_no_json_is_refused(root: Path, secret: str) -> None:
    """So is a file of something else, and a missing one."""
    (root / "m.json").write_text("{")
    assert "m.json: no JSON in UTF-8" in fault(Redsm5(root=root, splits="m.json"), secret)
    assert "n.json: no such file" in fault(Redsm5(root=root, splits="n.json"), secret)


@pytest.mark.parametrize(
    ("file", "row", "column", "value", "found"),
    [
        ("annotations", 7, 4, "maybe", "row 7, column 'status': found 'maybe', expected one of"),
        ("annotations", 7, 4, "", "row 7, column 'status': found ''"),
        ("annotations", 7, 4, "1.0", "found '1.0', expected one of '0', '1'"),
        ("annotations", 8, 3, "SAD", "row 8, column 'DSM5_symptom': found 'SAD', expected one of"),
        ("annotations", 9, 2, " ", "row 9, column 'sentence_text': the cell is empty"),
        ("annotations", 9, 1, "", "row 9, column 'sentence_id': the cell is empty"),
        ("annotations", 9, 0, "p99", "row 9, column 'post_id': 'p99' is not among the posts"),
        ("annotations", 12, 1, "p1_1", "row 12, column 'sentence_id'"),
        ("annotations", 1, 4, "state", "row 1: missing column 'status'; present: 'post_id'"),
        ("annotations", 7, 4, "TEXT", "column 'status': found a text of 63 characters"),
        ("posts", 5, 0, "p0", "row 5, column 'post_id': 'p0' stands in row 2 already"),
        ("posts", 5, 0, "", "row 5, column 'post_id': the cell is empty"),
        ("posts", 1, 1, "body", "row 1: missing column 'text'; present: 'post_id', 'body'"),
    ],
)
def test_a_wrong_cell_is_refused_with_its_place(
    root: Path, secret: str, file: str, row: int, column: int, value: str, found: str
) -> None:
    """File, row as a person counts, column, what was found and expected; never a text."""
    path = root / f"redsm5_{file}.csv"
    edit(path, row, column, secret if value == "TEXT" else value)
    if row == 12:  # the same sentence under the same symptom as row 3
        edit(path, row, 3, SYMPTOMS[1])
    message = fault(Redsm5(root=root), secret)
    assert message.startswith(f"{path}: row {row}")
    assert found in message


def test_the_same_sentence_may_show_two_symptoms(root: Path) -> None:
    """A sentence annotated for two symptoms makes two records."""
    edit(root / "redsm5_annotations.csv", 3, 1, "p0_0")
    edit(root / "redsm5_annotations.csv", 3, 0, "p0")
    live = Redsm5(root=root).build(0)
    ids = {record["id"] for split in live.keys() for record in live[split]}  # noqa: SIM118
    assert {"p0_0/DEPRESSED_MOOD", "p0_0/ANHEDONIA"} <= ids


def test_a_used_symptom_needs_its_criterion(root: Path, secret: str) -> None:
    """A criterion that is absent and used is an error with the row; an unused one is not."""
    short = {"criteria": [item for item in CRITERIA["criteria"] if item["id"] != "A.3"]}  # type: ignore[index]
    (root / "MDD_Criteria.json").write_text(json.dumps(short))
    message = fault(Redsm5(root=root), secret)
    assert message.startswith(f"{root / 'redsm5_annotations.csv'}: row 4, column 'DSM5_symptom': ")
    assert "APPETITE_CHANGE is used, but there is no criterion 'A.3' in" in message
    for row in range(4, 60, 10):
        edit(root / "redsm5_annotations.csv", row, 3, "FATIGUE")
    assert "APPETITE_CHANGE" not in Redsm5(root=root).build(0).info["criteria"]


def test_special_cases_have_a_text_of_their_own(root: Path) -> None:
    """Without a criterion for special cases a fixed wording stands in; the file's own wins."""
    assert "nine criteria" in Redsm5(root=root).build(0).info["criteria"]["SPECIAL_CASE"]
    own = {"criteria": [*CRITERIA["criteria"], {"id": "SPECIAL_CASE", "text": "own words"}]}
    (root / "MDD_Criteria.json").write_text(json.dumps(own))
    assert Redsm5(root=root).build(0).info["criteria"]["SPECIAL_CASE"] == "own words"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "expected JSON like"),
        ("[]", "expected JSON like"),
        ('{"criteria": [1]}', "expected JSON like"),
        ('{"criteria": [{"id": "A.1"}]}', "expected JSON like"),
        ('{"criteria": [{"id": "A.1", "text": " "}]}', "needs an id and a text"),
        ('{"criteria": [{"id": 1, "text": "a"}]}', "needs an id and a text"),
        ('{"criteria": [{"id": "A.1", "text": "a"}, {"id": "A.1", "text": "b"}]}', "stands twice"),
    ],
)
def test_wrong_criteria_are_refused(root: Path, secret: str, content: str, found: str) -> None:
    """A criteria file that is not in the schema is one line that names it."""
    (root / "MDD_Criteria.json").write_text(content)
    message = fault(Redsm5(root=root), secret)
    assert message.startswith(f"{root / 'MDD_Criteria.json'}: ")
    assert found in message


def test_the_misspelt_criteria_file_is_found(root: Path) -> None:
    """`MDD_Criteira.json`, as the authors wrote it, does as well; a path of one's own too."""
    moved = (root / "MDD_Criteria.json").rename(root / "MDD_Criteira.json")
    assert Redsm5(root=root).build(0).files[2] == moved
    other = moved.rename(root.parent / "own.json")
    assert Redsm5(root=root, criteria=other).build(0).files[2] == other


@pytest.mark.parametrize(
    ("gone", "names"),
    [
        ("redsm5_posts.csv", ["redsm5_posts.csv", "redsm5_posts_sample_paraphrased.csv"]),
        ("redsm5_annotations.csv", ["redsm5_annotations_sample_paraphrased.csv"]),
        ("MDD_Criteria.json", ["MDD_Criteria.json", "MDD_Criteira.json"]),
    ],
)
def test_a_missing_file_names_what_was_looked_for(
    root: Path, secret: str, gone: str, names: list[str]
) -> None:
    """Each missing file is found at once, before anything is read, with all its names."""
    (root / gone).unlink()
    (root / "redsm5_posts.csv").touch()  # would fail if it were read first
    if gone == "redsm5_posts.csv":
        (root / gone).unlink()
    begun = time.process_time()
    message = fault(Redsm5(root=root), secret)
    assert time.process_time() - begun < 0.5
    assert all(name in message for name in [gone, *names])


def test_a_missing_folder_is_named(tmp_path: Path, secret: str) -> None:
    """A root that isn't there is said to be missing as a whole."""
    assert f"{tmp_path / 'no'}: no such folder" in fault(Redsm5(root=tmp_path / "no"), secret)


def test_too_few_posts_are_refused(root: Path, secret: str) -> None:
    """Annotations of two posts only can't fill three splits."""
    file = root / "redsm5_annotations.csv"
    rows = [[f"p{at}", f"p{at}_0", secret, "FATIGUE", at, ""] for at in range(2)]
    put(file, [ANNOTATIONS, *rows])
    assert fault(Redsm5(root=root), secret).startswith(
        f"{file}: found 2 groups, expected at least 3"
    )


def test_unlabelled_pairs_are_read_without_the_root(root: Path, tmp_path: Path) -> None:
    """Prediction needs sentence and symptom only, from CSV or JSONL, and no folder."""
    info = json.loads(json.dumps(Redsm5(root=root).build(0).info))
    dataset = Redsm5(root=tmp_path / "gone")
    put(tmp_path / "a.csv", [["sentence_text", "DSM5_symptom"], ["hello", "FATIGUE"]])
    assert list(dataset.read(tmp_path / "a.csv", info)) == [
        {"id": "2", "text": "criterion 6", "text_pair": "hello", "meta": {"symptom": "FATIGUE"}}
    ]
    row = {"sentence_text": "null", "DSM5_symptom": "ANHEDONIA", "sentence_id": "007"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (record,) = dataset.read(tmp_path / "a.jsonl", info)
    assert (record["id"], record["text_pair"]) == ("007/ANHEDONIA", "null")


def test_unlabelled_pairs_are_checked(root: Path, tmp_path: Path) -> None:
    """A missing file or column is said at once, a symptom without criterion with its row."""
    dataset, file = Redsm5(root=root), tmp_path / "a.csv"
    info: dict[str, Any] = {"criteria": {"FATIGUE": "tired"}}
    with pytest.raises(UserError, match="no such file"):
        dataset.read(file, info)
    put(file, [["text", "DSM5_symptom"], ["hello", "FATIGUE"]])
    with pytest.raises(UserError, match="missing column 'sentence_text'; present: 'text', 'DSM5"):
        dataset.read(file, info)
    put(file, [["sentence_text", "DSM5_symptom"], ["hello", "FATIGUE"], ["hello", "ANHEDONIA"]])
    with pytest.raises(UserError, match=r"row 3, column 'DSM5_symptom': ANHEDONIA is used, but"):
        list(dataset.read(file, info))
    put(file, [["sentence_text", "DSM5_symptom"], ["hello", "SAD"]])
    with pytest.raises(UserError, match=r"row 2, column 'DSM5_symptom': found 'SAD'"):
        list(dataset.read(file, info))


def test_the_authors_sample_is_read_unchanged(shared: Path, repository: Path) -> None:
    """The 17 posts and 25 annotations of the authors' own sample load as they were published."""
    root = shared / "redsm5_sample"
    criteria = repository / "data" / "dsm5" / "MDD_Criteria.json"
    if not (root.is_dir() and criteria.is_file()):
        pytest.skip("no sample or no criteria")
    live = Redsm5(root=root, criteria=criteria).build(42)
    records = [record for split in live.keys() for record in live[split]]  # noqa: SIM118
    assert len(records) == 25
    assert len({record["group"] for record in records}) == 17
    assert Counter(record["label"] for record in records) == {1: 21, 0: 4}
    assert [len(live[split]) for split in live.keys()] == list(live.info["counts"].values())  # noqa: SIM118


def test_the_shipped_corpus_holds_1547_pairs(repository: Path) -> None:
    """Exactly 1,547 pairs load, split near 70/15/15 by post, with the same mix everywhere."""
    root = repository / "data" / "redsm5"
    criteria = repository / "data" / "dsm5" / "MDD_Criteria.json"
    if not (root / "redsm5_annotations.csv").is_file():
        pytest.skip("the corpus isn't there")
    live = Redsm5(root=root, criteria=criteria).build(42)
    counts = live.info["counts"]
    assert sum(counts.values()) == 1547
    assert counts["train"] == pytest.approx(0.70 * 1547, abs=10)
    assert counts["val"] == pytest.approx(0.15 * 1547, abs=10)
    positive = [
        sum(record["label"] for record in live[split]) / len(live[split])
        for split in live.keys()  # noqa: SIM118
    ]
    assert max(positive) - min(positive) < 0.01
    for split in ("val", "test"):
        symptoms = Counter(record["meta"]["symptom"] for record in live[split])
        assert set(symptoms) == set(SYMPTOMS)


def test_importing_it_loads_nothing_heavy() -> None:
    """The plugin's modules bring numpy and attrs, and none of the heavy libraries."""
    import subprocess

    code = "import sys, plugins.datasets.redsm5, plugins.datasets.text; print(*sys.modules)"
    root = Path(__file__).resolve().parents[3]
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    ).stdout.split()
    assert not {"torch", "pandas", "sklearn", "transformers", "pyarrow"} & set(found)
