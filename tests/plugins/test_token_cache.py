"""The token cache: the same features with it as without, whatever happens to its files."""

from __future__ import annotations

import json
import logging
import os
import pickle
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ROOT, environment

from framework.batching import Feed
from framework.commands import trained
from framework.errors import UserError
from framework.protocols import Record
from plugins import _cache
from plugins.models import _text_pairs, _token_cache, _wordpiece
from plugins.models._text_pairs import TextPairs
from plugins.samplers.bucket import Bucket
from tests.faults.processes import Process, script

WORDS = ["sleep", "four", "night", "light", "wakes", "canarybird", "ünder", "he", "lies", "there"]
ROWS = [
    {"id": f"r{at}", "text": " ".join(WORDS[: 1 + at % 9]), "label": at % 2, "meta": {"at": at}}
    for at in range(40)
]
PAIRS: list[Record] = [
    row | {"text_pair": " ".join(WORDS[at % 7 :])} for at, row in enumerate(ROWS)
]
TOKENIZER = _wordpiece.train(PAIRS, 200, token_types=True)
SCRIPT = """
import os, pickle, sys, time
from pathlib import Path
from plugins.models import _text_pairs, _token_cache
_text_pairs.FEW, _token_cache.CHUNK = 0, 16
with open(sys.argv[1], "rb") as stream:
    processor, records = pickle.load(stream)
mark, encode = Path(sys.argv[2]), _text_pairs.TextPairs._encoded
def counted(self, chunk):
    with mark.open("a") as stream:
        stream.write("built\\n")
    if sys.argv[3] == "hang":
        time.sleep(600)
    return encode(self, chunk)
_text_pairs.TextPairs._encoded = counted
features = processor.encode(records)
assert features.folder is not None
print(sum(int(item["input_ids"].sum()) for item in features))
"""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Even a few records are kept, and each warning is heard."""
    monkeypatch.setattr(_text_pairs, "FEW", 0)
    monkeypatch.setattr(_token_cache, "CHUNK", 16)
    _cache.warn.cache_clear()
    yield
    _cache.warn.cache_clear()


def processor(cache: Path | None, **changes: Any) -> TextPairs:
    """A processor of pairs with a small vocabulary."""
    made = TextPairs(TOKENIZER, 16, "longest_first", True, ("no", "yes"), cache=cache)
    return attrs.evolve(made, **changes)


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether features are equal: their keys in order, their values and types."""
    return len(one) == len(other) and all(
        [*a] == [*b]
        and all(type(a[k]) is type(b[k]) and np.array_equal(a[k], b[k]) for k in a)
        and all(a[k].dtype == b[k].dtype for k in a if isinstance(a[k], np.ndarray))
        for a, b in zip(one, other, strict=True)
    )


def entries(cache: Path) -> list[Path]:
    """The entries there are."""
    return sorted(path for path in cache.iterdir() if path.is_dir())


def forbid(*_: Any) -> Any:
    """Stand in for tokenising where nothing is to be tokenised."""
    raise AssertionError


def test_what_is_kept_gives_the_features_that_memory_gives(tmp_path: Path) -> None:
    """Features from disk are those from memory, also when found again, in order and by slices."""
    memory = processor(None).encode(PAIRS)
    first, again = (processor(tmp_path).encode(PAIRS) for _ in "12")
    assert memory.folder is None
    assert first.folder == again.folder == entries(tmp_path)[0]
    assert same(memory, first)
    assert same(memory, again)
    assert same(first[3:9], memory[3:9])
    assert first[-1]["id"] == "r39"
    assert first.lengths.tolist() == [item["length"] for item in memory]


