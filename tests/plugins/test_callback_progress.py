"""The callback `progress`: plain lines in a file, a live line on a terminal."""

from __future__ import annotations

import itertools
import logging
import math
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from framework.hooks import Hooks
from framework.state import State
from plugins.callbacks import progress
from plugins.callbacks.progress import Progress

Make = Callable[[], State]
LINE = re.compile(
    r"step (?P<step>\d+)/20  loss (?P<loss>[\d.]+)  lr (?P<lr>\S+)"
    r"  (?P<speed>[\d.]+) items/s  (?P<left>\d+:\d\d) left"
)

RUN = """
import sys
from pathlib import Path
from types import SimpleNamespace
import torch
from framework.hooks import Hooks
from framework.commands.terminal import show_log
from framework.state import State
from plugins.callbacks.progress import Progress

show_log()
live = Progress(every=0.0).build()
call = Hooks({"progress": live}).call
state = State(folder=Path("."), name="trial", model=SimpleNamespace(module=torch.nn.Linear(2, 2)),
              optimizer=None, schedule=None, training=None, strategy=None,
              epochs=1, steps_per_epoch=4, total_steps=4, items_per_epoch=32)
call.run_start(state=state)
for step in range(1, 5):
    state.count(1e-4, 8, skipped=False)
    call.step_end(state=state, window=[], loss={}, norm=None)
    point = {"step": step, "epoch": step / 4, "time": 1.0, "train/loss": 1.0 / step}
    call.log(state=state, point=point)
    if live.bar is not None:
        live.bar.refresh()
call.log(state=state, point={"step": 4, "epoch": 1.0, "time": 2.0, "val/f1": 0.875})
state.status, state.reason = "completed", "all steps were taken"
call.run_end(state=state)
print("after", file=sys.stderr)
"""


def step(call: Any, state: State, loss: float) -> None:
    """One step of 16 items whose loss is logged."""
    state.count(1e-4, 16, skipped=False)
    call.step_end(state=state, window=[], loss={}, norm=None)
    call.log(state=state, point={"step": state.step, "epoch": 0.1, "time": 1.0, "train/loss": loss})


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """What was logged so far at a level."""
    caplog.set_level(logging.DEBUG, logger="framework")
    return lambda level: [r.getMessage() for r in caplog.records if r.levelno == level]


def test_plain_lines(state: Make, said: Callable[[int], list[str]]) -> None:
    """Where there is no terminal a line has step, smoothed loss, rate, speed and time left."""
    now, live = state(), Progress(smoothing=0.9, every=0.0).build()
    call = Hooks({"progress": live}).call
    call.run_start(state=now)
    live.begun -= 10  # as if ten seconds had passed
    for loss in (1.0, 0.0, 0.5, 0.25):
        step(call, now, loss)
    spent = time.perf_counter() - live.begun
    lines = [match for line in said(logging.INFO) if (match := LINE.fullmatch(line))]
    assert [int(line["step"]) for line in lines] == [1, 2, 3, 4]
    assert {float(line["lr"]) for line in lines} == {1e-4}
    assert 64 / spent - 0.05 <= float(lines[-1]["speed"]) <= 6.4
    minutes, seconds = lines[-1]["left"].split(":")
    assert 40 <= int(minutes) * 60 + int(seconds) <= spent / 4 * 16 + 1


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 0.9])
def test_the_loss_is_smoothed(
    smoothing: float, state: Make, said: Callable[[int], list[str]]
) -> None:
    """The loss shown is the mean of the logged ones, each weighing less the older it is."""
    losses = [2.0, 1.0, 4.0, 0.5, 0.25]
    now, live = state(), Progress(smoothing=smoothing, every=0.0).build()
    call = Hooks({"progress": live}).call
    call.run_start(state=now)
    for loss in losses:
        step(call, now, loss)
    shown = [float(m["loss"]) for line in said(logging.INFO) if (m := LINE.fullmatch(line))]
    expected = []
    for end in range(1, len(losses) + 1):
        weights = [smoothing**age for age in reversed(range(end))]
        total = sum(w * loss for w, loss in zip(weights, losses, strict=False))
        expected.append(total / sum(weights))
    assert shown == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("up", [1.0, 1e6])
def test_plain_lines_are_not_a_flood(
    state: Make, said: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch, up: float
) -> None:
    """Within `every` seconds there is one line; the others go to the run's log alone.

    So it is on a machine that has just started, whose clock begins then, and on any other.
    """
    clock = SimpleNamespace(perf_counter=itertools.count(up).__next__)
    monkeypatch.setattr(progress, "time", clock)
    now = state()
    call = Hooks({"progress": Progress(every=3600.0).build()}).call
    call.run_start(state=now)
    for _ in range(5):
        step(call, now, 1.0)
    assert sum(bool(LINE.fullmatch(line)) for line in said(logging.INFO)) == 1
    assert sum(bool(LINE.fullmatch(line)) for line in said(logging.DEBUG)) == 4


