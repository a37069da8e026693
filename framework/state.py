"""What changes during a run. Only the trainer writes it; hooks read it and make requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from framework.protocols import LiveModel, LiveOptimizer, LiveScheduler, LiveStrategy, Training

_KEPT = (
    "epoch", "batch", "step", "items", "skipped", "over", "due", "micro_batch", "learning_rate",
    "metrics", "timing", "ended",
)  # fmt: skip
"""Counters that a checkpoint keeps as they are."""

Missed = Literal["", "loss", "gradient", "overflow"]
"""What kept a step from being taken; `overflow` is part of a loss scale's working."""
Status = Literal["running", "completed", "stopped_early", "interrupted", "failed"]


@attrs.frozen
class Best:
    """The checkpoint that was called best: by which metric, with what value, at which step."""

    metric: str
    value: float
    step: int
    metrics: dict[str, dict[str, float]]
    """What the evaluations had given at that step, per split."""


@attrs.define(kw_only=True)
class State:
    """The counters of a run, and the two requests that hooks may make."""

    folder: Path
    name: str
    model: LiveModel = attrs.field(repr=False)
    optimizer: LiveOptimizer = attrs.field(repr=False)
    schedule: LiveScheduler = attrs.field(repr=False)
    training: Training
    strategy: LiveStrategy = attrs.field(repr=False)
    epochs: int
    steps_per_epoch: int
    total_steps: int
    items_per_epoch: int
    status: Status = "running"
    reason: str = ""
    epoch: int = 0
    """Epochs ended so far."""
    batch: int = 0
    """Steps taken in the running epoch."""
    step: int = 0
    """Optimizer steps taken so far."""
    items: int = 0
    """Items trained on so far, over all ranks."""
    skipped: int = 0
    """Steps that were not taken; the schedule doesn't move on them."""
    missed: Missed = ""
    """What was not finite, so that the last step was not taken."""
    over: bool = False
    """True where training has ended within an epoch, and callbacks have been told."""
    due: bool = False
    """True where the validation of the last step has not been done yet."""
    micro_batch: int = 0
    """Items per forward pass in training, as long as memory lasts; 0: the whole batch."""
    learning_rate: float = 0.0
    best: Best | None = None
    metrics: dict[str, dict[str, float]] = attrs.field(factory=dict)
    """The newest evaluation of each split."""
    timing: dict[str, float] = attrs.field(factory=dict)
    """Seconds spent, by what they were spent on."""
    started: float = attrs.field(factory=time.time)
    stopping: bool = False
    ended: str = ""
    """Why a callback ended training, if one did; a later interrupt doesn't undo it."""
    exit_code: int = 0
    """What the process returns, where an interrupt decides it."""
    closing: ExitStack = attrs.field(factory=ExitStack, repr=False)
    """What callbacks want undone when every one of them has ended."""
    meet: Callable[[], None] = attrs.field(default=lambda: None, repr=False)
    """What a callback wants ranks to do together within an evaluation, again and again."""
    saves: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    """Requests for checkpoints that the trainer has not yet met, by tag."""

    def stop(self, reason: str, status: Status = "stopped_early") -> None:
        """Request the end of training after the running step; the first reason given stays.

        With the status `failed` or `interrupted` the run is saved and not tested; an interrupt
        comes over every other end.
        """
        if status == "interrupted" or not self.stopping:
            self.stopping, self.reason, self.status = True, reason, status
        if status == "stopped_early":
            self.ended = self.ended or reason

    def save(self, tag: str, metric: str = "", value: float = float("nan")) -> None:
        """Request a checkpoint of this step under a tag (`last`, `best`), with its reason."""
        self.saves[tag] = {"metric": metric, "value": value}

    @property
    def halted(self) -> bool:
        """Whether the run leaves at once: it saves, and neither evaluates nor tests any more."""
        return self.status in ("interrupted", "failed")

    def count(self, learning_rate: float, items: int, *, skipped: bool) -> None:
        """Count a step; the trainer's alone to call."""
        self.learning_rate = learning_rate
        self.step += 1
        self.batch += 1
        self.items += items
        self.skipped += skipped
        self.over = False

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds that this context takes to `timing`."""
        begun = time.perf_counter()
        yield
        self.timing[name] = self.timing.get(name, 0.0) + time.perf_counter() - begun

    def point(self) -> dict[str, float]:
        """Say when something was measured."""
        epoch = self.epoch + self.batch / self.steps_per_epoch
        return {"step": self.step, "epoch": epoch, "time": time.time() - self.started}

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        kept = {name: getattr(self, name) for name in _KEPT}
        best = attrs.asdict(self.best) if self.best else None
        elapsed = time.time() - self.started
        return kept | {"best": best, "elapsed": elapsed, "total_steps": self.total_steps}

    def restore(self, counters: Mapping[str, Any]) -> None:
        """Take up what `counters` kept; the time in between doesn't count."""
        for name in _KEPT:
            setattr(self, name, counters[name])
        cuts = self.micro_batch, self.training.micro_batch
        self.micro_batch = min(filter(None, cuts), default=0)
        self.best = Best(**counters["best"]) if counters["best"] else None
        self.started = time.time() - counters["elapsed"]
        if self.ended:
            self.stop(self.ended)
