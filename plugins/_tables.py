"""Reading tables strictly: every cell as the text it is, every fault with its file and row."""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from framework.errors import UserError, listing

KINDS = (".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.gz", ".jsonl.gz", ".parquet")
_LONG, _WORDS, _LISTED = 40, 3, 10
"""Characters and blanks from which on a value may be a text."""
_BOM = b"\xef\xbb\xbf"


class Place(NamedTuple):
    """Where a row stands, as a person counts: the header of a CSV is row 1."""

    file: Path
    row: int
    line: int = 0
    """The line the row begins on, where line breaks inside cells made the two differ."""

    def fail(self, message: str, column: str = "") -> NoReturn:
        """Raise `UserError` with the place before the message."""
        line = f" (line {self.line})" if self.line not in (0, self.row) else ""
        named = f", column {shown(column)}" if column else ""
        raise UserError(f"{self.file}: row {self.row}{line}{named}: {message}") from None


class Row(NamedTuple):
    """One row: its place, and the cells of the columns that were asked for."""

    place: Place
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Return a cell that must not be blank; `UserError` when it is."""
        cell = self.cells[column]
        if not cell or cell.isspace():
            self.place.fail("the cell is empty; fill it in or remove the row", column)
        return cell

    def choice(self, column: str, known: Collection[str]) -> str:
        """Return a cell that must be one of the known values; `UserError` when it isn't."""
        cell = self.cells[column]
        if cell not in known:
            some = ", ".join(map(shown, islice(known, _LISTED))) + ", …" * (len(known) > _LISTED)
            # several words like no known value may be a text of the column beside
            typo = " " not in cell.strip() or get_close_matches(cell, known, 1)
            told = shown(cell) if typo else f"a text of {len(cell)} characters"
            self.place.fail(f"found {told}, expected one of {some}", column)
        return cell


class _Columns(NamedTuple):
    """What is read of a row; a cell of `nullable` that is null is as one that is absent."""

    wanted: Sequence[str]
    must: Collection[str]
    texts: Collection[str]
    lists: Collection[str] = ()
    nullable: Collection[str] = ()

    def row(self, place: Place, value: Any, *, strict: bool = True) -> Row:
        """Make a row of an object of JSON; `strict` looks inside its texts, too."""
        if not isinstance(value, dict):
            place.fail('expected a JSON object such as {"text": …}, one a line')
        missing = [name for name in self.wanted if name in self.must and name not in value]
        if missing:
            _absent(place.file, missing, [*value], place.row)
        kept = {
            name: _lined(value[name]) if name in self.lists else value[name]
            for name in self.wanted
            if name in value and not (value[name] is None and name in self.nullable)
        }
        return Row(
            place, {k: _cell(place, k, v, self.texts, strict=strict) for k, v in kept.items()}
        )


def shown(value: str) -> str:
    """Quote a label, an id or a name; only describe what may be a record's text."""
    return f"a text of {len(value)} characters" if textual(value) else repr(value)


def textual(value: str) -> bool:
    """Return whether a cell may be a record's text, as where columns are shifted or unnamed."""
    return len(value) > _LONG or value.count(" ") >= _WORDS


def existing(*files: Path) -> Path:
    """Return the first of these files that exists; `UserError` names all that were tried."""
    for file in files:
        if file.is_file():
            return file
    first, *others = files
    if first.is_dir():
        raise UserError(f"{first}: expected a file, found a folder; name a file in it")
    if not first.parent.is_dir():
        names = listing(file.name for file in files)
        raise UserError(f"{first.parent}: no such folder; expected {names} in it")
    tried = f" (nor {listing(other.name for other in others)})" if others else ""
    raise UserError(f"{first}: no such file{tried}; put it there or correct the path")