def test_features_are_what_the_tokenizers_own_call_gives() -> None:
    """Ids and types are those of transformers' call, for pairs and for single texts."""
    for records in (PAIRS, ROWS):
        seconds = [r["text_pair"] for r in records] if "text_pair" in records[0] else None
        own = TOKENIZER(
            [r["text"] for r in records], seconds, truncation="longest_first", max_length=16,
            return_token_type_ids=True,
        )  # fmt: skip
        found = processor(None).encode(records)
        assert [item["input_ids"].tolist() for item in found] == own["input_ids"]
        assert [item["token_type_ids"].tolist() for item in found] == own["token_type_ids"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["", " ", "[SEP]", "[CLS] he [SEP]", "\0", *WORDS]
)


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=40),
    pairs=st.booleans(),
    types=st.booleans(),
    longest=st.integers(8, 20),
)
def test_the_cache_changes_no_feature(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str]],
    pairs: bool,  # noqa: FBT001 - drawn
    types: bool,  # noqa: FBT001
    longest: int,
) -> None:
    """For any texts, single or in pairs, cached features equal uncached ones, and a list's."""
    records: list[Record] = [
        {"id": str(at), "text": a} | ({"text_pair": b} if pairs else {})
        for at, (a, b) in enumerate(rows)
    ]
    made = processor(None, max_length=longest, token_types=types)
    cache = tmp_path_factory.mktemp("cache")
    memory = made.encode(records)
    kept = attrs.evolve(made, cache=cache).encode(records)
    again = attrs.evolve(made, cache=cache).encode(tuple(records))
    assert same(memory, kept)
    assert same(memory, again)
    assert len(entries(cache)) == 1
    assert all(("token_type_ids" in item) == types for item in kept)


