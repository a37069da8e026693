"""Callbacks that are wrong about their state, or about what they may read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from broken import Defect
from broken.callback import Buildable, Quiet
from framework.hooks import hookimpl
from framework.state import State


class ReadsLoss(Quiet):
    """It does not say of which split."""

    reads = ("loss",)


class Patience(Buildable):
    """Stops after five evaluations; as it should be."""

    seen = 0

    @hookimpl
    def evaluate_end(self, state: State, split: str) -> None:
        """Count them."""
        self.seen += split == "val"
        if self.seen == 5:
            state.stop("five evaluations")


class HalfAPair(Patience):
    """Its state is saved, and never taken up."""

    def state_dict(self) -> dict[str, Any]:
        """Return the count."""
        return {"seen": self.seen}


class TakesNothingUp(HalfAPair):
    """It ignores its state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Ignore it."""


class UnsafeState(TakesNothingUp):
    """Its state can only be unpickled."""

    def state_dict(self) -> dict[str, Any]:
        """Return a path."""
        return {"folder": Path("somewhere")}


class StartsOver(HalfAPair):
    """It takes its state up, and throws it away when the run starts."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.seen = state["seen"]

    @hookimpl
    def run_start(self) -> None:
        """Throw it away."""
        self.seen = 0


class SharesItsMemory(Buildable):
    """Its memory is its class's: a second run goes on counting where the first one ended."""

    seen = 0

    @hookimpl
    def evaluate_end(self, state: State) -> None:
        """Ask for a checkpoint at every fifth evaluation."""
        type(self).seen += 1
        if self.seen % 5 == 0:
            state.save("last")


class ReadsTrain(Quiet):
    """It reads what nobody computes."""

    reads = ("train/loss",)


class BothSides(Quiet):
    """It wants to stand before and after the same."""

    before = after = ("checkpoint",)


class AfterNumber(Quiet):
    """It names a number."""

    after = (1,)


class Prints(Buildable):
    """It prints what it sees."""

    @hookimpl
    def step_end(self, window: Sequence[Any]) -> None:
        """Print it."""
        sys.stdout.write(f"{window}")


class PrintsErrors(Buildable):
    """It prints what it sees to the other stream."""

    @hookimpl
    def step_end(self, window: Sequence[Any]) -> None:
        """Print it."""
        sys.stderr.write(f"{window}")


class BestOfAll(Buildable):
    """The best loss is its class's: a second run begins with that of the first."""

    best: list[int] = []  # noqa: RUF012 - this is the defect

    @hookimpl
    def log(self, point: Mapping[str, Any]) -> None:
        """Keep it."""
        self.best.append(len(self.best))

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return {"best": list(self.best)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it up."""
        self.best[:] = state["best"]


DEFECTS = [
    Defect("reads_are_metrics_of_a_split", ReadsTrain(), "it reads 'train/loss'; only metrics of"),
    Defect("has_valid_hooks", BothSides(), "wait for each other"),
    Defect("has_valid_hooks", AfterNumber(), "'after' holds what is no text"),
    Defect("texts_stay_at_home", Prints(), "texts of records to stdout"),
    Defect("texts_stay_at_home", PrintsErrors(), "texts of records to stderr"),
    Defect("builds_are_independent", BestOfAll(), "it ends with another 'best'"),
    Defect("reads_are_metrics_of_a_split", ReadsLoss(), "only metrics of the validation split"),
    Defect("state_comes_in_a_pair", HalfAPair(), "it lacks load_state_dict"),
    Defect(
        "state_loads_safely",
        UnsafeState(),
        "loaded safely; keep tensors, numbers, texts, lists and dicts (U",
    ),
    Defect("state_loads_safely", TakesNothingUp(), "has another 'seen'"),
    Defect("state_survives_a_restart", Patience(), "taken up again after step 3 it asks for"),
    Defect("state_survives_a_restart", StartsOver(), "keep it in state_dict"),
    Defect("builds_are_independent", SharesItsMemory(), "built a second time it asks for"),
]
