"""When to write checkpoints, and which of them is the best."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State


@attrs.frozen
class Checkpoint:
    """Asks for a checkpoint after every evaluation, and calls the best by a metric `best`."""

    monitor: str = option(
        "val/loss", help="the metric, with its split, that tells the best", metric=True
    )
    mode: Literal["min", "max"] = option("min", help="whether lower or higher is better")

    def build(self) -> LiveCheckpoint:
        """Build it."""
        return LiveCheckpoint(self)


@attrs.define(eq=False)
class LiveCheckpoint:
    """Remembers the best value so far; an undefined value is never the best."""

    options: Checkpoint
    best: float = math.nan

    @property
    def reads(self) -> Sequence[str]:
        """The metric that must be computed."""
        return (self.options.monitor,)

    @hookimpl
    def evaluate_end(self, state: State, split: str, metrics: Mapping[str, float]) -> None:
        """Ask for `last`, and for `best` when it is."""
        wanted, _, name = self.options.monitor.partition("/")
        if split != wanted:
            return
        value = metrics[name]
        state.save("last")
        better = value > self.best if self.options.mode == "max" else value < self.best
        if better or (math.isnan(self.best) and not math.isnan(value)):
            self.best = value
            state.save("best", metric=self.options.monitor, value=value)

    def state_dict(self) -> dict[str, Any]:
        """The best value."""
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.best = state["best"]
