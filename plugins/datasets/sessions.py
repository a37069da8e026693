"""Sessions of events: JSON Lines, packed or not, or a folder with a file for each session."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError, listing
from framework.protocols import Info, Record, option
from plugins import _cache
from plugins._tables import existing, shown
from plugins.datasets._labelled import names, plausible
from plugins.datasets._records import SPLITS, Corpus, cut, located
from plugins.datasets._sessions import KINDS, Index, Keys, chosen, indexed, streamed
from plugins.datasets._sessions import Sessions as Store
from plugins.datasets._splits import shares

_SEEN = ("no", "train", "val")
_LISTED = 10
_log = logging.getLogger("framework")


@attrs.frozen
class Sessions:
    """Sessions of events, each split whole, with the same mix of labels where there are any.

    A session is an object with `events`, a list of names, or of objects with a name and, if they
    have them, a type, a time in seconds and texts. A file holds one a line, a folder one a file
    (`.json`, each also `.gz`). Sessions are looked through once and then read when they are used.
    Those that have the events of one in train, or of the test's one in val, are counted, and
    their metadata says `train` or `val` under `seen`, and that of others `no`. Events are the same
    by names, types and texts, in their order; times don't count.
    """

    root: Path | None = option(None, help="folder of the files with plain names")
    train: Path | str = option(help="file or folder of train and of splits cut from it")
    val: Path | str = option("", help="file or folder of val; empty: cut from train")
    test: Path | str = option("", help="file or folder of test; empty: cut from train")
    events: str = option("events", help="key of a session's events")
    id: str = option("session", help="key of its unique id; without it, file and row, or file name")
    label: str = option("label", help="key of its label, if sessions have one")
    event: str = option("event", help="key of an event's name, where it is an object")
    type: str = option("type", help="key of an event's type, if it has one")
    time: str = option("time", help="key of when it was, in seconds, if that is known")
    texts: list[str] = option([], help="keys of an event's texts, if it has them")
    labels: list[str] = option(
        [], help="the labels in order; empty: those of train's file, sorted", validator=names
    )
    train_on: str = option("", help="label of the sessions that are trained on; empty: all")
    repeated: bool = option(
        True, help="train on sessions that also occur in another split, event by event"
    )
    ratios: list[float] = option(
        [0.7, 0.15, 0.15],
        help="shares of train, val and test, scaled to those cut; two numbers: no test is cut",
        validator=shares(2, 3),
    )
    free = ("cache",)
    cache: Path | bool = option(
        True,
        help="folder in which packed files are unpacked; true: the user's cache folder; false:"
        " none, they are unpacked into memory",
    )

    def check(self) -> None:
        """Raise `UserError` for a file that isn't there."""
        self._files()

    def build(self, seed: int) -> Corpus:
        """Read and split; `UserError` names file and row of what is wrong."""
        files, cache = self._files(), _cache.folder(self.cache, "tables")
        found = {split: indexed(f, split, self._keys(), cache) for split, f in files.items()}
        _unique(found)
        index, first = found["train"][1], files["train"]
        self._spelt(index, first)
        labels = [label for label in index.labels if label is not None]
        known = self.labels or plausible(labels, len(labels), first, self.label)
        codes = {s: chosen(found[s][1].labels, known, found[s][0]) for s in files}
        if self.train_on and self.train_on not in known:
            raise UserError(
                f"{files['train']}: dataset.train_on is {self.train_on!r},"
                f" expected one of its labels; there is {listing(known)}"
            )
        parts = {
            split: _Part(*found[home], np.asarray(codes[home], np.int64), rows)
            for split, (home, rows) in self._sides(found, codes, files, seed).items()
        }
        dropped = self._dropped(parts, known)
        parts["train"] = attrs.evolve(parts["train"], rows=parts["train"].rows[~dropped])
        trained = {"train_on": self.train_on} if self.train_on else {}
        return _corpus(parts, known, left_out=int(dropped.sum()), **trained)

    def read(self, file: Path, info: Info) -> Iterator[Record]:  # noqa: ARG002 - not needed here
        """Stream the sessions of another file or folder, in their order."""
        for session in streamed(_there(file), "session", self._keys()):
            yield {"id": session.id, "events": session.events}

    def _keys(self) -> Keys:
        return Keys(
            self.events, self.id, self.label, self.event, self.type, self.time, (*self.texts,)
        )

    def _spelt(self, index: Index, file: Path) -> None:
        """Raise `UserError` for a key that was set and that is nowhere in train's file."""
        usual = {field.name: field.default for field in attrs.fields(type(self))}
        # names alone have no keys that could be misspelt
        of_events = ["type", "time", "texts"] if index.event_keys else []
        for option_, there in (
            *((name, index.keys) for name in ("id", "label")),
            *((name, index.event_keys) for name in of_events),
        ):
            value = getattr(self, option_)
            for key in value if isinstance(value, list) else [value]:
                if key and key != usual[option_] and key not in there:
                    some = ", ".join(map(shown, sorted(there)[:_LISTED]))
                    raise UserError(
                        f"{file}: dataset.{option_} is {key!r}, and nothing has that key;"
                        f" there is {some}"
                    )

    def _files(self) -> dict[str, Path]:
        return {
            split: _there(located(file, self.root, split))
            for split, file in zip(SPLITS, (self.train, self.val, self.test), strict=True)
            if file or split == "train"
        }

    def _sides(
        self,
        found: Mapping[str, tuple[Store, Index]],
        codes: Mapping[str, Sequence[int]],
        files: Mapping[str, Path],
        seed: int,
    ) -> dict[str, tuple[str, NDArray[np.int64]]]:
        """Return of each split whose file it is in, and which of that file's sessions it has."""
        shares_of = dict(zip(SPLITS, self.ratios, strict=False))
        cuts = {s: share for s, share in shares_of.items() if s == "train" or s not in files}
        ratios = {split: share / sum(cuts.values()) for split, share in cuts.items()}
        ids = found["train"][1].ids
        strata = [codes["train"] or [0] * len(ids)]
        of = np.asarray(cut(ids, strata, ratios, seed, files["train"]))
        sides = {split: ("train", np.flatnonzero(of == split)) for split in ratios}
        for split in files.keys() - {"train"}:
            sides[split] = split, np.arange(len(found[split][1].ids))
        return {split: sides[split] for split in SPLITS if split in sides}

    def _dropped(self, parts: Mapping[str, _Part], known: Sequence[str]) -> NDArray[np.bool_]:
        """Return which sessions of train are not trained on."""
        train = parts["train"]
        dropped = np.zeros(len(train.rows), bool)
        if self.train_on:
            dropped |= train.codes[train.rows] != known.index(self.train_on)
        if not self.repeated:
            others = {d for split, part in parts.items() if split != "train" for d in part.digests}
            dropped |= np.fromiter((d in others for d in train.digests), bool, len(dropped))
        return dropped


