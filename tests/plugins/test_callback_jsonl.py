"""The callback `jsonl`: every point a line that any strict reader takes."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from framework.errors import RunError
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


def logged(now: State, steps: Sequence[int], live: Any = None) -> Any:
    """Log some points with a callback of a run that starts, or goes on."""
    live = live or Jsonl().build()
    call = Hooks({"jsonl": live}).call
    call.run_start(state=now)
    for step in steps:
        call.log(state=now, point={"step": step, "val/f1": 1 / step})
    return live


def saved(live: Any) -> Any:
    """Return what a fresh callback makes of another's state, read back from a file."""
    stream = io.BytesIO()
    torch.save(live.state_dict(), stream)
    stream.seek(0)
    fresh = Jsonl().build()
    fresh.load_state_dict(torch.load(stream, weights_only=True))
    return fresh


def test_points_are_there_at_once(state: Make) -> None:
    """A point can be read as soon as it is logged."""
    now = state()
    call = Hooks({"jsonl": Jsonl().build()}).call
    for step in (1, 2, 3):
        call.log(state=now, point={"step": step})
        assert [point["step"] for point in written(now.folder)] == list(range(1, step + 1))


def test_a_resumed_run_appends(state: Make) -> None:
    """Points up to the checkpoint stay, and those after it follow."""
    now = state()
    logged(now, [3], saved(logged(now, [1, 2])))
    assert [point["step"] for point in written(now.folder)] == [1, 2, 3]


def test_points_behind_the_checkpoint_are_cut_off(state: Make) -> None:
    """What a killed run had logged after its checkpoint is trained, and logged, again."""
    now = state()
    live = logged(now, [1, 2])
    kept = saved(live)
    logged(now, [1, 2, 3, 4, 5], live=live)
    again = logged(now, [3], kept)
    assert [point["step"] for point in written(now.folder)] == [1, 2, 3]
    logged(now, [4], saved(again))
    assert [point["step"] for point in written(now.folder)] == [1, 2, 3, 4]


def test_half_a_line_is_cut_off(state: Make) -> None:
    """A line that a killed process had not finished doesn't spoil the next."""
    now = state()
    kept = saved(logged(now, [1]))
    with (now.folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 2, "val')
    logged(now, [2], kept)
    assert [point["step"] for point in written(now.folder)] == [1, 2]


def test_a_run_that_starts_over_starts_its_points_over(state: Make) -> None:
    """Without a checkpoint nothing of an earlier attempt is left in the file."""
    now = state()
    logged(now, [1, 2, 3])
    logged(now, [1])
    assert [point["step"] for point in written(now.folder)] == [1]


@pytest.mark.parametrize("left", [None, 0, 1, 30])
def test_a_file_that_is_shorter_than_it_was_is_told(state: Make, left: int | None) -> None:
    """Points that are gone can't be logged again: the run ends before it trains, and says so."""
    now = state()
    kept = saved(logged(now, [1, 2, 3]))
    file = now.folder / "metrics.jsonl"
    content = file.read_bytes()
    if left is None:
        file.unlink()
    else:
        file.write_bytes(content[:left])
    with pytest.raises(RunError) as caught:
        logged(now, [], kept)
    assert str(caught.value).startswith(f"{file}: {left or 0} bytes, and the checkpoint knows of")
    file.write_bytes(content)
    logged(now, [4], kept)
    assert [point["step"] for point in written(now.folder)] == [1, 2, 3, 4]


def test_the_logged_point_is_left_alone(state: Make) -> None:
    """Other callbacks see the point as it was."""
    point = {"step": 1, "val/f1": math.nan}
    Hooks({"jsonl": Jsonl().build()}).call.log(state=state(), point=point)
    assert math.isnan(point["val/f1"])


def test_a_folder_that_is_gone(state: Make) -> None:
    """Metrics that can't be written end the run: they are its record, and no mere tracking."""
    now = state()
    now.folder = now.folder / "gone"
    with pytest.raises(RunError) as caught:
        Hooks({"jsonl": Jsonl().build()}).call.log(state=now, point={"step": 1})
    file = now.folder / "metrics.jsonl"
    assert str(caught.value) == f"{file}: can't write (No such file or directory)"
