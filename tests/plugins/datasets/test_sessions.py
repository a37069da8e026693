"""The dataset of sessions: looked through once, split by session and label, read when used."""

from __future__ import annotations

import gzip
import json
import shutil
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from framework.errors import UserError
from plugins.datasets.sessions import Sessions

Make = Callable[..., Sessions]


def written(file: Path, sessions: Iterable[Mapping[str, Any]]) -> Path:
    """Write sessions, one a line; packed where the name says so."""
    text = "".join(json.dumps(session) + "\n" for session in sessions).encode()
    file.write_bytes(gzip.compress(text) if file.suffix == ".gz" else text)
    return file


def visits(count: int, begin: int = 0) -> list[dict[str, Any]]:
    """Sessions that differ, every tenth abnormal."""
    return [
        {"session": f"s{n}", "events": [n, n % 7, "end"], "label": int(n % 10 == 3)}
        for n in range(begin, begin + count)
    ]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make options over a folder's train.jsonl."""
    settings = {"root": tmp_path, "train": "train.jsonl", "cache": tmp_path / "cache"}
    return lambda **given: Sessions(**{**settings, **given})


def ids(records: Any) -> list[str]:
    """The ids of a split."""
    return [record["id"] for record in records]


def test_it_is_split_by_session_and_label(make: Make, tmp_path: Path) -> None:
    """Every session is in one split, and each split has its share of both labels.

    It fails where sessions are drawn at random without regard to labels: of 20 abnormal ones among
    200, a split of 30 then often has one or six, and seldom three.
    """
    written(tmp_path / "train.jsonl", visits(200))
    for seed in range(5):
        splits = make().build(seed)
        assert sorted(sum((ids(splits[s]) for s in splits.keys()), [])) == sorted(  # noqa: SIM118, RUF017
            f"s{n}" for n in range(200)
        )
        found = {s: Counter(r["label"] for r in splits[s]) for s in splits.keys()}  # noqa: SIM118
        assert found == {"train": {0: 126, 1: 14}, "val": {0: 27, 1: 3}, "test": {0: 27, 1: 3}}
        assert splits.info["class_counts"] == [126, 14]
    assert ids(make().build(1)["val"]) != ids(make().build(2)["val"])


def test_the_order_of_a_file_does_not_decide(make: Make, tmp_path: Path) -> None:
    """The same sessions in another order are split alike."""
    written(tmp_path / "train.jsonl", visits(60))
    written(tmp_path / "turned.jsonl", visits(60)[::-1])
    one, other = make().build(0), make(train="turned.jsonl").build(0)
    assert {s: sorted(one.manifest[s]) for s in one.manifest} == {
        s: sorted(other.manifest[s]) for s in other.manifest
    }


def test_sessions_that_stand_twice_are_counted_and_dropped(make: Make, tmp_path: Path) -> None:
    """The same events in the same order are the same, whatever id, label and times.

    Of the test's those are counted, too, that stand in val alone: it chose what is tested.
    """
    there = [{"event": "a", "time": 1.0}, {"event": "b", "time": 1.2}]
    later = [{"event": "a", "time": 900000.1}, {"event": "b", "time": 900000.3}]
    slower = [{"event": "a", "time": 1.0}, {"event": "b", "time": 9.0}]
    train = [*visits(40), {"session": "x", "events": there, "label": 0}]
    test = [
        {"session": "y", "events": later, "label": 1},
        {"session": "z", "events": [*slower, "c"], "label": 0},
        {"session": "w", "events": slower, "label": 0},
        {**visits(1, begin=202)[0], "session": "validated"},
        {**visits(1)[0], "session": "again"},
        *visits(3, begin=100),
    ]
    written(tmp_path / "train.jsonl", train)
    written(tmp_path / "val.jsonl", visits(5, begin=200))
    written(tmp_path / "test.jsonl", test)
    files = {"val": "val.jsonl", "test": "test.jsonl"}
    kept, without = make(**files).build(0), make(**files, repeated=False).build(0)
    assert kept.info["repeated"] == {"val": {"train": 0}, "test": {"train": 3, "val": 1}}
    seen = {record["id"]: record["meta"]["seen"] for record in kept["test"]}
    assert [name for name, said in seen.items() if said == "train"] == ["y", "w", "again"]
    assert [name for name, said in seen.items() if said == "val"] == ["validated"]
    assert without.info["repeated"] == {"val": {"train": 0}, "test": {"train": 0, "val": 1}}
    assert without.info["left_out"] == 2
    assert set(ids(kept["train"])) - set(ids(without["train"])) == {"x", "s0"}
    assert ids(without["test"]) == ids(kept["test"])


