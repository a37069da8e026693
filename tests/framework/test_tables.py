"""Rows as CSV: safe in a spreadsheet, whole or not at all."""

from __future__ import annotations

import csv
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.commands.tables import cell, writer
from framework.errors import RunError

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read(file: Path) -> list[dict[str, str]]:
    """Return the rows of a file as any reader sees them."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("start", FORMULA)
def test_no_cell_is_a_formula(start: str) -> None:
    """Text that a spreadsheet would run is quoted, and so shown as it is."""
    assert cell(f"{start}1+1") == f"'{start}1+1"


@given(TEXT)
def test_text_is_changed_by_a_quote_at_most(text: str) -> None:
    """A cell is the text itself, or the text behind one quote, and never begins a formula."""
    found = cell(text)
    assert found == (f"'{text}" if text[:1] in FORMULA and text else text)
    assert not found.startswith(FORMULA)


@pytest.mark.parametrize("value", [3, -3, True, None, "", "a=1", "'", "1-2"])
def test_other_values_stay_as_they_are(value: Any) -> None:
    """Numbers may be negative; only text is guarded, and only at its start."""
    assert cell(value) is value


@given(st.floats())
def test_a_float_reads_back_exactly(value: float) -> None:
    """A float is written with as many digits as it takes to read back the same."""
    assert repr(float(cell(value))) == repr(value)


def test_a_float_of_numpy_is_a_number() -> None:
    """A float is written as a number, whichever library made it."""
    assert float(cell(np.float64(0.1))) == 0.1


@given(st.lists(st.fixed_dictionaries({"id": TEXT, "score": st.floats()}), min_size=1, max_size=5))
def test_rows_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    """What was written reads back: line breaks, commas, quotes and all."""
    file = tmp_path_factory.mktemp("rows") / "rows.csv"
    with writer(file) as take:
        for row in rows:
            take([row])
    expected = [{"id": cell(row["id"]), "score": repr(row["score"])} for row in rows]
    assert read(file) == expected


def test_the_header_is_the_first_rows(tmp_path: Path) -> None:
    """Columns stand in the order of the first row, lines end alike on every system."""
    with writer(tmp_path / "x.csv") as take:
        take([{"id": "é", "b": 1, "a": 0.5}])
        take([{"a": 1.0, "b": None, "id": "=1"}, {"id": 'q"', "b": 2, "a": -1.0}])
    assert (tmp_path / "x.csv").read_bytes().decode() == (
        'id,b,a\né,1,0.5\n\'=1,,1.0\n"q""",2,-1.0\n'
    )


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    """Until the last row is in, nothing stands under the file's name; then nothing else does."""
    file = tmp_path / "deep" / "folder" / "x.csv"
    with writer(file) as take:
        take([{"a": 1}])
        assert not file.exists()
    assert read(file) == [{"a": "1"}]
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("before", [None, "old\n"])
@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_failure_leaves_what_was_there(
    tmp_path: Path, before: str | None, error: type[BaseException]
) -> None:
    """When writing fails half-way, an older file stays and no part of the new one does."""
    file = tmp_path / "x.csv"
    if before:
        file.write_text(before)

    def fail() -> None:
        with writer(file) as take:
            take([{"a": 1}])
            raise error

    with pytest.raises(error):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == (["x.csv"] if before else [])
    assert not before or file.read_text() == before


def _written(file: Path) -> None:
    with writer(file) as take:
        take([{"a": 1}])


def test_a_name_that_is_taken_by_a_folder_is_told(tmp_path: Path) -> None:
    """Where a folder stands under the file's name, one line says so."""
    (tmp_path / "x.csv").mkdir()
    with pytest.raises(RunError) as caught:
        _written(tmp_path / "x.csv")
    assert str(caught.value) == f"{tmp_path / 'x.csv'}: can't write (Is a directory)"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]


@pytest.mark.parametrize("place", ["file/x.csv", "file/deep/x.csv"])
def test_a_folder_that_is_a_file_is_told(tmp_path: Path, place: str) -> None:
    """Where the disk refuses, one line names the file."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"x\.csv: can't write \("):
        _written(tmp_path / place)


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    """When no more can be written, one line names the file, and no part of it stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError) as caught, writer(tmp_path / "x.csv") as take:
            take([{"a": "x" * 100}] * 5_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert str(caught.value) == f"{tmp_path / 'x.csv'}: can't write (File too large)"
    assert list(tmp_path.iterdir()) == []


def test_a_failure_to_read_is_no_failure_to_write(tmp_path: Path) -> None:
    """An input that goes missing while rows are made is not blamed on the output."""
    with pytest.raises(FileNotFoundError), writer(tmp_path / "x.csv") as take:
        take([{"a": (tmp_path / "missing").read_text()}])
