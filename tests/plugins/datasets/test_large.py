"""Big tables: the same records, splits and errors as in memory, from files that stay on disk."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
import os
import pickle
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, environment

from framework.commands._records import records as recorded
from framework.errors import UserError
from framework.testing import check_dataset
from plugins import _cache, _tables
from plugins.datasets import _arrow, _plan, text
from plugins.datasets._records import Corpus
from plugins.datasets.text import Text

Table = Callable[[str, Iterable[Iterable[Any]]], Path]
Lines = Callable[[str, Iterable[Mapping[str, Any]]], Path]
HEAD = ["text", "label", "pair", "id", "group", "kind"]


@pytest.fixture(autouse=True)
def _many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small tables have several batches, and each warning is heard."""
    monkeypatch.setattr(_arrow, "_ROWS", 7)
    _cache.warn.cache_clear()


def rows(count: int, name: str = "r", seed: int = 0) -> list[list[Any]]:
    """Rows with all that a table may have: line breaks in cells, signs of all lengths."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    return [
        [
            f"text {rng.random()}\nof ünder 🜁 {at}",
            rng.choice("abc"),
            f"pair {at}",
            f"{name}{rng.randrange(10**6)}-{at}",
            f"{name}{rng.randrange(1 + count // 3)}",
            rng.choice(("x", "y", "10", "9")),
        ]
        for at in range(count)
    ]


def memory(dataset: Text, seed: int = 3) -> Corpus:
    """Build as small files are."""
    return attrs.evolve(dataset, cache=False).build(seed)


def large(dataset: Text, seed: int = 3) -> Corpus:
    """Build as big files are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "LARGE", 0)
        live = dataset.build(seed)
    assert type(live["train"].columns).__name__ == "Tables"
    return live


def equal(one: Corpus, other: Corpus) -> None:
    """Hold two datasets equal: all that they say, and every record with its keys in order."""
    assert one.info == other.info
    assert json.dumps(one.info) == json.dumps(other.info)
    assert one.manifest == other.manifest
    assert one.files == other.files
    assert [*one.keys()] == [*other.keys()]
    for split in one.keys():  # noqa: SIM118
        assert [*map(json.dumps, one[split])] == [*map(json.dumps, other[split])]
        assert [*one[split][2:9:2]] == [*other[split][2:9:2]]
        assert one[split][-1] == other[split][-1]


WAYS: dict[str, dict[str, Any]] = {
    "texts and labels alone": {},
    "pairs": {"text_pair": "pair"},
    "ids": {"id": "id"},
    "groups": {"group": "group"},
    "all columns": {"id": "id", "group": "group", "text_pair": "pair", "meta": ["kind", "id"]},
    "labels in an order": {"labels": ["c", "b", "a"]},
    "no test": {"ratios": [0.8, 0.2]},
    "a test file": {"test": "./test.csv", "id": "id", "group": "group", "meta": ["kind"]},
    "a file each": {"test": "./test.csv", "val": "./val.csv"},
}


@pytest.mark.parametrize("way", WAYS)
def test_records_and_splits_are_those_of_small_files(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Records, their order, splits, labels, counts and manifest are the same either way."""
    monkeypatch.chdir(tmp_path)
    table("test.csv", [HEAD, *rows(20, "t", 1)])
    table("val.csv", [HEAD, *rows(20, "v", 2)])
    train = table("train.csv", [HEAD, *rows(120)])
    dataset = Text(train=train, root=tmp_path, cache=tmp_path / "cache", **WAYS[way])
    equal(memory(dataset), large(dataset))
    # and again, from what was kept
    equal(memory(dataset), large(dataset))


@pytest.mark.parametrize("kind", ["tsv", "jsonl", "csv.gz", "jsonl.gz"])
def test_every_kind_of_file_can_be_big(tmp_path: Path, kind: str) -> None:
    """TSV and JSONL, plain or packed, are converted as CSV is; blank lines count as rows."""
    file = tmp_path / f"a.{kind}"
    with (gzip.open if kind.endswith("gz") else open)(file, "wt", encoding="utf-8") as stream:
        if "jsonl" in kind:
            stream.writelines(
                json.dumps({"text": f"t {at}", "label": at % 2 == 0}) + "\n" * (1 + at % 3)
                for at in range(50)
            )
        else:
            rows_ = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",")
            rows_.writerows([["text", "label"], *([f"t {at}", at % 2] for at in range(50)), []])
    dataset = Text(train=file, cache=tmp_path / "cache")
    equal(memory(dataset), large(dataset))


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=8)


@settings(max_examples=25)
@given(
    groups=st.lists(cells.filter(str.strip), min_size=10, max_size=60),
    labels=st.lists(st.sampled_from("ab"), min_size=60, max_size=60),
    seed=st.integers(0, 5),
)
def test_any_groups_are_split_alike(
    tmp_path_factory: pytest.TempPathFactory, groups: list[str], labels: list[str], seed: int
) -> None:
    """Whatever groups are called, in any script, they go where small files' groups go."""
    folder = tmp_path_factory.mktemp("any")
    file = folder / "a.csv"
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "label", "g"])
        writer.writerows([f"t {at}", labels[at], g] for at, g in enumerate(groups))
    dataset = Text(
        train=file, group="g", labels=["a", "b"], ratios=[0.7, 0.3], cache=folder / "cache"
    )
    told = []
    for build in (memory, large):
        try:
            live = build(dataset, seed)
        except UserError as error:
            told.append(str(error))
        else:
            told.append([[*map(json.dumps, live[split])] for split in ("train", "val")])
    assert told[0] == told[1]


