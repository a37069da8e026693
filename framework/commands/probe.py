"""What a check is given: the live parts of an experiment, to be run, hooked and observed.

A check is a plugin of kind `check` (group `framework.check`): an attrs class whose options all have
defaults. It has `area`, the part of the table that its rows stand in; maybe `free`, True where it
needs neither a step nor a pass over texts, so that `run` makes it too; and `observe(probe)`, which
ends each row that it stands for by `probe.passes`, `.warns`, `.fails` or `.skips`. It says what it
saw, of records their ids and never their text unless `probe.show_text`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import attrs

from framework import build
from framework.commands import _checkpoints, _resolved
from framework.config.experiment import Experiment
from framework.hooks import Hooks
from framework.protocols import Batch, Record, Splits
from framework.state import Missed
from framework.step import Window
from framework.trainer import Trainer

Status = Literal["pass", "warn", "fail", "skipped"]


@attrs.frozen
class Row:
    """One row of the table: what was looked at, how it ended, what was seen and what to do."""

    area: str
    name: str
    status: Status
    observed: str
    advice: str = ""
    check: str = ""
    """The plugin that looked."""


@attrs.frozen
class Step:
    """An optimizer step that was taken on the live parts."""

    number: int
    """0 is the first."""
    window: Window
    means: Mapping[str, float]
    """The mean of each part of the loss."""
    norm: float
    """Of the gradient, before clipping."""
    missed: Missed
    """What was not finite, so that the step was not taken."""

    @property
    def loss(self) -> float:
        """The sum of the loss's parts."""
        return sum(self.means.values())


@attrs.define(eq=False)
class Probe:
    """The parts of one experiment, built as `run` builds them, and the rows that are known so far.

    What checks share is made once, when the first of them asks for it.
    """

    experiment: Experiment
    splits: Splits
    scratch: Path
    """An empty folder that is deleted at the end."""
    show_text: bool = False
    rows: list[Row] = attrs.field(factory=list)
    given: Trainer | None = None
    """The trainer of a run that is about to begin: it must not be stepped."""
    _area: str = ""
    _check: str = ""
    _kept: dict[str, Any] = attrs.field(factory=dict)

    def passes(self, name: str, observed: str) -> None:
        """End a row: all is as it should be."""
        self._row(name, "pass", observed)

    def warns(self, name: str, observed: str, advice: str) -> None:
        """End a row: it may be meant so, and a person should look."""
        self._row(name, "warn", observed, advice)

    def fails(self, name: str, observed: str, advice: str) -> None:
        """End a row: a training like this is not sound."""
        self._row(name, "fail", observed, advice)

    def skips(self, name: str, reason: str) -> None:
        """End a row: it can't be looked at here, and why."""
        self._row(name, "skipped", reason)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what `make` made when it was first asked for under this name."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    @property
    def hooks(self) -> Hooks:
        """The experiment's callbacks, built and never called."""
        found: Hooks = self.once("hooks", lambda: build.callbacks(self.experiment))
        return found

    @property
    def trainer(self) -> Trainer:
        """All live parts, as they are before the first step; to change them use `trial`.

        `update` has the loss, the optimizer, the gradient's bound and `forward` (module, precision,
        strategy); `state` the model and the schedule; `feeds` the batches of each split.
        """
        found: Trainer = self.given or self.once("trainer", self.build)
        return found

    def build(self, experiment: Experiment | None = None, splits: Splits | None = None) -> Trainer:
        """Build all parts anew, of another experiment or of other splits where they are given."""
        experiment = experiment or self.experiment
        return build.trainer(
            experiment,
            splits or self.splits,
            Hooks({}),
            self.scratch / f"run-{len(list(self.scratch.iterdir()))}",
            lambda _: nullcontext(lambda _: None),
            text=_resolved.toml(experiment),
            verify=_checkpoints.verify,
        )

    @contextmanager
    def trial(self) -> Iterator[Trainer]:
        """Lend the live parts; whatever was done with them is undone at the end.

        Weights, the optimizer's and the precision's state, gradients, random generators and the
        mode of the module are as before the first step.
        """
        import torch

        trainer = self.trainer
        forward, optimizer = trainer.update.forward, trainer.update.optimizer
        module = forward.module
        weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        before = copy.deepcopy((optimizer.state_dict(), forward.precision.state_dict()))
        with torch.random.fork_rng():
            torch.manual_seed(self.experiment.seed)
            module.train()
            try:
                yield trainer
            finally:
                module.load_state_dict(weights)
                optimizer.load_state_dict(before[0])
                forward.precision.load_state_dict(before[1])
                for parameter in module.parameters():
                    parameter.grad = None

    def windows(self, trainer: Trainer | None = None) -> Iterator[Window]:
        """Yield the collated micro-batches of each step as training gets them, without an end."""
        feed = (trainer or self.trainer).feeds["train"]
        for epoch in itertools.count():
            yield from feed.epoch(epoch)

    def window(self) -> Window:
        """The micro-batches of the first step."""
        found: Window = self.once("window", lambda: next(self.windows()))
        return [dict(batch) for batch in found]

    def steps(self, trainer: Trainer, windows: Iterator[Window], count: int) -> Iterator[Step]:
        """Take optimizer steps with a lent trainer; each is yielded when it has been taken."""
        for number, window in zip(range(count), windows, strict=False):
            loss, norm, missed = trainer.update(window, number)
            means = {name: float(value) for name, value in loss.items()}
            yield Step(number, window, means, float(norm), missed)

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return records (changed ones, too) as one batch, without augmentation."""
        processor = self.trainer.feeds["train"].processor
        features = processor.encode(list(records))
        return dict(processor.collate([features[at] for at in range(len(features))]))

    def observe(self, name: str, check: Any) -> None:
        """Have a check look, under its name; what it raises is a row that fails."""
        self._area, self._check = check.area, name
        check.observe(self)

    def _row(self, name: str, status: Status, observed: str, advice: str = "") -> None:
        self.rows.append(Row(self._area, name, status, observed, advice, self._check))
