"""One trial of a search: an experiment that is run as any other, and watched while it trains."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from framework import __version__, build
from framework.commands import _study
from framework.commands._records import records
from framework.commands._search import Plan
from framework.config.experiment import Experiment
from framework.config.structure import Part
from framework.errors import RunError, fault
from framework.hooks import hookimpl
from framework.protocols import Info, Record, Splits
from framework.registry import Offer
from framework.run import run
from framework.state import State

if TYPE_CHECKING:
    import optuna

_ENTRY = EntryPoint("search", f"{__name__}:Watch", "framework.callback")
_OFFER = Offer("callback", "search", "composable-nlp", __version__, _ENTRY)
LABEL = "[search]"
"""The watching callback's, which stands in no file and so can't be another's."""


class Interrupted(KeyboardInterrupt):
    """A signal has ended the search; `code` is what the process returns."""

    def __init__(self, code: int) -> None:
        """Take the code."""
        super().__init__(code)
        self.code = code


@attrs.frozen
class Sealed:
    """Splits without the test split, which no search sees."""

    splits: Splits

    @property
    def info(self) -> Info:
        """What the dataset says of itself."""
        return self.splits.info

    @property
    def files(self) -> Sequence[Path]:
        """What was read."""
        return self.splits.files

    @property
    def hashes(self) -> Mapping[str, str]:
        """Hashes of it that are known."""
        return getattr(self.splits, "hashes", {})

    @property
    def manifest(self) -> Mapping[str, Sequence[str]]:
        """What is in each split, in that of the test too: the run's record tells it."""
        return self.splits.manifest

    def keys(self) -> list[str]:
        """All but the test split."""
        return [split for split in self.splits.keys() if split != "test"]  # noqa: SIM118

    def __getitem__(self, split: str) -> Sequence[Record]:
        """Records of one."""
        return self.splits[split]


@attrs.frozen
class _Given:
    """Options that build what is there already."""

    live: Any

    def build(self, *_: object) -> Any:
        """Return it."""
        return self.live


@attrs.define(eq=False)
class Watch:
    """A callback that reports every evaluation, ends what isn't worth it, and keeps the values."""

    plan: Plan
    trial: optuna.Trial | None = None
    """Where evaluations are reported; none for a run that isn't pruned."""
    evaluations: int = 0
    pruned: bool = False
    values: dict[str, float] = attrs.field(factory=dict)
    """Metrics at the best checkpoint, once the run is over."""
    steps: int = 0

    @property
    def reads(self) -> Sequence[str]:
        """The metrics that must be computed."""
        return [*self.plan.search.metrics, *self.plan.bounds]

    @hookimpl
    def evaluate_end(self, state: State, split: str, metrics: Mapping[str, float]) -> None:
        """Report, and request the end of a trial that the pruner gives up."""
        if split != "val" or self.trial is None or len(self.plan.search.metrics) > 1:
            return
        self.evaluations += 1
        value = metrics[self.plan.search.metrics[0].removeprefix("val/")]
        if math.isnan(value):
            return
        with _study.quiet():  # a trial that is tried again reports what it has before
            self.trial.report(value, self.evaluations)
            # at the end there is nothing to save
            self.pruned = state.step < state.total_steps and self.trial.should_prune()
        if self.pruned:
            state.stop(f"pruned at evaluation {self.evaluations}, with {value:.4g}")

    @hookimpl
    def epoch_end(self, state: State) -> None:
        """Where training is over, keep the values; one that is undefined is a failure."""
        self.steps = state.step
        if not state.over or state.halted:
            return
        found = (state.best.metrics if state.best else state.metrics)["val"]
        self.values = {name: found[name.removeprefix("val/")] for name in self.reads}
        undefined = [name for name, value in self.values.items() if math.isnan(value)]
        if undefined and not self.pruned:
            raise RunError(f"{undefined[0]} is undefined, so this is no result; try another metric")


@attrs.define
class Bench:
    """Runs experiments one after the other; what they share is made once."""

    plan: Plan
    seed: int
    """What the splits are cut by, whatever the seed of a run: the test split is the same in all."""
    parents: Mapping[str, str] = attrs.field(factory=dict)
    """By label of a tracking callback the run that it nests trials under."""
    options: Any = None
    splits: Splits | None = None

    def run(self, experiment: Experiment, watch: Watch, *, tested: bool = False) -> Ran:
        """Run one; whatever it does to itself is in what is returned. Raises `Interrupted`."""
        begun = time.time()
        code, folder, reason = 0, None, ""
        with records() as kept:
            kept.written = experiment
            try:
                code, folder = run(self._watched(experiment, watch, tested=tested), begun, kept)
            except Exception as error:  # noqa: BLE001 - whatever it is, the search goes on
                reason = kept.words(error) or fault(error)
            folder = folder or kept.folder
        gc.collect()  # parts refer to each other in circles, and hold the weights
        if code >= _SIGNALLED:
            raise Interrupted(code)
        return Ran(folder.name if folder else "", reason, time.time() - begun)

    def _watched(self, experiment: Experiment, watch: Watch, *, tested: bool) -> Experiment:
        if self.splits is None or self.options != experiment.dataset.options:
            data = attrs.evolve(experiment, seed=self.seed)
            self.options, self.splits = experiment.dataset.options, build.dataset(data)
        splits = self.splits if tested else Sealed(self.splits)
        return attrs.evolve(
            experiment,
            dataset=attrs.evolve(experiment.dataset, options=_Given(splits)),
            callbacks={
                **{k: self._nested(k, part) for k, part in experiment.callbacks.items()},
                LABEL: Part("callback", "search", _OFFER, _Given(watch)),
            },
        )

    def _nested(self, label: str, part: Part) -> Part:
        if not hasattr(part.options, "nested"):
            return part
        return attrs.evolve(part, options=part.options.nested(self.parents.get(label, "")))


_SIGNALLED = 128


@attrs.frozen
class Ran:
    """How a run ended."""

    folder: str
    """Its name; empty where there is none."""
    reason: str
    """Why it failed, if it did."""
    seconds: float