def test_a_resumed_run_shows_its_own_speed(state: Make, said: Callable[[int], list[str]]) -> None:
    """Speed and time left are of what this process has trained, not of what it was given."""
    now, live = state(), Progress(every=0.0).build()
    now.step, now.items = 10, 160
    call = Hooks({"progress": live}).call
    call.run_start(state=now)
    live.begun -= 10  # as if ten seconds had passed
    step(call, now, 1.0)
    (line,) = (match for text in said(logging.INFO) if (match := LINE.fullmatch(text)))
    assert float(line["speed"]) == pytest.approx(1.6, abs=0.1)
    minutes, seconds = line["left"].split(":")
    assert int(minutes) * 60 + int(seconds) == pytest.approx(90, abs=5)


def test_a_step_that_was_left_out_spoils_no_smoothed_loss(
    state: Make, said: Callable[[int], list[str]]
) -> None:
    """A point whose loss isn't finite, of steps that were skipped, is not in the mean shown."""
    now, live = state(), Progress(every=0.0, smoothing=0.5).build()
    call = Hooks({"progress": live}).call
    call.run_start(state=now)
    for loss in (1.0, math.nan, 1.0):
        step(call, now, loss)
    lines = [text for text in said(logging.INFO) if text.startswith("step 3/")]
    assert [LINE.fullmatch(line)["loss"] for line in lines if LINE.fullmatch(line)] == ["1.0000"]


def test_beginning_evaluation_and_end(state: Make, said: Callable[[int], list[str]]) -> None:
    """It says what is about to run, every evaluation but for its groups, and how it ended."""
    now = state()
    call = Hooks({"progress": Progress().build()}).call
    call.run_start(state=now)
    values = {"val/loss": 0.25, "val/f1": 0.875, "val/by_symptom/mood/f1": 0.5}
    call.log(state=now, point={"step": 10, "epoch": 1.0, "time": 3.0} | values)
    now.status, now.reason, now.timing["total"] = "stopped_early", "enough", 12.0
    call.run_end(state=now)
    first, evaluated, last = said(logging.INFO)
    assert first.startswith("trial: 320 records, 1.5 M parameters, 20 steps in 2 epochs")
    assert str(now.folder) in first
    assert evaluated == "epoch 1.00  val/loss 0.2500  val/f1 0.8750"
    assert last == "stopped_early after 12.0 s: enough"


def on_terminal(command: list[str]) -> str:
    """What a command writes to a terminal of its own."""
    here, there = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, stdout=there, stderr=there, env=environment) as run:
        os.close(there)
        pieces = []
        while True:
            try:
                piece = os.read(here, 65536)
            except OSError:  # the last process on the other side is gone
                break
            if not piece:
                break
            pieces.append(piece)
    os.close(here)
    assert run.returncode == 0
    return b"".join(pieces).decode()


def test_a_live_line_on_a_terminal() -> None:
    """On a terminal a line is redrawn in place with all that a plain one says, and goes away."""
    shown = on_terminal([sys.executable, "-c", RUN])
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    frames = re.findall(r"(\d)/4 loss ([\d.]+)  lr 1\.00e-04  [\d.]+ items/s  \d+:\d\d left", plain)
    assert [step for step, _ in frames][-1] == "4"
    assert {step for step, _ in frames} == {"1", "2", "3", "4"}
    assert frames[-1][1] == "0.4897"
    assert "\x1b[2K" in shown  # redrawn in place
    assert not LINE.search(plain.replace("/4", "/20"))
    order = [plain.index(text) for text in ("trial: 32", "val/f1 0.8750", "completed", "after\r\n")]
    assert order == sorted(order)
    erased = shown[shown.rindex("items/s") : shown.index("completed")]
    assert "\x1b[1A\x1b[2K" in erased


def test_no_live_line_in_a_file() -> None:
    """Piped, the same run writes whole plain lines and not one control character."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr
    lines = done.stderr.splitlines()
    assert [bool(LINE.fullmatch(line.replace("/4", "/20"))) for line in lines[1:5]] == [True] * 4
    assert lines[5:] == [
        "epoch 1.00  val/f1 0.8750",
        "completed after 0.0 s: all steps were taken",
        "after",
    ]


@pytest.mark.parametrize("settings", [{"smoothing": 1.0}, {"smoothing": -0.1}, {"every": -1.0}])
def test_options_out_of_range(settings: dict[str, float]) -> None:
    """A smoothing of 1 would never move, a negative one or interval means nothing: refused."""
    with pytest.raises(ValueError, match=next(iter(settings))):
        Progress(**settings)
