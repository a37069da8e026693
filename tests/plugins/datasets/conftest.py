"""What the tests of datasets share: writing tables, and where the shared data lies."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
SHARED = REPOSITORY.parent / "shared" / "data"
CANARY = "the quick canary said something that nobody else must ever read"
"""Stands for a record's text: no message may hold it."""


@pytest.fixture
def shared() -> Path:
    """The shared data; the test is skipped where there is none."""
    if not SHARED.is_dir():
        pytest.skip(f"no shared data in {SHARED}")
    return SHARED


@pytest.fixture
def repository() -> Path:
    """The repository's root."""
    return REPOSITORY


@pytest.fixture
def secret() -> str:
    """A text that no message may hold."""
    return CANARY


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str, Iterable[Iterable[Any]]], Path]:
    """Write rows, the header first, as a CSV file."""

    def write(name: str, rows: Iterable[Iterable[Any]]) -> Path:
        file = tmp_path / name
        with file.open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
        return file

    return write


@pytest.fixture
def lines(tmp_path: Path) -> Callable[[str, Iterable[Mapping[str, Any]]], Path]:
    """Write objects as a JSONL file."""

    def write(name: str, objects: Iterable[Mapping[str, Any]]) -> Path:
        file = tmp_path / name
        file.write_text("".join(json.dumps(item) + "\n" for item in objects), encoding="utf-8")
        return file

    return write