@pytest.mark.parametrize(
    "change",
    [
        {"max_length": 11},
        {"truncation": "only_second"},
        {"token_types": False},
        {"tokenizer": _wordpiece.train(ROWS[:9], 90, token_types=True)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_or_tokenizer_is_another_entry(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """What ids depend on is part of the key: nothing of an old entry is taken."""
    processor(tmp_path).encode(PAIRS)
    changed = processor(tmp_path, **change).encode(PAIRS)
    assert len(entries(tmp_path)) == 2
    assert same(changed, processor(None, **change).encode(PAIRS))


def test_another_text_is_another_entry(tmp_path: Path) -> None:
    """One changed sign, a text moved to the other side of a pair, another order: each is new."""
    swapped = {**PAIRS[0], "text": PAIRS[0]["text_pair"], "text_pair": PAIRS[0]["text"]}
    versions: list[list[Record]] = [
        PAIRS,
        [{**PAIRS[0], "text": PAIRS[0]["text"] + "s"}, *PAIRS[1:]],
        [swapped, *PAIRS[1:]],
        PAIRS[::-1],
        PAIRS[:-1],
        [{"id": "1", "text": "ab", "text_pair": "c"}],
        [{"id": "1", "text": "a", "text_pair": "bc"}],
        [{"id": "1", "text": "abc"}],
        [{"id": "1", "text": "abc", "text_pair": ""}],
    ]
    for number, records in enumerate(versions, 1):
        found = processor(tmp_path).encode(records)
        assert len(entries(tmp_path)) == number
        assert same(found, processor(None).encode(records))


def test_ids_and_labels_are_of_the_records_at_hand(tmp_path: Path) -> None:
    """Only texts are cached: equal texts with other ids, labels or metadata keep their own."""
    processor(tmp_path).encode(PAIRS)
    others = [{**row, "id": f"x{at}", "label": 1, "meta": {}} for at, row in enumerate(PAIRS)]
    found = processor(tmp_path).encode(others)
    assert len(entries(tmp_path)) == 1
    assert [item["id"] for item in found] == [row["id"] for row in others]
    assert {item["label"] for item in found} == {1}


def test_a_key_of_the_records_stands_for_their_texts(tmp_path: Path) -> None:
    """Records that have a key are neither read nor tokenised when they are found again."""

    class Keyed(list[Any]):
        key = "of a file"

    first = processor(tmp_path).encode(Keyed(PAIRS))
    assert first.folder is not None
    found = processor(tmp_path).encode(Keyed([{"id": row["id"]} for row in PAIRS]))
    assert [item["input_ids"].tolist() for item in found] == [
        item["input_ids"].tolist() for item in first
    ]


def test_few_records_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the limit nothing is written, nor without a cache."""
    monkeypatch.setattr(_text_pairs, "FEW", len(PAIRS) + 1)
    assert processor(tmp_path).encode(PAIRS).folder is None
    assert [*tmp_path.iterdir()] == []
    assert len(processor(tmp_path).encode([])) == 0


def test_what_is_predicted_is_not_kept() -> None:
    """The chunks in which a file is predicted are below the limit, so no token of it stays."""
    assert trained.AT_ONCE < _token_cache.FEW


@pytest.mark.parametrize(("largest", "width"), [(65535, "uint16"), (65536, "uint32")])
def test_ids_are_as_wide_as_the_vocabulary_needs(largest: int, width: str) -> None:
    """Up to 65,536 entries an id takes two bytes, beyond that four; the last id comes back."""
    assert _token_cache.width(largest) == width
    found = _token_cache.held(
        ROWS[:2], lambda chunk: ([[largest, 0], [1]][: len(chunk)], []), width
    )
    assert found.tokens.ids.dtype == width
    assert found[0]["input_ids"].tolist() == [largest, 0]
    assert found[0]["input_ids"].dtype == np.int32


def test_types_that_are_not_zeros_then_ones_are_kept_whole(tmp_path: Path) -> None:
    """Types as XLNet's, or of odd tokenizers, come back as they were, from disk and memory."""
    types = [[0, 1, 0], [2, 2, 2], [0, 0, 1]] * 20

    def encode(chunk: Sequence[Record]) -> tuple[list[list[int]], list[list[int]]]:
        numbers = [int(row["id"]) for row in chunk]
        return [[7, 8, 9] for _ in chunk], [types[at] for at in numbers]

    records = [{"id": str(at), "text": str(at)} for at in range(60)]
    memory = _token_cache.held(records, encode, "uint16")
    kept = _token_cache.kept(records, encode, "uint16", [], tmp_path)
    for found in (memory, kept):
        assert [item["token_type_ids"].tolist() for item in found] == types


def damages() -> dict[str, Callable[[Path], Any]]:
    """Ways in which an entry comes to harm."""

    def zeroed(entry: Path) -> None:
        file = entry / "ids"
        file.write_bytes(bytes(file.stat().st_size))

    return {
        "a file cut short": lambda entry: os.truncate(entry / "ids", 10),
        "a file too long": lambda entry: os.truncate(entry / "ends", 10**4),
        "zeros": zeroed,
        "a file gone": lambda entry: (entry / "firsts").unlink(),
        "no manifest": lambda entry: (entry / "manifest.json").unlink(),
        "half a manifest": lambda entry: os.truncate(entry / "manifest.json", 20),
        "another manifest": lambda entry: (entry / "manifest.json").write_text("[1]"),
        "an empty folder": lambda entry: [file.unlink() for file in entry.iterdir()],
    }


@pytest.mark.parametrize("damage", damages())
def test_a_damaged_entry_is_built_again(tmp_path: Path, damage: str) -> None:
    """What isn't whole is never used, and is whole again afterwards."""
    memory = processor(None).encode(PAIRS)
    folder = processor(tmp_path).encode(PAIRS).folder
    assert folder is not None
    damages()[damage](folder)
    assert same(memory, processor(tmp_path).encode(PAIRS))
    assert _cache.opened(folder) is not None
    assert same(memory, processor(tmp_path).encode(PAIRS))


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    """Files are for the owner alone, and so are the folders, whatever the umask; no text is in."""
    before = os.umask(0)
    try:
        processor(tmp_path / "new").encode(PAIRS)
    finally:
        os.umask(before)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
        assert path.is_dir() or b"canary" not in path.read_bytes()


def test_a_folder_that_cant_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the folder can't be made, tokens are in memory, and one line says why, of no text."""
    (tmp_path / "file").write_text("in the way")
    memory = processor(None).encode(PAIRS)
    with caplog.at_level(logging.WARNING, "framework"):
        for _ in "12":
            found = processor(tmp_path / "file" / "cache").encode(PAIRS)
            assert found.folder is None
            assert same(memory, found)
    assert len(caplog.messages) == 1
    assert str(tmp_path / "file" / "cache") in caplog.messages[0]
    assert "canary" not in caplog.text


def test_a_read_only_folder_is_still_read(tmp_path: Path) -> None:
    """An entry that is there is used even where nothing can be written beside it or to it."""
    processor(tmp_path).encode(PAIRS)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    (tmp_path / next(name for name in before if name.endswith(".lock"))).unlink()
    for path in [*tmp_path.rglob("*"), tmp_path]:
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TextPairs, "_encoded", forbid)
            assert processor(tmp_path).encode(PAIRS).folder is not None
        # another can't be written; of root it can, whom no mode holds back
        assert same(processor(tmp_path).encode(ROWS), processor(None).encode(ROWS))
    finally:
        for path in [tmp_path, *tmp_path.rglob("*")]:
            path.chmod(0o700 if path.is_dir() else 0o600)


def test_a_full_disk_leaves_nothing_and_tokens_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a write is refused half-way, nothing stays, and the features are the same."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        found = processor(tmp_path).encode(PAIRS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert found.folder is None
    assert entries(tmp_path) == []
    assert same(found, processor(None).encode(PAIRS))
    assert len(caplog.messages) == 1


def begin(tmp_path: Path, mark: Path, way: str) -> Process:
    """Start a process that encodes the pairs with the cache, and marks each chunk it tokenises."""
    given_ = tmp_path / "given"
    given_.write_bytes(pickle.dumps((processor(tmp_path / "cache"), PAIRS)))
    return script(SCRIPT, given_, mark, way, cwd=tmp_path)


def wait(there: Callable[[], bool], process: Process) -> None:
    """Wait until something is there, as long as the process lives."""
    while not there():
        assert process.alive(), process.wait().err
        time.sleep(0.02)


def test_two_processes_at_once_build_one_entry(tmp_path: Path) -> None:
    """Of two processes that need the same, one tokenises, and both have the same numbers."""
    marks = [tmp_path / "a", tmp_path / "b"]
    processes = [begin(tmp_path, mark, "go") for mark in marks]
    ended = [process.wait(300) for process in processes]
    assert [each.code for each in ended] == [0, 0], ended
    assert ended[0].out == ended[1].out != ""
    assert sum(mark.exists() for mark in marks) == 1
    assert len(entries(tmp_path / "cache")) == 1


def test_a_process_killed_while_building_leaves_nothing_that_is_taken(tmp_path: Path) -> None:
    """After a kill the next builds anew, at once, and clears away what was left."""
    mark = tmp_path / "mark"
    process = begin(tmp_path, mark, "hang")
    try:
        wait(mark.exists, process)
    finally:
        process.kill()
        process.wait()
    (left,) = entries(tmp_path / "cache")
    assert left.name.startswith(".")
    found = processor(tmp_path / "cache").encode(PAIRS)
    assert same(found, processor(None).encode(PAIRS))
    assert entries(tmp_path / "cache") == [found.folder]


def test_old_entries_are_removed_and_nothing_else(tmp_path: Path) -> None:
    """What nobody has used for months goes when another entry is built; foreign files stay."""
    old = processor(tmp_path).encode(PAIRS).folder
    used = processor(tmp_path).encode(ROWS).folder
    assert old is not None
    assert used is not None
    other = tmp_path / "mine"
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    past = time.time() - (_cache.DAYS + 1) * 86400
    for path in (old, used, other):
        os.utime(path / "manifest.json", (past, past))
    processor(tmp_path).encode(ROWS)  # to use it is to keep it
    new = processor(tmp_path).encode(PAIRS[:-1]).folder
    assert set(entries(tmp_path)) == {used, other, new}


def test_a_pickle_holds_the_path_and_not_the_tokens(tmp_path: Path) -> None:
    """For workers features travel as a path: of many records' tokens not a byte."""
    records = _Counted(5_000)
    features = processor(tmp_path).encode(records)
    packed = pickle.dumps(features)
    assert len(packed) < 1000
    there = pickle.loads(packed)  # noqa: S301 - our own
    assert same(features[:30], there[:30])


def test_tokens_that_were_removed_are_told(tmp_path: Path) -> None:
    """A worker that finds no entry says which folder is gone."""
    features = processor(tmp_path).encode(_Counted(40))
    packed = pickle.dumps(features)
    assert features.folder is not None
    (features.folder / "ids").unlink()
    with pytest.raises(FileNotFoundError, match=features.folder.name):
        pickle.loads(packed)  # noqa: S301 - our own


@attrs.frozen
class _Counted(Sequence[Any]):
    """Records made when they are asked for."""

    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: Any) -> Any:
        if at >= self.count:
            raise IndexError(at)
        return PAIRS[at % len(PAIRS)] | {"id": str(at)}


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_disk_in_worker_processes(tmp_path: Path, workers: int) -> None:
    """The feed's batches from the cache, with workers or not, equal those from memory."""
    found = []
    for cache, count in ((None, 0), (tmp_path, workers)):
        made = processor(cache)
        feed = Feed(made, made.encode(PAIRS), Bucket().build(), 8, seed=3, workers=count)
        found.append([batch for window in feed.epoch(0) for batch in window])
    for one, other in zip(*found, strict=True):
        assert [*one] == [*other]
        for key, value in one.items():
            same_ = (
                torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key]
            )
            assert same_, key


def test_errors_name_the_record_and_never_quote(tmp_path: Path) -> None:
    """A record that can't be encoded is named, its text isn't, and nothing is kept of it."""
    for text in (None, ["canarybird"], 3):
        records = [*PAIRS, {"id": "odd", "text": text, "text_pair": "canarybird"}]
        with pytest.raises(UserError, match="record 'odd': its text is no text") as caught:
            processor(tmp_path).encode(records)
        assert "canary" not in str(caught.value)
    long = {"id": "long", "text": "he " * 40, "text_pair": "canarybird"}
    with pytest.raises(UserError, match="record 'long': its first text leaves no room") as caught:
        processor(tmp_path, truncation="only_second").encode([*PAIRS, long])
    assert "canary" not in str(caught.value)
    assert not tmp_path.exists() or entries(tmp_path) == []


def test_memory_doesnt_grow_with_the_records(tmp_path: Path) -> None:
    """Building and reading take no more anonymous memory for ten times as many records."""
    script = (
        "import sys, pickle\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}, {str(ROOT / 'tests')!r}]\n"
        "import test_token_cache as t\n"
        "def held():\n"
        "    lines = Path('/proc/self/status').read_text().splitlines()\n"
        "    return next(int(l.split()[1]) for l in lines if l.startswith('RssAnon'))\n"
        "made = t.processor(Path(sys.argv[1]))\n"
        "def work(count):\n"
        "    features = made.encode(t._Counted(count))\n"
        "    for at in range(0, count, 7): features[at]\n"
        "    return features\n"
        "t._text_pairs.FEW = 0\n"
        "kept = work(2_000)\n"
        "before = held()\n"
        "kept = work(20_000)\n"
        "print(held() - before, sum(p.stat().st_size for p in kept.folder.iterdir()) // 1024)\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("the system doesn't say what a process holds")
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, size = map(int, done.stdout.split())
    assert size > 500
    assert grown < 4 * 1024, json.dumps({"KiB": grown, "files": size})
