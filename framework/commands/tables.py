"""Rows written as CSV: safe to open in a spreadsheet, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from framework.errors import RunError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    """Return a cell; text that a spreadsheet would run as a formula gets a leading quote."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return repr(float(value)) if isinstance(value, float) else value


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{file}: can't write ({error.strerror})") from None


@contextmanager
def writer(file: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that takes rows; the file appears under its name when all went well."""
    part = file.with_name(f".{file.name}.part")
    columns: list[str] = []
    with _told(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        stream = part.open("w", encoding="utf-8", newline="")

    @_told(file)
    def take(rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            cells = {key: cell(value) for key, value in row.items()}
            # before Python 3.13 csv leaves a lone \r bare, and readers end the row there
            bare = any("\r" in str(value) for value in cells.values())
            quoting: Any = csv.QUOTE_ALL if bare else csv.QUOTE_MINIMAL
            out = csv.DictWriter(stream, columns or [*row], lineterminator="\n", quoting=quoting)
            if not columns:
                columns.extend(row)
                out.writeheader()
            out.writerow(cells)

    try:
        yield take
        with _told(file):
            stream.close()
            part.replace(file)
    finally:
        with suppress(OSError), closing(stream):
            part.unlink(missing_ok=True)
