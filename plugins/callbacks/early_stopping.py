"""Stopping when a metric has not improved for a while."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State


@attrs.frozen
class EarlyStopping:
    """Stops training when `patience` evaluations in a row brought nothing better."""

    monitor: str = option(help="the metric, with its split, as in val/f1", metric=True)
    mode: Literal["min", "max"] = option(help="whether lower or higher is better")
    patience: int = option(
        3, help="evaluations without improvement before it stops", validator=attrs.validators.ge(1)
    )
    min_delta: float = option(
        0.0, help="what counts as an improvement", validator=attrs.validators.ge(0.0)
    )

    def build(self) -> LiveEarlyStopping:
        """Build it."""
        return LiveEarlyStopping(self)


@attrs.define(eq=False)
class LiveEarlyStopping:
    """Counts the evaluations since the best one; an undefined value is no improvement."""

    options: EarlyStopping
    best: float = math.nan
    waited: int = 0

    @property
    def reads(self) -> Sequence[str]:
        """The metric that must be computed."""
        return (self.options.monitor,)

    @hookimpl
    def evaluate_end(self, state: State, split: str, metrics: Mapping[str, float]) -> None:
        """Compare, and request a stop when the patience is spent."""
        wanted, _, name = self.options.monitor.partition("/")
        if split != wanted:
            return
        value = metrics[name]
        sign = 1.0 if self.options.mode == "max" else -1.0
        better = sign * (value - self.best) > self.options.min_delta
        if better or (math.isnan(self.best) and not math.isnan(value)):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.options.patience:
            state.stop(f"{self.options.monitor} has not improved for {self.waited} evaluations")

    def state_dict(self) -> dict[str, Any]:
        """The best value and the evaluations since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.best, self.waited = state["best"], state["waited"]
