"""When to write checkpoints, which of them is the best, and which are kept."""

from __future__ import annotations

import json
import logging
import math
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import ge

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State

_log = logging.getLogger("framework")


@attrs.frozen
class Checkpoint:
    """Asks for checkpoints, calls the best by a metric `best`, and deletes old ones.

    One is always written of the best and where training ends, whatever the options say.
    """

    monitor: str = option(
        "val/loss", help="the metric, with its split, that tells the best", metric=True
    )
    mode: Literal["min", "max"] = option("min", help="whether lower or higher is better")
    every_steps: int = option(
        0, help="optimizer steps between checkpoints; 0: not by steps", validator=ge(0)
    )
    every_minutes: float = option(
        10.0, help="minutes between checkpoints; 0: not by time", validator=ge(0.0)
    )
    every_epochs: int = option(
        1, help="epochs between checkpoints; 0: not by epochs", validator=ge(0)
    )
    keep: int = option(
        2, help="newest checkpoints that are kept, besides the best", validator=ge(2)
    )

    def build(self) -> LiveCheckpoint:
        """Build it."""
        return LiveCheckpoint(self)


@attrs.define(eq=False)
class LiveCheckpoint:
    """Remembers the best value so far; an undefined value is never the best."""

    options: Checkpoint
    free = ("every_steps", "every_minutes", "every_epochs", "keep")
    best: float = math.nan
    saved: float = attrs.field(factory=time.time)
    """When a checkpoint was last asked for, and at which step."""
    step: int = -1
    undefined: bool = False
    """Whether the newest value was."""
    cleaning: threading.Thread | None = None
    """Deletes what is no longer kept."""

    @property
    def reads(self) -> Sequence[str]:
        """The metric that must be computed."""
        return (self.options.monitor,)

    @hookimpl
    def step_end(self, state: State) -> None:
        """Ask for `last` where steps or minutes say so."""
        steps, minutes = self.options.every_steps, self.options.every_minutes
        # a clock that was put back is no reason to wait
        by_time = bool(minutes) and not 0 <= time.time() - self.saved < 60 * minutes
        if minutes and state.strategy.world_size > 1:  # by the first rank's clock
            by_time = bool(state.strategy.sum({"": int(by_time and not state.strategy.rank)})[""])
        if by_time or (steps and state.step % steps == 0):
            self._ask(state)

    @hookimpl
    def evaluate_end(self, state: State, split: str, metrics: Mapping[str, float]) -> None:
        """Ask for `best` when it is, which is the `last` too."""
        wanted, _, name = self.options.monitor.partition("/")
        if split != wanted:
            return
        value = metrics[name]
        self.undefined = math.isnan(value)
        better = value > self.best if self.options.mode == "max" else value < self.best
        if better or (math.isnan(self.best) and not math.isnan(value)):
            self.best = value
            self._ask(state)
            state.save("best", metric=self.options.monitor, value=value)

    @hookimpl
    def epoch_end(self, state: State) -> None:
        """Ask for `last` where epochs say so, and where training ends."""
        every = self.options.every_epochs
        over = state.ended or state.step >= state.total_steps
        if state.step != self.step and (over or (every and state.epoch % every == 0)):
            self._ask(state)

    @hookimpl
    def save_end(self, state: State, folder: Path) -> None:
        """Delete the oldest checkpoints, but the newest, their best ones, and those under a link.

        What was set aside as damaged goes too: there is a newer one that is whole.
        """
        self._cleaned()  # what it deletes isn't there to be found again
        root = folder.parent
        # a person may have put a copy beside them, `step-12.bak`
        steps = [path for path in root.glob("step-*") if path.name[5:].isdecimal()]
        steps.sort(key=lambda path: int(path.name[5:]))
        kept = {path.name for path in steps[-self.options.keep :]}
        kept |= {path.resolve().name for path in root.iterdir() if path.is_symlink()}
        best = [_best(root / name) for name in kept] + [state.best.step if state.best else -1]
        kept |= {f"step-{step}" for step in best}
        old = [*(p for p in steps if p.name not in kept), *root.glob("unused-step-*")]
        if old:  # a disk may take its time over large files
            self.cleaning = threading.Thread(target=lambda: [*map(_delete, old)])
            self.cleaning.start()

    @hookimpl
    def run_end(self) -> None:
        """See the last of them deleted; tell of a monitor that never had a value."""
        self._cleaned()
        if self.undefined and math.isnan(self.best):
            _log.warning("checkpoint: %s was undefined in every evaluation, so none is the best;"
                         " monitor another metric", self.options.monitor)  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """The best value, and when and at which step a checkpoint was last asked for."""
        return {"best": self.best, "saved": self.saved, "step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.best, self.saved, self.step = state["best"], state["saved"], state["step"]

    def _cleaned(self) -> None:
        if self.cleaning:
            self.cleaning.join()

    def _ask(self, state: State) -> None:
        self.saved, self.step = time.time(), state.step
        state.save("last")


def _best(folder: Path) -> int:
    """Return the step that a checkpoint calls best; -1 where it calls none so."""
    try:
        best = json.loads((folder / "counters.json").read_text(encoding="utf-8"))["best"]
        return int(best["step"]) if best else -1
    except (OSError, ValueError, LookupError, TypeError):  # it is damaged
        return -1


def _delete(path: Path) -> None:
    shutil.rmtree(path, onerror=_kept)


def _kept(_: object, path: str, problem: Any) -> None:
    _log.warning("%s: an old checkpoint can't be deleted (%s)", path, problem[1])