def test_it_trains_on_one_label(make: Make, tmp_path: Path) -> None:
    """With `train_on` the other sessions leave train alone: validation keeps both kinds."""
    written(tmp_path / "train.jsonl", visits(200))
    splits, whole = make(train_on="0").build(0), make().build(0)
    assert {record["label"] for record in splits["train"]} == {0}
    assert splits.info["class_counts"] == [126, 0]
    assert ids(splits["val"]) == ids(whole["val"])
    with pytest.raises(
        UserError, match="train_on is 'x', expected one of its labels; there is '0', '1'"
    ):
        make(train_on="x").build(0)


def test_labels_are_not_needed(make: Make, tmp_path: Path) -> None:
    """Sessions without a label are split too, and none has a label; half of them is refused."""
    bare = [{"events": ["a", n]} for n in range(20)]
    written(tmp_path / "train.jsonl", bare)
    splits = make().build(0)
    assert "labels" not in splits.info
    first = splits["train"][0]
    assert first.keys() == {"id", "events", "meta"}
    assert first["id"].startswith("train:")
    written(tmp_path / "half.jsonl", [*bare, {"events": ["z"], "label": 1}])
    told = r"half.jsonl: row 1, column 'label': found nothing, expected one of '1'"
    with pytest.raises(UserError, match=told):
        make(train="half.jsonl").build(0)


@pytest.mark.parametrize("cached", [True, False])
def test_packed_lines_are_the_same(make: Make, tmp_path: Path, *, cached: bool) -> None:
    """A file that is packed gives the records of the plain one, from the cache or from memory."""
    written(tmp_path / "train.jsonl", visits(30))
    written(tmp_path / "packed.jsonl.gz", visits(30))
    plain = make().build(0)
    # named as the plain one would be
    packed = make(train="packed.jsonl", **({} if cached else {"cache": False})).build(0)
    assert [*packed["train"]] == [*plain["train"]]
    assert [file.name for file in packed.files] == ["packed.jsonl.gz"]
    assert (tmp_path / "cache").exists() is cached


def test_a_folder_is_read_file_by_file(make: Make, tmp_path: Path) -> None:
    """Of 3,000 files none is kept: what a file holds now is what its record holds now.

    It fails where sessions are read up front, and where a whole folder is in memory.
    """
    folder = tmp_path / "many"
    folder.mkdir()
    payload = [{"event": "e", "text": "x" * 2000}] * 4
    for number in range(3000):
        (folder / f"{number:05}.json").write_text(json.dumps({"events": [number, *payload]}))
    (folder / "notes.txt").write_text("no session")
    size = sum(file.stat().st_size for file in folder.iterdir())
    tracemalloc.start()
    splits = make(train="many", texts=["text"]).build(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < size / 2
    assert sum(splits.info["counts"].values()) == 3000
    assert len(splits.files) == 3000
    train = splits["train"]
    name = train[7]["id"]
    (folder / f"{name}.json").write_text(json.dumps({"events": ["changed"]}))
    assert train[7]["events"] == [{"event": "changed"}]
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="can't be read"):
        train[8]


