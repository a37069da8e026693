"""The check of input: five faults of what a batch holds fail a row each, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checks.planted_data import ended, looked

FAULTS = {
    "finite": "first batch",
    "mask": "padding changes nothing",
    "special": "special tokens",
    "types": "token types",
    "targets": "targets",
}


@pytest.mark.parametrize(("fault", "row"), FAULTS.items())
def test_a_fault_fails_its_row(
    planted: Path, capsys: pytest.CaptureFixture[str], fault: str, row: str
) -> None:
    """Not finite, padding that is seen, no special tokens, one type, no target."""
    code, rows = looked(capsys, planted, f"model.fault={fault}")
    assert ended(rows, "fail", "warn") == {("input", row)}
    assert code == 1


def test_texts_are_shown_where_that_is_asked_alone(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first record is ids between named special tokens; with --show-text it is tokens."""
    from framework.__main__ import main

    for more, shown in (([], False), (["--show-text"], True)):
        assert main(["check", str(planted), "--only", "input", *more]) == 0
        told = capsys.readouterr().out
        assert "[CLS]" in told
        assert ("warm" in told) is shown


def test_much_padding_is_told(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Texts of very different lengths in one batch are a warning, which ends nothing."""
    sets = ("dataset.fault=long", "sampler=random", "trainer.batch_size=80")
    code, rows = looked(capsys, planted, *sets, only="input")
    assert ended(rows, "fail", "warn") == {("input", "padding")}
    assert code == 0
