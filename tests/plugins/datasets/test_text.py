"""Any table of texts: named columns, labels as they are written, splits given or cut."""

from __future__ import annotations

import gzip
import json
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from framework.errors import UserError
from plugins.datasets.text import Text

Table = Callable[[str, Iterable[Iterable[Any]]], Path]
Lines = Callable[[str, Iterable[Mapping[str, Any]]], Path]
HEAD = ["text", "label"]


def rows(count: int, text: str = "words") -> list[list[Any]]:
    """Rows of two classes."""
    return [[f"{text} {at}", "ab"[at % 2]] for at in range(count)]


def records(live: Any) -> list[Mapping[str, Any]]:
    """All records of all splits."""
    return [record for split in live.keys() for record in live[split]]  # noqa: SIM118


def fault(dataset: Text, secret: str) -> str:
    """Build; the error's message, which is one line without any record's text."""
    with pytest.raises(UserError) as caught:
        dataset.build(0)
    message = str(caught.value)
    assert "\n" not in message
    assert secret[:12] not in message
    return message


def test_one_file_is_cut_into_three(table: Table) -> None:
    """From one file come three splits; ids tell file and row, and are the groups."""
    live = Text(train=table("a.csv", [HEAD, *rows(100)])).build(0)
    assert {split: len(live[split]) for split in live.keys()} == live.info["counts"]  # noqa: SIM118
    assert live.info["counts"]["train"] == pytest.approx(70, abs=2)
    assert live.info["labels"] == ["a", "b"]
    found = {record["id"]: record for record in records(live)}
    assert len(found) == 100
    assert found["train:2"] == {
        "id": "train:2",
        "text": "words 0",
        "label": 0,
        "group": "train:2",
        "meta": {},
    }


@pytest.mark.parametrize(
    ("given", "ratios", "counts"),
    [
        (("train",), [0.8, 0.1, 0.1], {"train": 80, "val": 10, "test": 10}),
        (("train",), [0.8, 0.2], {"train": 80, "val": 20}),
        (("train", "test"), [0.8, 0.2], {"train": 80, "val": 20, "test": 10}),
        (("train", "test"), [0.6, 0.2, 0.2], {"train": 75, "val": 25, "test": 10}),
        (("train", "val"), [0.6, 0.2, 0.2], {"train": 75, "val": 10, "test": 25}),
        (("train", "val"), [0.6, 0.4], {"train": 100, "val": 10}),
        (("train", "val", "test"), [0.6, 0.2, 0.2], {"train": 100, "val": 10, "test": 10}),
    ],
)
def test_what_has_no_file_is_cut_from_train(
    table: Table, given: tuple[str, ...], ratios: list[float], counts: dict[str, int]
) -> None:
    """Ratios are the shares of the train file; those of given splits fall away; two: no test."""
    sizes = {"train": 100, "val": 10, "test": 10}
    files = {name: table(f"{name}.csv", [HEAD, *rows(sizes[name])]) for name in given}
    live = Text(**files, ratios=ratios).build(0)
    assert list(live.info["counts"]) == list(counts)
    for split, count in counts.items():
        assert live.info["counts"][split] == pytest.approx(
            count, abs=0 if split in given[1:] else 3
        )
    assert list(live.files) == [files[name] for name in given]
    assert len({record["id"] for record in records(live)}) == sum(sizes[name] for name in given)


