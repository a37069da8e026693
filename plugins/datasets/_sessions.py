"""Files of event sessions: looked through once, and then read session by session.

What is kept of a session is where it stands, its label, its size and a digest of its events.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError
from plugins import _cache
from plugins._sessions import Event, digest, sizes
from plugins._tables import Place, shown, sound, textual

KINDS = (".json", ".json.gz")
"""Endings of the files of a folder, each of one session."""
_BOM = b"\xef\xbb\xbf"
_BLOCK = 2**20
_DIGITS = 3
"""Of seconds between events: milliseconds, which don't depend on when a session began."""
_BROKEN = (gzip.BadGzipFile, EOFError, zlib.error)


@attrs.frozen
class Keys:
    """What a session's object has its parts under, and an event's."""

    events: str
    id: str
    label: str
    event: str
    type: str
    time: str
    texts: Sequence[str]


class Session(NamedTuple):
    """One session as it was read."""

    id: str
    label: str | None
    events: list[Event]
    keys: Collection[str]
    """That its object has."""
    event_keys: Collection[str]
    """That objects among its events have."""


class Source(Protocol):
    """Where sessions stand."""

    def raw(self, at: int) -> bytes:
        """Read the JSON of one session."""

    def place(self, at: int) -> tuple[Place, str]:
        """Return where one stands, and its name unless it has an id."""


@attrs.frozen(eq=False)
class Lines:
    """Sessions that are lines of a file, found by their bytes."""

    file: Path
    """What a person knows."""
    rows: NDArray[np.int32]
    """The number of each line there."""
    bounds: NDArray[np.int64]
    """Where each begins and ends, [sessions, 2]."""
    name: str
    plain: Path | bytes
    """The same unpacked: the file, a copy on the disk, or what is in memory."""

    def raw(self, at: int) -> bytes:
        """Read one line."""
        begin, end = self.bounds[at].tolist()
        if isinstance(self.plain, bytes):
            return self.plain[begin:end]
        try:
            with self.plain.open("rb") as stream:
                stream.seek(begin)
                return stream.read(end - begin)
        except OSError as error:
            raise UserError(f"{self.plain}: can't be read ({error.strerror})") from None

    def place(self, at: int) -> tuple[Place, str]:
        """Return file and row."""
        row = int(self.rows[at])
        return Place(self.file, row), f"{self.name}:{row}"


@attrs.frozen(eq=False)
class Folder:
    """Sessions that are files of a folder, each opened when it is read."""

    path: Path
    names: Sequence[str]

    def raw(self, at: int) -> bytes:
        """Read one file."""
        file = self.path / self.names[at]
        try:
            with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
                return stream.read().removeprefix(_BOM)
        except _BROKEN:
            raise UserError(f"{file}: no whole gzip file; fetch or pack it again") from None
        except OSError as error:
            raise UserError(f"{file}: can't be read ({error.strerror})") from None

    def place(self, at: int) -> tuple[Place, str]:
        """Return the file; its name is the session's."""
        return Place(self.path / self.names[at], 1), self.names[at].rsplit(".json", 1)[0]


@attrs.frozen(eq=False)
class Sessions:
    """All sessions of one file or folder."""

    source: Source = attrs.field(repr=False)
    keys: Keys

    def read(self, at: int) -> Session:
        """Read one; `UserError` says where it stands and what is wrong with it."""
        place, name = self.source.place(at)
        return parsed(self.source.raw(at), place, name, self.keys)


@attrs.define(eq=False)
class Index:
    """What is known of every session of a file or folder after one look at each."""

    ids: list[str] = attrs.field(factory=list)
    labels: list[str | None] = attrs.field(factory=list)
    digests: list[bytes] = attrs.field(factory=list)
    sizes: list[tuple[int, int]] = attrs.field(factory=list)
    keys: set[str] = attrs.field(factory=set)
    """That any session's object has."""
    event_keys: set[str] = attrs.field(factory=set)
    hashes: dict[str, str] = attrs.field(factory=dict)
    """SHA-256 of the files."""

    def add(self, session: Session) -> None:
        """Keep what is to be known of one."""
        self.ids.append(session.id)
        self.labels.append(session.label and sys.intern(session.label))
        self.digests.append(digest(session.events))
        self.sizes.append(sizes(session.events))
        self.keys.update(session.keys)
        self.event_keys.update(session.event_keys)


def indexed(path: Path, name: str, keys: Keys, cache: Path | None) -> tuple[Sessions, Index]:
    """Look through a file or folder; `UserError` for a session that can't be read."""
    source = _folder(path) if path.is_dir() else _lines(path, name, cache)
    count = len(source.names) if isinstance(source, Folder) else len(source.rows)
    if not count:
        raise UserError(f"{path}: no session in it; expected at least one")
    sessions, index = Sessions(source, keys), Index()
    for at in range(count):
        index.add(sessions.read(at))
    for file in _files(source):
        index.hashes[str(file)] = _sha256(file)
    return sessions, index


def streamed(path: Path, name: str, keys: Keys) -> Iterator[Session]:
    """Read a file or folder once, from beginning to end, as `indexed` would."""
    found = _entries(path) if path.is_dir() else _rows(path, name)
    empty = True
    for raw, place, own in found:
        empty = False
        yield parsed(raw, place, own, keys)
    if empty:
        raise UserError(f"{path}: no session in it; expected at least one")


def _entries(path: Path) -> Iterator[tuple[bytes, Place, str]]:
    folder = _folder(path)
    for at in range(len(folder.names)):
        yield folder.raw(at), *folder.place(at)