@given(st.lists(st.integers(1, 10**9), min_size=1, unique=True))
def test_numbers_rank_as_their_texts(numbers: list[int]) -> None:
    """Row numbers are ranked as the ids made of them would be sorted."""
    ranks = _arrow.ranked_as_text(np.asarray(numbers))
    order = sorted(numbers, key=str)
    assert [order.index(number) for number in numbers] == ranks.tolist()


def faults(secret: str) -> dict[str, tuple[dict[str, list[list[Any]]], dict[str, Any]]]:
    """Files with one mistake each, and options."""
    good = rows(30)

    def with_(at: int, column: int, cell: str) -> list[list[Any]]:
        bad = [list(row) for row in good]
        bad[at][column] = cell
        return [HEAD, *bad]

    columns = {"id": "id", "group": "group", "text_pair": "pair"}
    train = [HEAD, *good]
    return {
        "an empty text": ({"train": with_(20, 0, " ")}, {}),
        "an empty pair": ({"train": with_(20, 2, "")}, columns),
        "an empty id": ({"train": with_(20, 3, "")}, columns),
        "an empty group": ({"train": with_(20, 4, "")}, columns),
        "an empty label": ({"train": with_(20, 1, "")}, {}),
        "an unknown label": ({"train": with_(20, 1, "d")}, {"labels": ["a", "b", "c"]}),
        "a text as a label": ({"train": with_(20, 1, secret)}, {"labels": ["a", "b", "c"]}),
        "a label that train lacks": ({"train": train, "val": with_(9, 1, "ab")}, {}),
        "one label only": ({"train": [HEAD, *(r for r in good if r[1] == "a")]}, {}),
        "texts as labels": ({"train": train}, {"label": "text"}),
        "an id twice": ({"train": with_(20, 3, good[4][3])}, columns),
        "an id in two files": (
            {"train": train, "val": [HEAD, *rows(9, "v"), good[3]]},
            {"id": "id"},
        ),
        "a group in two files": (
            {"train": train, "test": [HEAD, *rows(9, "v"), [*good[3][:3], "new", *good[3][4:]]]},
            columns,
        ),
        "a column that isn't there": ({"train": train}, {"meta": ["nothing"]}),
        "a row too short": ({"train": [*train, ["a"]]}, {}),
        "no row": ({"train": [HEAD]}, {}),
        "too few groups": ({"train": with_(20, 4, "q")[:1] + [[*r[:4], "g", r[5]] for r in good]},
                           {"group": "group"}),
    }  # fmt: skip


@pytest.mark.parametrize("name", faults(""))
def test_mistakes_are_told_in_the_same_words(
    table: Table, tmp_path: Path, secret: str, name: str
) -> None:
    """What is wrong in a big file is told with its file, row and column, as in a small one."""
    files, options = faults(secret)[name]
    paths = {split: table(f"{split}.csv", content) for split, content in files.items()}
    dataset = Text(**paths, cache=tmp_path / "cache", **options)
    told = []
    for build in (memory, large, large):
        with pytest.raises(UserError) as caught:
            build(dataset)
        told.append(str(caught.value))
    assert told[0] == told[1] == told[2]
    assert secret[:12] not in told[0]
    assert "\n" not in told[0]


