"""Token ids of whole splits: made once, kept on disk, and read from there record by record."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, overload

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.protocols import Features, Record
from plugins import _cache

CHUNK = 1024
"""Records that are tokenised at once."""
FEW = 4096
"""Records below which tokenising (0.3 s) is no slower than what it takes to look things up."""
_VERSION = 1
"""Of the files' form."""
_TEXTS = ("text", "text_pair")
_KEPT = ("id", "label", "meta")
"""What features have of their record."""

Rows = list[list[int]]
"""A list of numbers for each record of a chunk."""
Encode = Callable[[Sequence[Record]], tuple[Rows, Rows]]
"""Token ids and token types of a chunk of records; no types where there are none."""


class _OddTypesError(Exception):
    """Token types are not zeros and then ones."""


@attrs.frozen(eq=False)
class Tokens:
    """The tokens of records, one record after the other."""

    ids: NDArray[Any]
    ends: NDArray[np.int64]
    """Where each record's tokens end."""
    firsts: NDArray[np.int32] | None = None
    """How many tokens of each record belong to its first text."""
    types: NDArray[np.uint8] | None = None
    """The type of each token, where it isn't told by `firsts`."""


@attrs.frozen(eq=False)
class Encoded(Sequence[Features]):
    """Features of records, each made when it is asked for.

    A pickle of it holds the path of what is on disk, and of records what they say themselves.
    """

    records: Sequence[Record] = attrs.field(repr=False)
    """At least what features have of them; texts aren't needed."""
    tokens: Tokens = attrs.field(repr=False)
    folder: Path | None = None
    """Where the tokens are kept."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each record."""
        return np.diff(self.tokens.ends, prepend=0)

    def __len__(self) -> int:
        """Count the records."""
        return len(self.tokens.ends)

    @overload
    def __getitem__(self, at: int) -> Features: ...
    @overload
    def __getitem__(self, at: slice) -> list[Features]: ...
    def __getitem__(self, at: int | slice) -> Features | list[Features]:
        """Make the features of one record, or of some."""
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        begin, end = (
            (int(self.tokens.ends[index - 1]) if index else 0),
            int(self.tokens.ends[index]),
        )
        record = self.records[index]
        made: dict[str, Any] = {"id": record["id"], "length": end - begin}
        made["input_ids"] = self.tokens.ids[begin:end].astype(np.int32)
        if self.tokens.firsts is not None:
            made["token_type_ids"] = np.ones(end - begin, np.int32)
            made["token_type_ids"][: self.tokens.firsts[index]] = 0
        elif self.tokens.types is not None:
            made["token_type_ids"] = self.tokens.types[begin:end].astype(np.int32)
        return made | {name: record[name] for name in _KEPT[1:] if name in record}

    def __reduce__(self) -> tuple[Any, ...]:
        """Give the path instead of what is there."""
        if self.folder is None:
            return Encoded, (self.records, self.tokens)
        return _again, (self.records, self.folder)


def _again(records: Sequence[Record], folder: Path) -> Encoded:
    """Open what another process has kept; it looked at it just now."""
    found = _cache.opened(folder)
    if found is None:
        raise FileNotFoundError(f"{folder}: the cached tokens were removed during the run")
    return Encoded(records, _mapped(found), folder)


def width(largest: int) -> str:
    """Return the type of numbers that holds token ids up to the largest."""
    return "uint16" if largest < 2**16 else "uint32"


def held(records: Sequence[Record], encode: Encode, dtype: str) -> Encoded:
    """Tokenise into memory."""
    made: dict[str, io.BytesIO] = {}

    def create(name: str) -> BinaryIO:
        made[name] = io.BytesIO()
        return made[name]

    columns = _tokenised(records, encode, dtype, create)
    arrays = {name: np.frombuffer(made[name].getbuffer(), of) for name, of in columns.items()}
    return Encoded(_heads(records), Tokens(**arrays))