def test_every_column_can_be_named(lines: Lines) -> None:
    """A pair, a label, an id, a group and metadata, all under names of one's own."""
    objects = [
        {"c": f"claim {at // 3}", "s": f"s {at}", "y": at % 2, "n": at, "g": at // 3, "m": at % 4}
        for at in range(60)
    ]
    live = Text(
        train=lines("a.jsonl", objects),
        text="c",
        text_pair="s",
        label="y",
        id="n",
        group="g",
        meta=["m"],
    ).build(0)
    found = {record["id"]: record for record in records(live)}
    assert found["31"] == {
        "id": "31",
        "text": "claim 10",
        "text_pair": "s 31",
        "label": 1,
        "group": "10",
        "meta": {"m": "3"},
    }
    sides = [{record["group"] for record in live[split]} for split in live.keys()]  # noqa: SIM118
    assert sum(map(len, sides)) == 20
    assert live.info["meta"] == {"m": ["0", "1", "2", "3"]}
    assert json.loads(json.dumps(live.info)) == live.info
    copy = pickle.loads(pickle.dumps(live))  # noqa: S301 - our own
    assert [*copy["train"]] == [*live["train"]]


def test_texts_stay_what_they_are(table: Table) -> None:
    """The words null and NA, the id 007 and blanks around are kept; nothing is a number."""
    file = table(
        "a.csv",
        [["id", "text", "label"], ["007", "null", "NA"], ["7", " NA ", "null"], ["1e3", "1", "NA"]],
    )
    live = Text(train=file, id="id").build(0)
    found = {record["id"]: record["text"] for record in records(live)}
    assert found == {"007": "null", "7": " NA ", "1e3": "1"}
    assert live.info["labels"] == ["NA", "null"]


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([10, 9, 2], ["2", "9", "10"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        ([True, False], ["false", "true"]),
        ([-1.5, 1, 0], ["-1.5", "0", "1"]),
        (["nan", "1"], ["1", "nan"]),
    ],
)
def test_labels_are_sorted(lines: Lines, values: list[Any], labels: list[str]) -> None:
    """As numbers where all are, else as text; booleans go by JSON's names."""
    objects = [{"text": "a", "label": values[at % len(values)]} for at in range(12)]
    assert Text(train=lines("a.jsonl", objects)).build(0).info["labels"] == labels


def test_given_labels_fix_the_order(table: Table) -> None:
    """`labels` names the classes in their order, also one that no row has."""
    file = table("a.csv", [HEAD, *rows(40)])
    live = Text(train=file, labels=["b", "none", "a"]).build(0)
    assert live.info["labels"] == ["b", "none", "a"]
    train = Counter(record["label"] for record in live["train"])
    assert live.info["class_counts"] == [train[0], 0, train[2]]


@pytest.mark.parametrize("labels", [["a"], ["a", "b", "a"]])
def test_given_labels_are_validated(labels: list[str]) -> None:
    """One label alone or a name that stands twice is refused, naming the option."""
    with pytest.raises(ValueError, match="'labels' must be two or more different names"):
        Text(train="a.csv", labels=labels)


def test_plain_names_lie_in_root(tmp_path: Path, table: Table, secret: str) -> None:
    """A root moves the files with plain names; without one they are refused, saying why."""
    file = table("a.csv", [HEAD, *rows(20)])
    assert list(Text(root=tmp_path, train="a.csv").build(0).files) == [file]
    message = fault(Text(train="a.csv"), secret)
    assert message.startswith("the dataset's option 'train' is the plain name 'a.csv'")
    other = tmp_path / "other"
    other.mkdir()
    assert f"{other / 'a.csv'}: no such file" in fault(Text(root=other, train="a.csv"), secret)


@pytest.mark.parametrize(
    ("options", "content", "found"),
    [
        ({}, [["words", "label"], ["CANARY", "a"]], "row 1: missing column 'text'; present: 'wor"),
        ({"group": "g"}, [HEAD, ["CANARY", "a"]], "row 1: missing column 'g'; present: 'text', "),
        ({"meta": ["m", "n"]}, [HEAD, ["CANARY", "a"]], "missing columns 'm', 'n'; present:"),
        ({}, [HEAD, ["CANARY", "a"], [" ", "b"]], "row 3, column 'text': the cell is empty"),
        ({}, [HEAD, ["CANARY", "a"], ["CANARY", ""]], "row 3, column 'label': the cell is empty"),
        (
            {"labels": ["a", "b"]},
            [HEAD, ["CANARY", "a"], ["CANARY", "c"]],
            "row 3, column 'label': found 'c', expected one of 'a', 'b'",
        ),
        (
            {"labels": ["a", "b"]},
            [HEAD, ["a", "CANARY"]],
            "row 2, column 'label': found a text of 63 characters, expected",
        ),
        (
            {"id": "id"},
            [["id", *HEAD], ["x", "CANARY", "a"], ["x", "CANARY", "b"]],
            "row 3, column 'id': 'x' is the id of row 2 of a.csv already",
        ),
        ({}, [HEAD, ["CANARY", "a"]], "column 'label' holds one label only, 'a'; expected two"),
        ({}, [HEAD, ["CANARY", "a"], ["CANARY", "b"]], "found 2 groups, expected at least 3"),
        (
            {"group": "g"},
            [["g", *HEAD], *(["x", "CANARY", "ab"[at % 2]] for at in range(20))],
            "found 1 groups, expected at least 3",
        ),
        ({}, [HEAD], "no row of data; expected at least one"),
        ({}, [HEAD, ["CANARY", "a", "b"]], "row 2: found 3 fields, expected 2 as in the header"),
    ],
)
def test_wrong_tables_are_refused(
    table: Table, secret: str, options: dict[str, Any], content: list[list[Any]], found: str
) -> None:
    """Each fault is one line with file, row and column, and without any text."""
    content = [[secret if cell == "CANARY" else cell for cell in row] for row in content]
    file = table("a.csv", content)
    message = fault(Text(train=file, **options), secret)
    assert message.startswith(f"{file}: ")
    assert found in message


def test_the_labels_of_train_bind_the_other_files(table: Table, secret: str) -> None:
    """A label that only the test file has is an error with the test file's row."""
    train = table("train.csv", [HEAD, *rows(20)])
    test = table("test.csv", [HEAD, [secret, "a"], [secret, "c"]])
    message = fault(Text(train=train, test=test), secret)
    assert message == f"{test}: row 3, column 'label': found 'c', expected one of 'a', 'b'"


def test_a_group_in_two_files_is_refused(table: Table, secret: str) -> None:
    """A group of the train file in the test file would leak; so would an id."""
    head = ["g", *HEAD]
    train = table("train.csv", [head, *([f"g{at}", *row] for at, row in enumerate(rows(20)))])
    test = table("test.csv", [head, ["new", secret, "a"], ["g7", secret, "b"]])
    message = fault(Text(train=train, test=test, group="g"), secret)
    assert message.startswith(f"{test}: row 3, column 'g': 'g7' is also in the file of train")
    message = fault(Text(train=train, test=test, id="g"), secret)
    assert message.startswith(f"{test}: row 3, column 'g': 'g7' is the id of row 9 of train.csv")


def test_a_missing_file_is_found_first(table: Table, tmp_path: Path, secret: str) -> None:
    """A missing test file or manifest is said before the train file is read."""
    train = table("train.csv", [["broken"]])
    missing = tmp_path / "gone.csv"
    assert f"{missing}: no such file" in fault(Text(train=train, test=missing), secret)
    assert f"{missing}: no such file" in fault(Text(train=train, splits=missing), secret)


def test_a_manifest_gives_the_split_back(table: Table, tmp_path: Path, secret: str) -> None:
    """The manifest pins what is cut; what lies in a file of its own can't be moved by it."""
    train = table("train.csv", [HEAD, *rows(50)])
    test = table("test.csv", [HEAD, *rows(5)])
    first = Text(train=train, test=test).build(1)
    manifest = {split: list(ids) for split, ids in first.manifest.items()}
    assert manifest["test"] == [f"test:{row}" for row in range(2, 7)]
    file = tmp_path / "m.json"
    file.write_text(json.dumps(manifest))
    second = Text(root=tmp_path, train=train, test=test, splits="m.json").build(2)
    assert second.manifest == first.manifest
    assert [*second["val"]] == [*first["val"]]

    manifest["val"].append(manifest["test"].pop())
    file.write_text(json.dumps(manifest))
    message = fault(Text(train=train, test=test, splits=file), secret)
    assert message == f"{file}: 'val': 'test:6' is in the file of 'test'; list it there"
    manifest["test"].append(manifest["val"].pop())
    manifest["test"].append(manifest["val"].pop())
    moved = manifest["test"][-1]
    file.write_text(json.dumps(manifest))
    message = fault(Text(train=train, test=test, splits=file), secret)
    assert f"'{moved}' stands under 'test'; expected it under 'train', 'val'" in message


def test_the_same_seed_gives_the_same_split(table: Table) -> None:
    """Two builds with one seed are equal, with another they differ."""
    dataset = Text(train=table("a.csv", [HEAD, *rows(60)]))
    assert dataset.build(1).manifest == dataset.build(1).manifest
    assert dataset.build(1).manifest != dataset.build(2).manifest


def test_unlabelled_files_are_streamed(table: Table, tmp_path: Path) -> None:
    """Prediction takes ids and metadata where they are, and row numbers where not."""
    dataset = Text(train="unused.csv", text_pair="b", id="n", meta=["m"])
    file = table("a.csv", [["n", "text", "b", "m"], ["007", "x", "y", "k"]])
    assert list(dataset.read(file, {})) == [
        {"id": "007", "text": "x", "text_pair": "y", "meta": {"m": "k"}}
    ]
    packed = tmp_path / "b.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"text": "x", "b": "y"}\n\n{"text": "z", "b": "y"}\n'))
    found = dataset.read(packed, {})
    assert next(iter(found)) == {"id": "1", "text": "x", "text_pair": "y", "meta": {}}
    assert [record["id"] for record in found] == ["3"]


def test_unlabelled_files_are_checked(table: Table, tmp_path: Path) -> None:
    """A missing file or column is said before the first record is asked for."""
    dataset = Text(train="unused.csv", text_pair="b")
    with pytest.raises(UserError, match=r"gone\.csv: no such file"):
        dataset.read(tmp_path / "gone.csv", {})
    with pytest.raises(UserError, match="missing column 'b'; present: 'text', 'label'"):
        dataset.read(table("a.csv", [HEAD, *rows(1)]), {})
    file = table("b.csv", [["text", "b"], ["x", "y"], ["x", ""]])
    with pytest.raises(UserError, match="row 3, column 'b': the cell is empty"):
        list(dataset.read(file, {}))


def test_parquet_is_read_like_the_others(table: Table, tmp_path: Path) -> None:
    """The same table as Parquet gives the same records, but for the header's row."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    content = rows(30)
    columns = dict(zip(HEAD, map(list, zip(*content, strict=True)), strict=True))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    first = records(Text(train=table("a.csv", [HEAD, *content])).build(0))
    second = records(Text(train=tmp_path / "a.parquet").build(0))
    assert {r["text"]: r["label"] for r in first} == {r["text"]: r["label"] for r in second}
    assert {r["id"] for r in second} == {f"train:{row}" for row in range(1, 31)}


def test_scifact_is_read_where_it_lies(shared: Path) -> None:
    """8,426 pairs split by claim, 3,121 more as the test; evidence is spread evenly."""
    root = shared / "scifact"
    if not root.is_dir():
        pytest.skip("no SciFact")
    live = Text(
        root=root,
        train="claim_sentence_pairs_train.jsonl.gz",
        test="claim_sentence_pairs_dev.jsonl.gz",
        text="claim",
        text_pair="sentence",
        label="evidence",
        group="claim_id",
    ).build(42)
    counts = live.info["counts"]
    assert counts["train"] + counts["val"] == 8426
    assert counts["test"] == 3121
    assert live.info["labels"] == ["0", "1"]
    claims = {split: set(live.manifest[split]) for split in live.keys()}  # noqa: SIM118
    assert not claims["train"] & claims["val"]
    assert len(claims["train"] | claims["val"]) == 809
    assert len(claims["test"]) == 300
    share = sum(record["label"] for record in live["val"]) / counts["val"]
    assert share == pytest.approx(1025 / 8426, abs=0.002)
    assert counts["val"] == pytest.approx(8426 * 0.15 / 0.85, rel=0.05)