@attrs.frozen(eq=False)
class _Part:
    """A split: sessions of a file."""

    store: Store
    index: Index
    codes: NDArray[np.int64]
    """Labels of all of the file's."""
    rows: NDArray[np.int64]

    @property
    def digests(self) -> Iterator[bytes]:
        """Digests of the split's."""
        return (self.index.digests[row] for row in self.rows)


@attrs.frozen(eq=False)
class Records(Sequence[Record]):
    """Sessions of a split, each read when it is asked for."""

    store: Store = attrs.field(repr=False)
    rows: NDArray[np.int64] = attrs.field(repr=False)
    sizes: NDArray[np.int64] = attrs.field(repr=False)
    """How many tokens each has, at least and at most (`plugins._sessions.sizes`)."""
    seen: NDArray[np.int8] = attrs.field(repr=False)
    """In which split the same events stand already."""
    labels: Sequence[str] = ()

    def __len__(self) -> int:
        """Count the sessions."""
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Record: ...
    @overload
    def __getitem__(self, at: slice) -> Records: ...
    def __getitem__(self, at: int | slice) -> Record | Records:
        """Read one session, or take some without reading any."""
        if isinstance(at, slice):
            parts = (self.rows[at], self.sizes[at], self.seen[at])
            return Records(self.store, *parts, self.labels)
        session = self.store.read(int(self.rows[at]))
        record: dict[str, Any] = {"id": session.id, "events": session.events}
        if session.label is not None and self.labels:
            record["label"] = self.labels.index(session.label)
        return record | {"meta": {"seen": _SEEN[int(self.seen[at])]}}


def _corpus(parts: Mapping[str, _Part], known: Sequence[str], **about: Any) -> Corpus:
    """Assemble the splits, and say what of them stands in one that training looks at."""
    records, repeated = {}, {}
    for split, part in parts.items():
        seen = np.zeros(len(part.rows), np.int8)
        # train comes last: what is in both is train's
        for other in ("val", "train") if split == "test" else ("train",):
            there = {*parts[other].digests} if other in parts else set()
            seen[[digest in there for digest in part.digests]] = _SEEN.index(other)
        sizes = np.asarray(part.index.sizes, np.int64)[part.rows]
        records[split] = Records(part.store, part.rows, sizes, seen, known)
        if split != "train":
            others = _SEEN[1:] if split == "test" else _SEEN[1:2]
            repeated[split] = {o: int((seen == _SEEN.index(o)).sum()) for o in others}
            told = " and ".join(f"{count} in {o}" for o, count in repeated[split].items())
            _log.info("%s: %s sessions, of which other splits have %s, too", split, len(seen), told)
    train = parts["train"]
    counts = Counter(train.codes[train.rows].tolist()) if known else {}
    info = {
        "counts": {split: len(part.rows) for split, part in parts.items()},
        "repeated": repeated,
        "meta": {"seen": [*_SEEN]},
        **about,
    }
    if known:
        info |= {"labels": [*known], "class_counts": [counts[at] for at in range(len(known))]}
    manifest = {s: [part.index.ids[row] for row in part.rows] for s, part in parts.items()}
    hashes = {f: h for part in parts.values() for f, h in part.index.hashes.items()}
    return Corpus(info, tuple(map(Path, hashes)), manifest, records, hashes)


def _unique(found: Mapping[str, tuple[Store, Index]]) -> None:
    """Refuse an id that stands twice."""
    seen: dict[str, tuple[str, int]] = {}
    for split, (store, index) in found.items():
        for at, name in enumerate(index.ids):
            if name in seen:
                home, there = seen[name]
                before, _ = found[home][0].source.place(there)
                here = f"row {before.row} of {before.file.name}"
                place, _ = store.source.place(at)
                place.fail(f"{shown(name)} is the id of {here} already; change one", store.keys.id)
            seen[name] = split, at


def _there(path: Path) -> Path:
    """Return a folder or a file that is there, packed or not; `UserError` for another."""
    if path.is_dir():
        return path
    packed = () if path.suffix == ".gz" else (path.with_name(f"{path.name}.gz"),)
    found = existing(path, *packed)
    if not found.name.endswith((".jsonl", ".jsonl.gz")):
        raise UserError(
            f"{found}: expected a .jsonl or .jsonl.gz with a session a line, or a folder of"
            f" {listing(KINDS)}"
        )
    return found
