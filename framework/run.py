"""A run from its experiment to its folder."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from framework import build
from framework.config.experiment import Experiment
from framework.errors import RunError, UserError, fault
from framework.hooks import Hooks
from framework.protocols import LiveStrategy, Splits
from framework.state import State
from framework.trainer import Sink, Trainer

_log = logging.getLogger("framework")


class Records(Protocol):
    """How a run writes what programs and people read of it."""

    rank: int
    """Only the first rank, 0, writes."""

    def place(self, name: str) -> Path:
        """Name a folder for a new run."""

    def rows(self, file: Path) -> AbstractContextManager[Sink]:
        """Open a file of predictions."""

    def computed(self, experiment: Experiment, splits: Splits, hooks: Hooks) -> None:
        """Raise `UserError` where a callback reads a metric that won't be computed."""

    def text(self, experiment: Experiment) -> str:
        """Return the resolved experiment in TOML."""

    def alone(self, folder: Path) -> AbstractContextManager[None]:
        """Keep other processes from going on with this run; `UserError` where one does."""

    def unchanged(self, folder: Path, splits: Splits) -> None:
        """Raise `UserError` unless a run would go on with the data that it began with."""

    def newest(self, folder: Path) -> tuple[Path, dict[str, Any]] | None:
        """Read the newest checkpoint that is whole; None where there is none."""

    def verify(self, folder: Path, inside: str = "") -> None:
        """Raise `UserError` where files of a checkpoint, of those `inside` it, have changed."""

    def begin(self, experiment: Experiment, splits: Splits, trainer: Trainer, *, new: bool) -> None:
        """Create the run folder, or take it up again; `UserError` where it can't be written."""

    def result(self, state: State) -> None:
        """Write how the run stands; a disk that refuses is told and hides no other error."""

    def words(self, error: Exception) -> str:
        """Say in words what the machine has done to a run; nothing where it is no such error."""


def run(
    experiment: Experiment, begun: float, records: Records, resume: Path | None = None
) -> tuple[int, Path]:
    """Run an experiment: train, test, and write its folder; the exit code and the folder.

    `begun` is when the command began; `resume` is the folder of a run to go on with. Raises
    `UserError` before anything is written.
    """
    splits = build.dataset(experiment)
    ranks: LiveStrategy = build.live(experiment.strategy)
    records.rank = ranks.rank
    hooks = build.callbacks(experiment, ranks.rank)
    records.computed(experiment, splits, hooks)
    resume, folder = ranks.gather((resume, resume or records.place(experiment.name)))[0]
    with ExitStack() as stack:
        found = None
        if resume:
            stack.enter_context(records.alone(folder))
            records.unchanged(folder, splits)
            # one after the other: it may set damaged ones aside
            for rank in range(ranks.world_size):
                found = records.newest(folder) if rank == ranks.rank else found
                ranks.gather(None)
        trainer = build.trainer(
            experiment,
            splits,
            hooks,
            folder,
            lambda s: records.rows(folder / "predictions" / f"{s}.csv"),
            text=records.text(experiment),
            assets=found and found[0] / "model",
            ranks=ranks,
            verify=records.verify,
        )
        state = trainer.state
        state.started = begun
        if found:
            trainer.keeper.resume(state, *found)
        state.timing["start"] = state.timing.get("start", 0.0) + time.time() - begun
        records.begin(experiment, splits, trainer, new=not resume)
        ranks.gather(None)  # it is there for all
        if not resume:
            stack.enter_context(records.alone(folder))
        elif found:
            _log.info("%s: going on from step %s", folder, state.step)
        else:
            _log.warning("%s: no whole checkpoint to go on from; starting over", folder)
        _fit(trainer, hooks, records)
    return state.exit_code, folder


def _fit(trainer: Trainer, hooks: Hooks, records: Records) -> None:
    """Train and test between `run_start` and `run_end`; the result says how it ended."""
    state = trainer.state
    try:
        records.result(state)
        hooks.call.run_start(state=state)
        trainer.fit()
        if state.status == "failed":
            raise RunError(state.reason)  # noqa: TRY301 - told as any other failure
        if state.status == "running":
            state.status, state.reason = "completed", "all steps were taken"
    except KeyboardInterrupt:
        state.status, state.reason = "interrupted", "interrupted from the keyboard"
        raise
    except Exception as error:
        known = records.words(error)
        state.status, state.reason = "failed", known or fault(error)
        if known or isinstance(error, UserError):
            raise RunError(known or str(error)) from None
        raise
    finally:
        state.timing["total"] = time.time() - state.started
        trainer.keeper.pool.shutdown()
        _close(state, hooks, records)


def _close(state: State, hooks: Hooks, records: Records) -> None:
    """Write the result and end every callback; the first failure of the run is the one told."""
    records.result(state)
    try:
        hooks.finish(state)
    except (RunError, UserError) as error:
        if state.status == "failed":
            _log.warning("%s", error)
            return
        state.status, state.reason = "failed", str(error)
        raise RunError(str(error)) from error.__cause__
    finally:
        state.closing.close()
        records.result(state)
