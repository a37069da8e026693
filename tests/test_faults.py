"""Every row of the table of faults holds, each injected once or twice; CI's short setting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import ROOT

from tests.faults.rows import ROWS, Row

Told = Callable[[Row], dict[str, Any]]
ROUNDS = 1


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    """What the program says of a row: one process for all that are asked for, in their order."""
    asked = [
        item.callspec.params["row"].number
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module
    ]
    words = ["--rounds", str(ROUNDS), "--rows", ",".join(map(str, asked)), "--json"]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.faults", *words],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = map(json.loads, process.stdout)
        seen: dict[int, dict[str, Any]] = {}

        def find(row: Row) -> dict[str, Any]:
            while row.number not in seen:
                line = next(lines, None)
                assert line is not None, f"the program ended with {process.wait()}"
                seen[line["row"]] = line
            return seen[row.number]

        yield find
        if len(seen) < len(asked):
            process.terminate()  # stopped early, as by -x, nobody waits for the rest


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row-{row.number}")
def test_a_fault_does_what_the_table_says(row: Row, told: Told) -> None:
    """The row's criterion holds."""
    found = told(row)
    assert found["verdict"] == "pass", f"{row.injection}: {found['said']}"
