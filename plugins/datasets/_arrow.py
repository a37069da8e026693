"""Big tables: converted once to Arrow, row by row, and read from there without being in memory."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError
from plugins import _cache
from plugins._mapped import mapped
from plugins._tables import Place, Row, rows
from plugins.datasets._labelled import few

LARGE = 64 * 2**20
"""Bytes of files from which on they are converted; in memory they would be several times it."""
_ROWS, _SIGNS = 2**14, 2**22
"""Rows and characters that are converted at once."""
_LABELS = 2**16
_VERSION = 1
_FILE = "rows.arrow"


@attrs.frozen
class Layout:
    """Which columns of a table are what; an empty name: there is none."""

    texts: Mapping[str, str]
    """Columns of `text` and, maybe, `text_pair`."""
    label: str
    id: str
    group: str
    meta: Sequence[str]

    @property
    def parts(self) -> dict[str, str]:
        """Columns of texts in Arrow, in the order in which a row is looked at."""
        named = {"id": self.id, "group": self.group, **self.texts}
        return {part: column for part, column in named.items() if column}

    def rows(self, file: Path) -> Iterator[Row]:
        """Read a file, strictly."""
        needed = [*self.texts.values(), self.label, *filter(None, (self.id, self.group))]
        return rows(file, [*needed, *self.meta], texts=self.texts.values())

    def place(self, file: Path, at: int) -> Place:
        """Return where a row is; it reads the file up to it."""
        return next(islice(self.rows(file), at, None)).place


def converted(file: Path, layout: Layout, root: Path, *, free: bool) -> _cache.Entry:
    """Return the converted table of a file.

    `free`: any label is taken that isn't empty; else they are looked at later. Raises `UserError`
    for what is wrong in the file, and what the cache raises.
    """
    known = _known(file)
    name = _cache.key(_VERSION, known, attrs.asdict(layout), free)

    def make(folder: Path) -> dict[str, Any]:
        facts = _convert(file, layout, folder, free=free)
        if _known(file) != known:
            raise UserError(f"{file}: it changed while it was read; start again when it is whole")
        return facts

    return _cache.entry(root, name, make)


def _known(file: Path) -> list[Any]:
    """Return what every part of a change to a file shows in."""
    return [file.stat().st_mtime_ns, *_cache.stamp(file), *file.suffixes[-2:]]


def _convert(file: Path, layout: Layout, folder: Path, *, free: bool) -> dict[str, Any]:
    import pyarrow as pa

    codes: dict[str, int] = {}
    values: dict[str, set[str] | None] = {name: set() for name in layout.meta}
    names = [*layout.parts, *(f"meta.{name}" for name in layout.meta)]
    fields = [
        ("row", pa.int64()),
        ("label", pa.int32()),
        *((name, pa.large_string()) for name in names),
    ]
    schema = pa.schema(fields)
    with _cache.create(folder / _FILE) as stream, pa.ipc.new_file(stream, schema) as writer:
        for chunk in _chunks(layout.rows(file), layout, free=free):
            columns: list[Any] = [
                [row.place.row for row in chunk],
                _coded(chunk, layout.label, codes, file),
            ]
            columns += [[row.cells[column] for row in chunk] for column in layout.parts.values()]
            columns += [[row.cells[column] for row in chunk] for column in layout.meta]
            for column, known in values.items():
                if known is not None:
                    known.update(row.cells[column] for row in chunk)
                    values[column] = known if few(known) else None
            arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
    with file.open("rb") as source:
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()
    meta = {name: sorted(known) if known is not None else None for name, known in values.items()}
    return {"labels": [*codes], "meta": meta, "sha256": sha256}


def _chunks(source: Iterator[Row], layout: Layout, *, free: bool) -> Iterator[list[Row]]:
    """Yield rows in chunks of a bounded size, each looked at."""
    chunk: list[Row] = []
    size = 0
    columns = [*layout.parts.values(), *([layout.label] if free else [])]
    for row in source:
        size += sum(len(row.text(column)) for column in columns)
        chunk.append(row)
        if len(chunk) == _ROWS or size >= _SIGNS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _coded(chunk: list[Row], column: str, codes: dict[str, int], file: Path) -> list[int]:
    found = [codes.setdefault(row.cells[column], len(codes)) for row in chunk]
    if len(codes) > _LABELS:
        raise UserError(
            f"{file}: column '{column}' holds more than {_LABELS} different values: name the column"
            " of the labels"
        )
    return found


class Table:
    """A converted table; a pickle of it holds the path."""

    def __init__(self, folder: Path) -> None:
        """Map it."""
        import pyarrow as pa

        self.folder = folder
        self._file = pa.py_buffer(mapped(folder / _FILE))
        reader = pa.ipc.open_file(self._file)
        batches = [reader.get_batch(at) for at in range(reader.num_record_batches)]
        self._columns = {
            name: [self._views(batch.column(name)) for batch in batches]
            for name in reader.schema.names
        }
        self._ends = np.cumsum([batch.num_rows for batch in batches]).tolist()
        self._schema = reader.schema

    @staticmethod
    def _views(array: Any) -> tuple[NDArray[Any], Any]:
        """Return the numbers of an array, or where each text begins and their bytes."""
        _, first, *data = array.buffers()
        if data:
            return np.frombuffer(first, np.int64), memoryview(data[0] or b"")
        return np.asarray(array), None

    def __len__(self) -> int:
        """Count the rows."""
        return int(self._ends[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Give the path."""
        return Table, (self.folder,)

    def __contains__(self, name: str) -> bool:
        """Tell whether there is such a column."""
        return name in self._columns

    @property
    def names(self) -> Sequence[str]:
        """Names of the columns."""
        return [*self._columns]

    def numbers(self, name: str) -> NDArray[Any]:
        """Return a column of numbers, in memory."""
        return np.concatenate([numbers for numbers, _ in self._columns[name]])

    def texts(self, name: str) -> Any:
        """Return a column of texts as Arrow has it, not in memory."""
        import pyarrow as pa

        reader = pa.ipc.open_file(self._file)
        found = (reader.get_batch(at).column(name) for at in range(reader.num_record_batches))
        return pa.chunked_array(list(found), pa.large_string())

    def reader(self, at: int) -> Callable[[str], Any]:
        """Return what gives the cells of a row by the names of their columns."""
        batch = bisect_right(self._ends, at)
        place = at - (self._ends[batch - 1] if batch else 0)

        def cell(name: str) -> Any:
            numbers, data = self._columns[name][batch]
            if data is None:
                return int(numbers[place])
            return str(data[numbers[place] : numbers[place + 1]], "utf-8")

        return cell


