"""What a person watches: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import attrs

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State

_log = logging.getLogger("framework")
_DEPTH = 2
"""Slashes in a name that is said: parts of a loss and metrics of a head, but not of each group."""


@attrs.frozen
class Progress:
    """Shows step, smoothed loss, learning rate, items per second and the time left."""

    smoothing: float = option(
        0.9,
        help="how much of the shown loss is the past",
        validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)],
    )
    every: float = option(
        5.0, help="seconds between plain lines", validator=attrs.validators.ge(0.0)
    )

    def build(self) -> LiveProgress:
        """Build it."""
        return LiveProgress(self)


@attrs.define(eq=False)
class LiveProgress:
    """The smoothed loss is an exponential mean of the logged ones, corrected for its start."""

    options: Progress
    mean: float = 0.0
    weight: float = 0.0
    begun: float = 0.0
    first: tuple[int, int] = (0, 0)
    """Steps and items of before: what a resumed run need not do again."""
    spoken: float = -math.inf
    bar: Any = None
    task: Any = None
    sink: bool = True

    @hookimpl
    def run_start(self, state: State) -> None:
        """Say what is about to run, and start the live line on a terminal."""
        count = sum(p.numel() for p in state.model.module.parameters())
        _log.info(
            "%s: %s records, %.1f M parameters, %s steps in %s epochs, folder %s",
            state.name,
            state.items_per_epoch,
            count / 1e6,
            state.total_steps,
            state.epochs,
            state.folder,
        )
        self.begun = time.perf_counter()
        self.first = state.step, state.items
        if sys.stderr.isatty():
            self._open(state)

    @hookimpl
    def step_end(self, state: State) -> None:
        """Move the live line."""
        self._move(state)

    @hookimpl
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """Take up a loss; say a line where it is time, and every evaluation."""
        if "train/loss" in point:
            keep = self.options.smoothing
            # where every step of a point was left out, it has no loss
            if math.isfinite(point["train/loss"]):
                self.mean = keep * self.mean + (1 - keep) * point["train/loss"]
                self.weight = keep * self.weight + (1 - keep)
            self._move(state)
            now = time.perf_counter()
            quiet = self.bar is not None or now - self.spoken < self.options.every
            level = logging.DEBUG if quiet else logging.INFO
            if not quiet:
                self.spoken = now
            _log.log(level, "step %s/%s  %s", state.step, state.total_steps, self._shown(state))
            return
        values = [
            f"{name} {value:.4f}"
            for name, value in point.items()
            if name not in ("step", "epoch", "time") and name.count("/") <= _DEPTH
        ]
        _log.info("epoch %.2f  %s", point["epoch"], "  ".join(values))

    @hookimpl
    def run_end(self, state: State) -> None:
        """Take the live line away and say how it ended."""
        if self.bar is not None:
            self.bar.stop()
        total = state.timing.get("total", 0.0)
        _log.info("%s after %.1f s: %s", state.status, total, state.reason)

    def _shown(self, state: State) -> str:
        loss = f"{self.mean / self.weight:.4f}" if self.weight else "-"
        spent = time.perf_counter() - self.begun
        steps, items = state.step - self.first[0], state.items - self.first[1]
        speed = items / spent if spent else 0.0
        left = spent / max(steps, 1) * (state.total_steps - state.step)
        minutes, seconds = divmod(round(left), 60)
        return (
            f"loss {loss}  lr {state.learning_rate:.2e}  {speed:.1f} items/s"
            f"  {minutes}:{seconds:02} left"
        )

    def _move(self, state: State) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.step, shown=self._shown(state))

    def _open(self, state: State) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self.bar = Bar(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task("train", total=state.total_steps, shown="")
        self.bar.start()