def test_a_cut_can_be_pinned(table: Table, tmp_path: Path) -> None:
    """A manifest pins the cut of a big file too; another manifest is another cut."""
    train = table("train.csv", [HEAD, *rows(60)])
    pins = tmp_path / "splits.json"
    dataset = Text(train=train, group="group", splits=pins, cache=tmp_path / "cache")
    for seed in (1, 2):
        manifest = memory(attrs.evolve(dataset, splits=""), seed).manifest
        pins.write_text(json.dumps(manifest), encoding="utf-8")
        equal(memory(dataset), large(dataset))
        assert large(dataset).manifest == manifest
    pins.write_text(json.dumps({"train": ["nobody"]}), encoding="utf-8")
    with pytest.raises(UserError, match="'nobody' is not in the data"):
        large(dataset)


def test_what_was_converted_is_read_again(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second start reads no row of the file, and computes no split."""
    dataset = Text(train=table("a.csv", [HEAD, *rows(50)]), id="id", cache=tmp_path / "cache")
    first = large(dataset)

    def forbid(*_: Any, **__: Any) -> Any:
        raise AssertionError

    monkeypatch.setattr(_arrow, "rows", forbid)
    monkeypatch.setattr(_plan, "apportion", forbid)
    equal(first, large(dataset))
    # another seed is another cut of the same table
    monkeypatch.undo()
    monkeypatch.setattr(_arrow, "rows", forbid)
    assert large(dataset, 4).manifest == memory(dataset, 4).manifest


@pytest.mark.parametrize("kept", [True, False])
def test_a_changed_file_is_converted_again(table: Table, tmp_path: Path, *, kept: bool) -> None:
    """A changed file is another, even one of the same size, and with the time it had before."""
    content = rows(50)
    file = table("a.csv", [HEAD, *content])
    before = file.stat()
    dataset = Text(train=file, cache=tmp_path / "cache")
    first = large(dataset)
    content[20][0] = content[20][0].replace("text", "next")
    table("a.csv", [HEAD, *content])
    if kept:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = large(dataset)
    equal(memory(dataset), second)
    assert first["train"].key != second["train"].key


def test_keys_tell_splits_apart(table: Table, tmp_path: Path) -> None:
    """Each split of each seed has a key of its own, the same at the next start."""
    dataset = Text(train=table("a.csv", [HEAD, *rows(50)]), cache=tmp_path / "cache")
    keys = [large(dataset, seed)[s].key for seed in (1, 2, 1) for s in ("train", "val")]
    assert keys[:2] == keys[4:]
    assert len({*keys}) == 4


def test_a_pickle_holds_paths(table: Table, tmp_path: Path) -> None:
    """For worker processes a split travels as paths, and without its texts on demand."""
    live = large(Text(train=table("a.csv", [HEAD, *rows(900)]), cache=tmp_path / "cache"))
    train = live["train"]
    packed = pickle.dumps(train)
    assert len(packed) < 2000
    there = pickle.loads(packed)  # noqa: S301 - our own
    assert [*there] == [*train]
    bare = pickle.loads(pickle.dumps(train.bare()))  # noqa: S301
    without = [{k: v for k, v in record.items() if k != "text"} for record in train]
    assert [*bare] == without
    assert [*memory(Text(train=live.files[0]))["train"].bare()] == without


def test_the_contract_of_datasets_holds(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Big tables pass the suite for datasets."""
    monkeypatch.setattr(text, "LARGE", 0)
    file = table("a.csv", [HEAD, *rows(600)])
    check_dataset(Text(train=file, group="group", meta=["kind"], cache=tmp_path / "cache"))


def test_many_ids_are_told_by_a_digest(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest of very many is short, and resuming still notices another split."""
    monkeypatch.setattr(_plan, "LISTED", 10)
    dataset = Text(train=table("a.csv", [HEAD, *rows(200)]), cache=tmp_path / "cache")
    one, same, other = large(dataset, 1), large(dataset, 1), large(dataset, 2)
    assert [len(ids) for ids in one.manifest.values()] == [1, 1, 1]
    assert one.manifest == same.manifest
    (tmp_path / "splits.json").write_text(json.dumps(dict(one.manifest)), encoding="utf-8")
    with recorded() as run:
        run.unchanged(tmp_path, same)
        with pytest.raises(UserError, match="gives other splits"):
            run.unchanged(tmp_path, other)


def test_hashes_of_the_files_are_known(table: Table, tmp_path: Path) -> None:
    """The files' SHA-256 come from the conversion, so that no start reads the files for it."""
    file = table("a.csv", [HEAD, *rows(40)])
    live = large(Text(train=file, cache=tmp_path / "cache"))
    assert live.hashes == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    assert memory(Text(train=file)).hashes == {}


def test_only_the_owner_may_read(table: Table, tmp_path: Path) -> None:
    """What holds texts is for the owner alone."""
    before = os.umask(0)
    try:
        large(Text(train=table("a.csv", [HEAD, *rows(40)]), cache=tmp_path / "cache"))
    finally:
        os.umask(before)
    for path in (tmp_path / "cache" / "tables").rglob("*"):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_without_a_cache_big_files_are_read_into_memory(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing can be written that is told once; with `cache = false` nothing is."""
    monkeypatch.setattr(text, "LARGE", 0)
    (tmp_path / "file").write_text("in the way")
    dataset = Text(train=table("a.csv", [HEAD, *rows(40)]), cache=tmp_path / "file")
    with caplog.at_level(logging.WARNING, "framework"):
        for _ in "12":
            equal(memory(dataset), dataset.build(3))
        attrs.evolve(dataset, cache=False).build(3)
    assert len(caplog.messages) == 1
    assert "read into memory" in caplog.messages[0]


def test_the_default_folder_follows_the_standard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """XDG_CACHE_HOME is followed where it is absolute, as the standard says; false is no folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    own = tmp_path / ".cache" / "composable-nlp" / "tokens"
    for value, expected in (("/x", Path("/x/composable-nlp/tokens")), ("x", own), ("", own)):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert _cache.folder(True, "tokens") == expected
    assert _cache.folder(False, "tokens") is None
    assert _cache.folder(tmp_path, "tokens") == tmp_path / "tokens"


def test_a_file_that_changes_while_it_is_read_is_told(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept of a file that somebody is still writing."""
    file = table("a.csv", [HEAD, *rows(40)])

    def growing(*given_: Any, **named: Any) -> Iterable[_tables.Row]:
        for row in _tables.rows(*given_, **named):
            yield row
            os.utime(file, (1, 1))

    monkeypatch.setattr(_arrow, "rows", growing)
    with pytest.raises(UserError, match="changed while it was read"):
        large(Text(train=file, cache=tmp_path / "cache"))
    assert not [p for p in (tmp_path / "cache" / "tables").iterdir() if p.is_dir()]


def test_too_many_labels_are_told(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A column of ids or texts as the label of a big file ends before it fills the memory."""
    monkeypatch.setattr(_arrow, "_LABELS", 20)
    file = table("a.csv", [HEAD, *rows(100)])
    with pytest.raises(UserError, match="column 'id' holds more than 20 different values"):
        large(Text(train=file, label="id", cache=tmp_path / "cache"))


MEMORY = """
import sys
from pathlib import Path
from plugins.datasets import _arrow, text
from plugins.datasets.text import Text
_arrow._SIGNS = 2**18
def held():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
text.LARGE = 0
def work(name):
    live = Text(train=Path(sys.argv[1], name), cache=Path(sys.argv[1], "cache")).build(0)
    most = held()
    for at in range(0, len(live["train"]), 7):
        live["train"][at]
    return live, max(most, held())
few, before = work("few.csv")
many, after = work("many.csv")
print(after - before, sum(map(len, (many["train"], many["val"], many["test"]))))
"""


def test_memory_doesnt_grow_with_the_rows(table: Table, tmp_path: Path) -> None:
    """Converting and reading 60,000 rows leaves next to nothing more in memory than 2,000 do."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system doesn't say what a process holds")
    filler = "words " * 60
    for name, count in (("few.csv", 2_000), ("many.csv", 60_000)):
        table(name, [HEAD[:2], *([f"{filler}{at}", "ab"[at % 2]] for at in range(count))])
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)],
        env=environment() | {"PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, count = map(int, done.stdout.split())
    assert count == 60_000
    # the texts alone are 21 MiB
    assert grown < 12 * 1024