def _rows(file: Path, name: str) -> Iterator[tuple[bytes, Place, str]]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            for row, line in enumerate(stream, 1):
                text = line.removeprefix(_BOM) if row == 1 else line
                if text.strip():
                    yield text, Place(file, row), f"{name}:{row}"
    except _BROKEN:
        raise UserError(f"{file}: no whole gzip file; fetch or pack it again") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None


def _files(source: Folder | Lines) -> Iterator[Path]:
    if isinstance(source, Lines):
        yield source.file
    else:
        yield from (source.path / name for name in source.names)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _folder(path: Path) -> Folder:
    return Folder(path, sorted(file.name for file in path.iterdir() if file.name.endswith(KINDS)))


def _lines(file: Path, name: str, cache: Path | None) -> Lines:
    try:
        plain = _unpacked(file, cache) if file.suffix == ".gz" else file
        with io.BytesIO(plain) if isinstance(plain, bytes) else plain.open("rb") as stream:
            rows, bounds = _bounds(stream)
    except _BROKEN:
        raise UserError(f"{file}: no whole gzip file; fetch or pack it again") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None
    return Lines(file, rows, bounds, name, plain)


def _bounds(lines: Iterable[bytes]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return row, beginning and end of each line that isn't blank."""
    rows, bounds, end = [], [], 0
    for row, line in enumerate(lines, 1):
        skip = len(_BOM) if row == 1 and line.startswith(_BOM) else 0
        if line[skip:].strip():
            rows.append(row)
            bounds.append((end + skip, end + len(line.rstrip())))
        end += len(line)
    return np.asarray(rows, np.int32), np.asarray(bounds, np.int64).reshape(-1, 2)


def _unpacked(file: Path, cache: Path | None) -> Path | bytes:
    """Unpack once into the cache, from where lines can be read; without one, into memory."""

    def build(folder: Path) -> dict[str, Any]:
        with gzip.open(file) as packed, _cache.create(folder / "lines") as stream:
            while block := packed.read(_BLOCK):
                stream.write(block)
        return {}

    if cache is not None:
        try:
            return (
                _cache.entry(cache, _cache.key("sessions", _sha256(file)), build).folder / "lines"
            )
        except _BROKEN:
            raise
        except _cache.FAILURES as error:
            _cache.warn(cache, _cache.reason(error), "a packed file is unpacked into memory")
    with gzip.open(file) as packed:
        return packed.read()


def parsed(raw: bytes, place: Place, name: str, keys: Keys) -> Session:
    """Return a session of its JSON; `UserError` with the place for what isn't one."""
    try:
        value = json.loads(raw)
    except UnicodeDecodeError:
        place.fail("the text is not UTF-8; save the file again as UTF-8")
    except json.JSONDecodeError as error:
        place.fail(f"broken JSON at character {error.pos + 1} ({error.msg}); one session's object")
    except (ValueError, RecursionError) as error:
        place.fail(str(error))
    if not isinstance(value, dict):
        place.fail(f'expected a JSON object such as {{"{keys.events}": […]}}')
    found = value.get(keys.events)
    if not isinstance(found, list) or not found:
        place.fail("expected a list of at least one event", keys.events)
    label = value.get(keys.label) if keys.label else None
    return Session(
        _name(place, keys.id, value.get(keys.id, name)),
        None if label is None else _name(place, keys.label, label),
        _events(found, place, keys),
        value.keys(),
        {key for event in found if isinstance(event, dict) for key in event},
    )


def _events(found: Sequence[Any], place: Place, keys: Keys) -> list[Event]:
    events: list[Event] = []
    before = math.nan
    for at, value in enumerate(found):
        given = value if isinstance(value, dict) else {keys.event: value}
        event: dict[str, Any] = {"event": _kept(place, keys.event, given.get(keys.event))}
        if keys.type in given:
            event["type"] = _kept(place, keys.type, given[keys.type])
        if keys.time in given:
            now = _time(place, keys.time, given[keys.time])
            if now < before:
                place.fail(f"event {at + 1} is before the one that it follows; sort", keys.time)
            event["gap"] = 0.0 if math.isnan(before) else round(now - before, _DIGITS)
            before = now
        if texts := [_text(place, key, given[key]) for key in keys.texts if key in given]:
            event["text"] = " ".join(texts)
        events.append(event)
    return events


def _name(place: Place, key: str, value: Any) -> str:
    """Return a name as text; numbers count as they are written."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        place.fail(f"found {_kind(value)}, expected a name or a whole number", key)
    return sound(place, key, str(value))


def _kept(place: Place, key: str, value: Any) -> str:
    """Return a name that a run writes down, and that hence must be no text."""
    name = _name(place, key, value)
    if textual(name):
        place.fail(f"found {shown(name)}, expected a name; say in dataset.texts what is text", key)
    return name


def _time(place: Place, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        place.fail(f"found {_kind(value)}, expected seconds as a finite number", key)
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        place.fail("found a number that is not finite, or too large, expected seconds", key)
    return seconds


def _text(place: Place, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        place.fail(f"found {_kind(value)}, expected text or a number", key)
    return sound(place, key, str(value))


def _kind(value: Any) -> str:
    return "nothing" if value in (None, "") else f"a value of type {type(value).__name__}"


def chosen(labels: Sequence[str | None], known: Sequence[str], store: Sessions) -> list[int]:
    """Return the index of each session's label; none at all where no session has one.

    Raises `UserError` for one that isn't known, or where some have none.
    """
    if not known:
        return []
    index: Mapping[str | None, int] = {label: at for at, label in enumerate(known)}
    for at, label in enumerate(labels):
        if label not in index:
            what = "nothing" if label is None else shown(label)
            expected = ", ".join(map(shown, known))
            place, _ = store.source.place(at)
            place.fail(f"found {what}, expected one of {expected}", store.keys.label)
    return [index[label] for label in labels]
