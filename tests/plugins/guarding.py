"""What the tests of the guard share: trainings under it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tiny_parts import Recorder, trainer

from plugins.callbacks.guard import Guard

Said = Callable[[], list[str]]


def falling(step: int) -> float:
    """Return the factor of a schedule that moves."""
    return 1 / (1 + step)


def guarded(folder: Path, guard: Guard | None = None, **settings: Any) -> tuple[Any, Recorder]:
    """Train under the guard to the end or to its error."""
    recorder = Recorder()
    callbacks = {"guard": (guard or Guard()).build(), "recorder": recorder}
    settings = {"factor": falling, "log_every": 1, "sizes": {"train": 10, "val": 3}} | settings
    run = trainer(folder, callbacks | settings.pop("callbacks", {}), **settings)
    run.hooks.call.run_start(state=run.state)
    run.fit()
    return run, recorder