def test_events_have_what_they_have(make: Make, tmp_path: Path) -> None:
    """Names alone, types, gaps in seconds and texts come as they are, under keys of one's own."""
    events = [
        5,
        {"name": "open", "kind": "io", "at": 10},
        {"name": "read", "at": 12.5, "path": "/var/a", "size": 7},
    ]
    written(tmp_path / "train.jsonl", [{"what": events, "n": n} for n in range(3)])
    keys = {"events": "what", "id": "n", "event": "name", "type": "kind", "time": "at"}
    train = make(**keys, texts=["path", "size"]).build(0)["train"]
    assert train[0]["events"] == [
        {"event": "5"},
        {"event": "open", "type": "io", "gap": 0.0},
        {"event": "read", "gap": 2.5, "text": "/var/a 7"},
    ]
    assert train[0]["id"] in {"0", "1", "2"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "row 2: broken JSON at character 2"),
        ("[1]", "row 2: expected a JSON object"),
        ('{"session": "b"}', "row 2, column 'events': expected a list of at least one event"),
        ('{"session": "b", "events": []}', "row 2, column 'events': expected a list of at least"),
        ('{"session": "b", "events": [true]}', "column 'event': found a value of type bool"),
        ('{"session": "b", "events": [{"type": "x"}]}', "column 'event': found nothing, expected"),
        ('{"session": "b", "events": [{"event": 1, "time": "1"}]}', "expected seconds as a finite"),
        (
            '{"session": "b", "events": [{"event": 1, "time": 2}, {"event": 1, "time": 1}]}',
            "row 2, column 'time': event 2 is before the one that it follows",
        ),
        (
            '{"session": "a", "events": [1]}',
            "row 2, column 'session': 'a' is the id of row 1 of train.jsonl already",
        ),
        (
            f'{{"session": "b", "events": [{{"event": 1, "time": {10**400}}}]}}',
            "row 2, column 'time",
        ),
        ('{"session": "b", "events": ["\\ud800"]}', "row 2, column 'event': found half of a"),
        ('{"session": "\\ud800", "events": [1]}', "row 2, column 'session': found half of a"),
        ('{"session": "b", "events": ["she said that she feels sad"]}', "found a text of 27 char"),
        ('{"session": "b", "events": [{"event": 1, "type": "%s"}]}' % ("x" * 41), "a text of 41 c"),
    ],
)
def test_what_is_wrong_is_told_with_its_row(
    make: Make, tmp_path: Path, line: str, words: str
) -> None:
    """A session that is none is one line with file, row and key, and never its texts."""
    file = tmp_path / "train.jsonl"
    file.write_text('{"session": "a", "events": [1]}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        make().build(0)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)
    assert "sad" not in str(caught.value)


def test_texts_are_no_labels(make: Make, tmp_path: Path) -> None:
    """Labels are written into a run: texts, of train or another split, are refused unquoted."""
    told = [{**s, "label": f"the patient {s['label']} said this"} for s in visits(30)]
    written(tmp_path / "told.jsonl", told)
    written(tmp_path / "train.jsonl", visits(30))
    written(tmp_path / "test.jsonl", [{**told[0], "session": "x"}])
    with pytest.raises(UserError, match=r"holds 2 different values in 30 rows, or texts: name the"):
        make(train="told.jsonl").build(0)
    with pytest.raises(UserError, match=r"test.jsonl: row 1, column 'label': found a text of 23"):
        make(test="test.jsonl").build(0)


def test_a_misspelt_key_is_told(make: Make, tmp_path: Path) -> None:
    """A key that was set and that nothing has is an error with those there are.

    It fails where sessions are then read without labels, types, times or texts, and no word of it.
    """
    event = {"event": "a", "type": "t", "time": 1, "text": "what was said is never told here"}
    written(tmp_path / "train.jsonl", [{**s, "events": [event, s["session"]]} for s in visits(9)])
    assert len(make(texts=["text"]).build(0)["train"]) > 0
    for option, there in (("label", "'events', 'label', 'session'"), ("id", "'events', 'label'")):
        with pytest.raises(UserError, match=f"dataset.{option} is 'odd', and .* is {there}"):
            make(**{option: "odd"}).build(0)
    for given in ({"type": "odd"}, {"time": "odd"}, {"texts": ["text", "odd"]}):
        with pytest.raises(UserError, match=r"is 'odd', .* 'event', 'text', 'time', 'type'$"):
            make(**given).build(0)
    # what is usual and absent is simply not there, and of names alone nothing is asked
    written(tmp_path / "names.jsonl", [{"events": [1, n]} for n in range(9)])
    assert "labels" not in make(train="names.jsonl", texts=["text"]).build(0).info


def test_what_is_not_there_is_told_at_once(make: Make, tmp_path: Path) -> None:
    """`check` needs no look at any session."""
    with pytest.raises(UserError, match=r"train.jsonl: no such file \(nor 'train.jsonl.gz'\)"):
        make().check()
    (tmp_path / "table.csv").write_text("a\n")
    with pytest.raises(UserError, match=r"expected a .jsonl or .jsonl.gz with a session a line"):
        make(train="table.csv").check()
    (tmp_path / "empty").mkdir()
    make(train="empty").check()
    with pytest.raises(UserError, match="no session in it"):
        make(train="empty").build(0)
    (tmp_path / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="no whole gzip file"):
        make(train="bad.jsonl.gz").build(0)


def test_other_files_are_read_for_prediction(make: Make, tmp_path: Path) -> None:
    """`read` gives the sessions of another file, and needs no labels."""
    written(tmp_path / "train.jsonl", visits(5))
    file = written(tmp_path / "new.jsonl.gz", [{"events": [1, 2]}, {"session": "b", "events": [3]}])
    found = [*make().read(file, {})]
    assert found == [
        {"id": "session:1", "events": [{"event": "1"}, {"event": "2"}]},
        {"id": "b", "events": [{"event": "3"}]},
    ]
    written(tmp_path / "large.jsonl.gz", [{"events": ["e" * 40] * 50}] * 2000)
    tracemalloc.start()
    count = sum(1 for _ in make().read(tmp_path / "large.jsonl.gz", {}))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # one by one: unpacked it is 4 MB
    assert (count, peak < 10**6) == (2000, True)
