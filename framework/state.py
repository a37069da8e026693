"""What changes during a run. Only the trainer writes it; hooks read it and make requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

if TYPE_CHECKING:
    from framework.protocols import LiveModel

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
    """Steps not taken because a loss scale overflowed; the schedule doesn't move on them."""
    learning_rate: float = 0.0
    best: Best | None = None
    metrics: dict[str, dict[str, float]] = attrs.field(factory=dict)
    """The newest evaluation of each split."""
    timing: dict[str, float] = attrs.field(factory=dict)
    """Seconds spent, by what they were spent on."""
    started: float = attrs.field(factory=time.time)
    stopping: bool = False
    saves: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    """Requests for checkpoints that the trainer has not yet met, by tag."""

    def stop(self, reason: str, status: Status = "stopped_early") -> None:
        """Request the end of training after the running step; the first reason given stays."""
        if not self.stopping:
            self.stopping, self.reason, self.status = True, reason, status

    def save(self, tag: str, metric: str = "", value: float = float("nan")) -> None:
        """Request a checkpoint of this step under a tag (`last`, `best`), with its reason."""
        self.saves[tag] = {"metric": metric, "value": value}

    def count(self, learning_rate: float, items: int, *, skipped: bool) -> None:
        """Count a step; the trainer's alone to call."""
        self.learning_rate = learning_rate
        self.step += 1
        self.batch += 1
        self.items += items
        self.skipped += skipped

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the seconds that this context takes to `timing`."""
        begun = time.perf_counter()
        yield
        self.timing[name] = self.timing.get(name, 0.0) + time.perf_counter() - begun

    def counters(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        names = ("epoch", "batch", "step", "items", "skipped", "learning_rate", "metrics")
        kept = {name: getattr(self, name) for name in names}
        return kept | {"best": attrs.asdict(self.best) if self.best else None}
