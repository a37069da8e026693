"""The callback `jsonl`: every point a line that any strict reader takes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.hooks import Hooks
from framework.state import State
from plugins.callbacks.jsonl import Jsonl

Make = Callable[[], State]


def strict(line: str) -> dict[str, Any]:
    """Parse a line as JSON's own grammar has it, without NaN and infinities."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    parsed: dict[str, Any] = json.loads(line, parse_constant=refuse)
    return parsed


def written(folder: Path) -> list[dict[str, Any]]:
    """The points in a run's file."""
    return [strict(line) for line in (folder / "metrics.jsonl").read_text().split("\n")[:-1]]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(points=st.lists(st.dictionaries(st.text(), st.floats() | st.integers()), min_size=1))
def test_every_point_is_a_strict_line(points: list[dict[str, float]], state: Make) -> None:
    """A point is one line of strict JSON with the same numbers, and null for what is none."""
    now = state()
    (now.folder / "metrics.jsonl").unlink(missing_ok=True)
    call = Hooks({"jsonl": Jsonl().build()}).call
    for point in points:
        call.log(state=now, point=point)
    expected = [
        {name: value if math.isfinite(value) else None for name, value in point.items()}
        for point in points
    ]
    assert written(now.folder) == expected


def test_a_point_as_runs_have_them(state: Make) -> None:
    """Step, epoch, time and values stand under their names, undefined ones as null."""
    now = state()
    point = {"step": 3, "epoch": 0.5, "time": 1.25, "val/f1": math.nan, "val/loss": math.inf}
    Hooks({"jsonl": Jsonl().build()}).call.log(state=now, point=point)
    assert written(now.folder) == [point | {"val/f1": None, "val/loss": None}]


def test_points_are_there_at_once_and_stay(state: Make) -> None:
    """A point can be read as soon as it is logged; a resumed run appends."""
    now = state()
    for step in (1, 2, 3):
        Hooks({"jsonl": Jsonl().build()}).call.log(state=now, point={"step": step})
        assert [point["step"] for point in written(now.folder)] == list(range(1, step + 1))


def test_the_logged_point_is_left_alone(state: Make) -> None:
    """Other callbacks see the point as it was."""
    point = {"step": 1, "val/f1": math.nan}
    Hooks({"jsonl": Jsonl().build()}).call.log(state=state(), point=point)
    assert math.isnan(point["val/f1"])


def test_a_folder_that_is_gone(state: Make) -> None:
    """Metrics that can't be written end the run: they are its record, and no mere tracking."""
    now = state()
    now.folder = now.folder / "gone"
    with pytest.raises(Exception, match=r"callback 'jsonl'.*log"):
        Hooks({"jsonl": Jsonl().build()}).call.log(state=now, point={"step": 1})
