"""Callbacks that are wrong on purpose; each is its own options, and builds another of its class."""

from __future__ import annotations

import logging
import random
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch

from broken import Defect
from framework.hooks import hookimpl
from framework.state import State


class Buildable:
    """Builds another of its class."""

    def build(self) -> Any:
        """Build it."""
        return type(self)()


class Quiet(Buildable):
    """Does nothing."""

    @hookimpl
    def step_end(self) -> None:
        """Do nothing."""


class Misspelt(Buildable):
    """Its hook has no such name."""

    @hookimpl
    def step_ended(self) -> None:
        """Do nothing."""


class BeforeText(Quiet):
    """A comma is missing."""

    before = "checkpoint"


class SinkOfText(Quiet):
    """Any text is true."""

    sink = "no"


class Fails(Buildable):
    """It reads a value that no point has."""

    @hookimpl
    def log(self, point: Mapping[str, Any]) -> None:
        """Fail."""
        point["val/nothing"]


class FailsInSilence(Fails):
    """Likewise, and nobody is told."""

    sink = True


class NeedsAStep(Buildable):
    """It takes for granted that every run takes a step."""

    @hookimpl
    def step_end(self, state: State) -> None:
        """Remember."""
        self.last = state.step

    @hookimpl
    def run_end(self) -> None:
        """Fail without one."""
        self.last += 1


class NeedsAStart(Buildable):
    """It takes for granted that its own `run_start` has come."""

    @hookimpl
    def run_start(self, state: State) -> None:
        """Remember."""
        self.begun = state.started

    @hookimpl
    def run_end(self) -> None:
        """Fail without it."""
        self.begun += 1


class FileAnywhere(Buildable):
    """Where nobody told it the folder, it takes the current one."""

    folder = Path()

    @hookimpl
    def run_start(self, state: State) -> None:
        """Remember the folder."""
        self.folder = state.folder

    @hookimpl
    def run_end(self) -> None:
        """Leave a file, for as long as this object lives."""
        file = self.folder.absolute() / f"left-by-{id(self)}"
        file.touch()
        weakref.finalize(self, file.unlink, missing_ok=True)


class Decays(Buildable):
    """It decays the weights."""

    @hookimpl
    def step_end(self, state: State) -> None:
        """Change them."""
        with torch.no_grad():
            for parameter in state.model.module.parameters():
                parameter.mul_(0.99)


class TurnsDropoutOff(Buildable):
    """It leaves the module in another mode than it found it in."""

    @hookimpl
    def evaluate_end(self, state: State) -> None:
        """Leave it in that of an evaluation."""
        state.model.module.eval()


@attrs.frozen
class Draws:
    """It takes a sample from a global random generator; and it builds itself."""

    draw: Callable[[], Any]

    def build(self) -> Any:
        """Build it."""
        return self

    @hookimpl
    def evaluate_start(self) -> None:
        """Draw."""
        self.draw()


class TakesLabels(Buildable):
    """It takes the labels out of the batches."""

    @hookimpl
    def step_end(self, window: Sequence[Any]) -> None:
        """Change them."""
        window[0].pop("labels")


class RoundsMetrics(Buildable):
    """It rounds what everybody else reads."""

    @hookimpl
    def evaluate_end(self, metrics: dict[str, float]) -> None:
        """Change them."""
        metrics.update({name: round(value, 1) for name, value in metrics.items()})


class CountsAgain(Buildable):
    """It counts the items a second time."""

    @hookimpl
    def step_end(self, state: State, window: Sequence[Any]) -> None:
        """Change the count."""
        state.items += sum(len(batch["id"]) for batch in window)


class DumpsBatches(Buildable):
    """It writes down what it sees."""

    @hookimpl
    def step_end(self, state: State, window: Sequence[Any]) -> None:
        """Write it."""
        (state.folder / "debug.txt").write_text(str(window), encoding="utf-8")


class LogsBatches(Buildable):
    """It says what it sees."""

    @hookimpl
    def step_end(self, window: Sequence[Any]) -> None:
        """Say it."""
        logging.getLogger("framework").debug("%s", window)


DEFECTS = [
    Defect("has_valid_hooks", Misspelt(), "there is no hook 'step_ended'"),
    Defect("has_valid_hooks", BeforeText(), "'before' is 'checkpoint'; it must be a tuple"),
    Defect("sink_is_a_flag", SinkOfText(), "'sink' is 'no'"),
    Defect("no_hook_fails", Fails(), "log: KeyError: 'val/nothing'"),
    Defect("no_hook_fails", FailsInSilence(), "log: KeyError: 'val/nothing'"),
    Defect("run_end_takes_every_ending", NeedsAStep(), "'interrupted' in run_start: run_end"),
    Defect("run_end_comes_without_run_start", NeedsAStart(), "AttributeError"),
    Defect("run_end_comes_without_run_start", FileAnywhere(), "in this folder"),
    Defect("weights_stay_as_they_are", Decays(), "after step 1 the weights 'body.weight'"),
    Defect("weights_stay_as_they_are", TurnsDropoutOff(), "after step 3 the weights"),
    Defect(
        "random_generators_stay_as_they_are", Draws(lambda: torch.rand(1)), "of torch has moved"
    ),
    Defect("random_generators_stay_as_they_are", Draws(np.random.rand), "of NumPy has moved"),
    Defect("random_generators_stay_as_they_are", Draws(random.random), "of Python has moved"),
    Defect("arguments_stay_as_they_are", TakesLabels(), "step_end changes 'window'"),
    Defect("arguments_stay_as_they_are", RoundsMetrics(), "evaluate_end changes 'metrics'"),
    Defect("arguments_stay_as_they_are", CountsAgain(), "step_end changes state.items"),
    Defect("texts_stay_at_home", DumpsBatches(), "into ['debug.txt']"),
    Defect("texts_stay_at_home", LogsBatches(), "to the log"),
    Defect("builds_are_independent", Draws(random.random), "the same object twice"),
]