def rows(
    file: Path,
    required: Collection[str],
    optional: Collection[str] = (),
    texts: Collection[str] = (),
    lists: Collection[str] = (),
    nullable: Collection[str] = (),
) -> Iterator[Row]:
    """Read the rows of a CSV, TSV, JSONL (each plain or `.gz`) or Parquet file, one by one.

    Cells are text: numbers as they are written, JSON's booleans `true` and `false`. Optional
    columns that are absent are left out of the cells. `texts` must be text, not numbers, where
    the format knows the difference; in JSONL `lists` may be lists of lines, or null, and a null of
    `nullable` is as an absent one. The file and its header are looked at before this returns.
    Raises `UserError` with file, row and column for everything that is not as it should be.
    """
    existing(file)
    name = file.name.lower()
    if not name.endswith(KINDS):
        raise UserError(f"{file}: unknown kind of file; its name must end in {listing(KINDS)}")
    kind = name.removesuffix(".gz").rpartition(".")[2]
    wanted = [*dict.fromkeys((*required, *optional))]
    must = set(required)
    if kind == "parquet":
        found = _parquet(file, wanted, must, set(texts))
    elif kind == "jsonl":
        found = _jsonl(file, _Columns(wanted, must, set(texts), lists, set(nullable)))
    else:
        found = _delimited(file, "," if kind == "csv" else "\t", wanted, must)
    first = next(found, None)
    if first is None:
        raise UserError(f"{file}: no row of data; expected at least one")
    return _chain(first, found)


