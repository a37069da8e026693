"""Rows written as CSV: safe to open in a spreadsheet, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framework.errors import RunError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    """Return a cell; text that a spreadsheet would run as a formula gets a leading quote."""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return repr(value) if isinstance(value, float) else value


@contextmanager
def writer(file: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """Yield a function that takes rows; the file appears under its name when all went well."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8", newline="") as stream:
            out: csv.DictWriter[str] | None = None

            def take(rows: Sequence[Mapping[str, Any]]) -> None:
                nonlocal out
                for row in rows:
                    if out is None:
                        out = csv.DictWriter(stream, list(row), lineterminator="\n")
                        out.writeheader()
                    out.writerow({key: cell(value) for key, value in row.items()})

            yield take
        part.replace(file)
    except OSError as error:
        raise RunError(f"{file}: can't write ({error.strerror})") from error
    finally:
        part.unlink(missing_ok=True)