def first_twice(columns: Sequence[Any]) -> tuple[int, int] | None:
    """Return the first row whose value stood before, and the first with it; None: all differ.

    Rows count over all the columns, one after the other.
    """
    ranks, different = ranked(columns)
    if different == len(ranks):
        return None
    firsts = np.full(different, len(ranks), np.int64)
    np.minimum.at(firsts, ranks, np.arange(len(ranks)))
    again = int(np.flatnonzero(firsts[ranks] != np.arange(len(ranks)))[0])
    return again, int(firsts[ranks[again]])


def ranked(columns: Sequence[Any]) -> tuple[NDArray[np.int64], int]:
    """Return the rank of each value among the different ones, sorted, and how many those are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    joined = pa.chunked_array(list(chain.from_iterable(c.chunks for c in columns)))
    # UTF-8 is in the order of its characters, as Python sorts texts
    ranks = np.asarray(pc.rank(joined, tiebreaker="dense")).astype(np.int64)
    ranks -= 1
    return ranks, int(ranks.max()) + 1


def ranked_as_text(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the ranks of different positive numbers, written out and sorted as text."""
    digits = np.ones(len(numbers), np.int64)
    for power in range(1, 19):
        digits += numbers >= 10**power
    # "1" < "10" < "2": filled up with zeros to one width, and of equals the shortest first
    filled = numbers * 10 ** (digits.max() - digits)
    ranks = np.empty(len(numbers), np.int64)
    ranks[np.lexsort((digits, filled))] = np.arange(len(numbers))
    return ranks