def listed(
    file: Path,
    required: Collection[str],
    optional: Collection[str] = (),
    texts: Collection[str] = (),
    nullable: Collection[str] = (),
) -> Iterator[Row]:
    """Read the rows of one JSON list of objects, plain or `.gz`, as strictly as `rows`."""
    place = Place(existing(file), 1)
    try:
        value = json.loads("".join(_lines(file)), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = place._replace(line=error.lineno)
        place.fail(f"broken JSON at character {error.colno} ({error.msg}); expected a list")
    except (ValueError, RecursionError) as error:
        place.fail(str(error))
    if not isinstance(value, list) or not value:
        place.fail(f"expected a list of objects with {listing(required)}, or a file .jsonl")
    wanted = [*dict.fromkeys((*required, *optional))]
    columns = _Columns(wanted, set(required), set(texts), nullable=set(nullable))
    yield from (columns.row(Place(file, at), item) for at, item in enumerate(value, 1))


def _chain(first: Row, rest: Iterator[Row]) -> Iterator[Row]:
    yield first
    yield from rest


def _absent(file: Path, missing: Sequence[str], present: Sequence[str], row: int = 1) -> NoReturn:
    names = ", ".join(map(shown, present)) or "none"
    columns = "columns" if len(missing) > 1 else "column"
    raise UserError(
        f"{file}: row {row}: missing {columns} {listing(missing)}; present: {names}; "
        "rename one or add it"
    )


def _lines(file: Path) -> Iterator[str]:
    """Yield lines as text, newlines kept; `ValueError` says what is wrong with one."""
    offset = 0
    try:
        with _opened(file) as stream:
            for number, raw in enumerate(stream):
                line = raw.removeprefix(_BOM) if number == 0 else raw
                if b"\0" in line:
                    raise ValueError("found a NUL byte; save the file again as UTF-8 text")
                try:
                    yield line.decode()
                except UnicodeDecodeError as error:
                    at = offset + len(raw) - len(line) + error.start
                    raise ValueError(
                        f"the text is not UTF-8 at byte {at + 1} of the file "
                        f"(found 0x{line[error.start]:02x}); save the file again as UTF-8"
                    ) from None
                offset += len(raw)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise ValueError("the file is no whole gzip file; fetch or pack it again") from None
    except OSError as error:
        raise ValueError(f"the file can't be read ({error.strerror})") from None


def _opened(file: Path) -> gzip.GzipFile | IO[bytes]:
    return gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb")


def _delimited(file: Path, delimiter: str, wanted: list[str], must: set[str]) -> Iterator[Row]:
    # A text may be longer than the module's limit, which is one for the whole process.
    limit = csv.field_size_limit(2**31 - 1)
    place = Place(file, 1, 1)
    reader = csv.reader(_lines(file), delimiter=delimiter, strict=True)
    header: list[str] = []
    picks: list[tuple[str, int]] = []
    try:
        for row, cells in enumerate(reader, 1):
            if not header:
                if not cells:
                    place.fail("found no header; expected the names of the columns")
                header, picks = cells, _header(file, cells, wanted, must)
            elif len(cells) == len(header):
                yield Row(place, {name: cells[at] for name, at in picks})
            elif cells:
                place.fail(
                    f"found {len(cells)} fields, expected {len(header)} as in the header; "
                    "put cells with a delimiter or a line break in quotes"
                )
            place = Place(file, row + 1, reader.line_num + 1)
    except csv.Error as error:
        place.fail(f"broken row ({error}); close the quotes, and double those inside a cell")
    except ValueError as error:
        place.fail(str(error))
    finally:
        csv.field_size_limit(limit)
    if not header:
        raise UserError(f"{file}: the file is empty; expected a header and rows")


def _header(
    file: Path, header: list[str], wanted: list[str], must: set[str]
) -> list[tuple[str, int]]:
    missing = [name for name in wanted if name in must and name not in header]
    if missing:
        _absent(file, missing, header)
    twice = [name for name in wanted if header.count(name) > 1]
    if twice:
        Place(file, 1).fail("two columns have this name; rename one", twice[0])
    return [(name, header.index(name)) for name in wanted if name in header]


def _jsonl(file: Path, columns: _Columns) -> Iterator[Row]:
    place = Place(file, 1)
    lines = _lines(file)
    while True:
        try:
            line = next(lines, None)
            if line is None:
                return
            value = json.loads(line, object_pairs_hook=_object) if line.strip() else None
        except json.JSONDecodeError as error:
            place.fail(f"broken JSON at character {error.colno} ({error.msg}); one object a line")
        except (ValueError, RecursionError) as error:
            place.fail(str(error))
        if value is not None:
            yield columns.row(place, value, strict="\\u" in line)
        elif line.strip():
            place.fail('found null, expected a JSON object such as {"text": …}')
        place = Place(file, place.row + 1)


def _lined(value: Any) -> Any:
    """Return a list of texts as the lines of one, and null as none."""
    lines = [] if value is None else value
    fine = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
    return "\n".join(lines) if fine else value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key stands twice in one object; keep one of them")
    return made


def _cell(
    place: Place, column: str, value: Any, texts: Collection[str], *, strict: bool = True
) -> str:
    """Return a value as the text it stands for; `strict` looks inside texts, too."""
    if isinstance(value, str):
        return sound(place, column, value) if strict else value
    if column in texts or not isinstance(value, (bool, int, float)):
        kind = "null" if value is None else f"a value of type {type(value).__name__}"
        expected = "text" if column in texts else "text or a number"
        place.fail(f"found {kind}, expected {expected}", column)
    if isinstance(value, bool):
        return "true" if value else "false"
    if not math.isfinite(value):
        place.fail(f"found {value}, expected text or a finite number", column)
    return str(value)


def sound(place: Place, column: str, text: str) -> str:
    """Return a text; `UserError` for one that no file can hold as UTF-8 text."""
    if "\0" in text:
        place.fail("found a NUL character; remove it", column)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        place.fail("found half of a surrogate pair, which is no text; remove it", column)
    return text


def _parquet(file: Path, wanted: list[str], must: set[str], texts: set[str]) -> Iterator[Row]:
    import pyarrow.parquet  # takes a while, and few need it

    try:
        table = pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError, ValueError):
        raise UserError(f"{file}: no readable Parquet file; write it again") from None
    with table:
        present = table.schema_arrow.names
        missing = [name for name in wanted if name in must and name not in present]
        if missing:
            _absent(file, missing, present)
        picked = [name for name in wanted if name in present]
        row = 1
        try:
            for batch in table.iter_batches(columns=picked, use_threads=False):
                columns = {name: batch.column(name) for name in picked}
                for at in range(batch.num_rows):
                    place = Place(file, row)
                    yield Row(place, {
                        name: _cell(place, name, _value(place, name, column[at]), texts)
                        for name, column in columns.items()
                    })  # fmt: skip
                    row += 1
        except (pyarrow.ArrowException, OSError):
            Place(file, row).fail("the Parquet file is broken after here; write it again")


def _value(place: Place, column: str, scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        place.fail("the text is not UTF-8; write the file again", column)