def kept(
    records: Sequence[Record], encode: Encode, dtype: str, settings: Sequence[Any], root: Path
) -> Encoded:
    """Tokenise into a file, or find what was tokenised before from the same texts and settings.

    Where the disk can't keep it, it is in memory, and that is told once.
    """
    content = _content(records)
    if content is None:
        return held(records, encode, dtype)

    def build(folder: Path) -> dict[str, Any]:
        with ExitStack() as stack:
            return dict(
                _tokenised(
                    records, encode, dtype, lambda name: stack.enter_context(_fresh(folder / name))
                )
            )

    try:
        found = _cache.entry(root, _cache.key(_VERSION, content, dtype, *settings), build)
        return Encoded(_heads(records), _mapped(found), found.folder)
    except _cache.FAILURES as error:
        _cache.warn(root, _cache.reason(error), "tokens are kept in memory")
        return held(records, encode, dtype)


def _fresh(file: Path) -> BinaryIO:
    """Create a file, in place of one of a first attempt."""
    file.unlink(missing_ok=True)
    return _cache.create(file)


def _mapped(found: _cache.Entry) -> Tokens:
    return Tokens(**{name: found.array(name, of) for name, of in found.facts.items()})


def _heads(records: Sequence[Record]) -> Sequence[Record]:
    """Return records without their texts, as far as that saves reading or keeping them."""
    if isinstance(records, (list, tuple)):
        return [{name: record[name] for name in _KEPT if name in record} for record in records]
    return records.bare() if hasattr(records, "bare") else records


def _content(records: Sequence[Record]) -> str | None:
    """Return a hash of all texts, or the key of records that have one; None for what is no text."""
    if known := getattr(records, "key", ""):
        return str(known)
    found = hashlib.blake2b(digest_size=32)
    for begin in range(0, len(records), CHUNK):
        chunk = [records[at] for at in range(begin, min(begin + CHUNK, len(records)))]
        texts = [record.get(name) for record in chunk for name in _TEXTS]
        if not all(isinstance(text, str) or text is None for text in texts):
            return None
        lengths = [-1 if text is None else len(text) for text in texts]
        found.update(np.asarray(lengths, np.int64).tobytes())
        found.update("".join(filter(None, texts)).encode("utf-8", "surrogatepass"))
    return found.hexdigest()


def _tokenised(
    records: Sequence[Record], encode: Encode, dtype: str, create: Callable[[str], BinaryIO]
) -> Mapping[str, str]:
    """Tokenise chunk by chunk into files; return the names of these and their types of numbers."""
    try:
        return _written(records, encode, dtype, create, whole=False)
    except _OddTypesError:
        return _written(records, encode, dtype, create, whole=True)


def _written(
    records: Sequence[Record],
    encode: Encode,
    dtype: str,
    create: Callable[[str], BinaryIO],
    *,
    whole: bool,
) -> Mapping[str, str]:
    files = {"ids": create("ids"), "ends": create("ends")}
    columns = {"ids": dtype, "ends": "int64"}
    end = 0
    for begin in range(0, len(records), CHUNK):
        chunk = [records[at] for at in range(begin, min(begin + CHUNK, len(records)))]
        ids, types = encode(chunk)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        ends = np.cumsum(lengths)
        files["ids"].write(np.fromiter(chain.from_iterable(ids), dtype, int(ends[-1])).data)
        files["ends"].write((end + ends).data)
        end += int(ends[-1])
        if types:
            name, of = ("types", "uint8") if whole else ("firsts", "int32")
            if name not in files:
                files[name], columns[name] = create(name), of
            flat = np.fromiter(chain.from_iterable(types), np.uint8, int(ends[-1]))
            files[name].write((flat if whole else _firsts(flat, lengths, ends)).data)
    return columns


def _firsts(types: NDArray[np.uint8], lengths: Any, ends: Any) -> NDArray[np.int32]:
    """Return how many zeros stand before the ones of each record."""
    sums = np.concatenate([[0], np.cumsum(types, dtype=np.int64)])
    begins = ends - lengths
    firsts: NDArray[np.int64] = lengths - (sums[ends] - sums[begins])
    place = np.arange(len(types)) - np.repeat(begins, lengths)
    if not np.array_equal(place >= np.repeat(firsts, lengths), types):
        raise _OddTypesError
    return firsts.astype(np.int32)
