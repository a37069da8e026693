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
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np

from framework import build
from framework.commands import _checkpoints, _resolved
from framework.config.experiment import Experiment
from framework.errors import RunError, UserError
from framework.hooks import Hooks
from framework.protocols import Batch, Features, Record, Splits
from framework.registry import Registry
from framework.state import Missed
from framework.step import OutOfMemory, Window
from framework.trainer import Trainer

_DRAWN = 8
"""Records that are drawn for each that is taken, so that those of rare labels are among them."""
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
    tune_speed: bool = False
    """Whether other batch sizes, precisions and numbers of workers are to be tried."""
    changed: Callable[[Sequence[str]], Experiment] | None = None
    """Loads the experiment again with more of what `--set` takes."""
    pasted: list[str] = attrs.field(factory=list)
    """Lines of TOML that the table ends with, for a person to paste."""
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

    def failed(self, *names: str) -> str:
        """Say which of some rows failed first, as what follows from it need not fail too."""
        rows = (row for row in self.rows if row.name in names and row.status == "fail")
        return next((f"see {row.area}: {row.name}" for row in rows), "")

    def offered(self, kind: str) -> list[str]:
        """Names of the plugins of a kind that are installed."""
        return [offer.name for offer in Registry().of_kind(kind)]

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

    def build(
        self,
        experiment: Experiment | None = None,
        splits: Splits | None = None,
        assets: Path | None = None,
    ) -> Trainer:
        """Build all parts anew, of another experiment or of other splits where they are given.

        With `assets`, the model's folder in a checkpoint, nothing pretrained is read.
        """
        experiment = experiment or self.experiment
        return build.trainer(
            experiment,
            splits or self.splits,
            Hooks({}),
            self.scratch / f"run-{len(list(self.scratch.iterdir()))}",
            lambda _: nullcontext(lambda _: None),
            text=_resolved.toml(experiment),
            assets=assets,
            verify=_checkpoints.verify,
        )

    def taken_up(self, trainer: Trainer) -> Trainer:
        """Write a checkpoint of a trainer that was built, and take it up in another, as `run` does.

        The random generators are then as they were when it was written.
        """
        trainer.keeper.save(trainer.state, ["last"])
        trainer.keeper.wait()
        found = _checkpoints.newest(trainer.state.folder / "checkpoints")
        if found is None:
            raise UserError("the checkpoint that was just written is not whole")
        other = self.build(assets=found[0] / "model")
        other.state.folder = trainer.state.folder
        other.keeper.resume(other.state, *found)
        other.keeper.go_on()
        return other

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
        mode = module.training
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
                module.train(mode)
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

    def steps(
        self, trainer: Trainer, windows: Iterator[Window], count: int, first: int = 0
    ) -> Iterator[Step]:
        """Take optimizer steps with a lent trainer; each is yielded when it has been taken."""
        for number, window in zip(range(first, first + count), windows, strict=False):
            try:
                loss, norm, missed = trainer.update(window, number)
            except OutOfMemory:
                raise RunError("out of memory; lower trainer.micro_batch") from None
            means = {name: float(value) for name, value in loss.items()}
            yield Step(number, window, means, float(norm), missed)

    def records(self, count: int, split: str = "train") -> list[Record]:
        """So many records of a split, or all: drawn at random, alike each time, of all labels."""
        records = self.splits[split]
        number = min(count, len(records))
        rng, most = np.random.default_rng(len(records)), min(len(records), _DRAWN * number)
        drawn = rng.choice(len(records), most, replace=False)
        queues: dict[str, list[int]] = {}
        for at in drawn.tolist():
            queues.setdefault(repr(records[at].get("label")), []).append(at)
        turns = itertools.chain.from_iterable(itertools.zip_longest(*queues.values()))
        chosen = itertools.islice((at for at in turns if at is not None), number)
        return [records[at] for at in sorted(chosen)]

    def features(self, records: Sequence[Record], *, augment: bool = True) -> list[Features]:
        """Encode records (changed ones, too) as training does; the same every time."""
        processor = self.trainer.feeds["train"].processor
        encoded = processor.encode(list(records))
        found = [encoded[at] for at in range(len(encoded))]
        if not augment or not getattr(processor, "augments", True):
            return found
        rngs = [np.random.default_rng([self.experiment.seed, at]) for at in range(len(found))]
        return [processor.augment(each, rng) for each, rng in zip(found, rngs, strict=True)]

    def collate(self, features: Sequence[Features]) -> Batch:
        """Make one batch of features."""
        return dict(self.trainer.feeds["train"].processor.collate(list(features)))

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return records (changed ones, too) as one batch, without augmentation."""
        return self.collate(self.features(records, augment=False))

    def observe(self, name: str, check: Any) -> None:
        """Have a check look, under its name; it leaves no trace in the random generators."""
        import torch

        self._area, self._check = check.area, name
        drawn = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
        try:
            check.observe(self)
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])  # noqa: NPY002 - whoever draws from it
            torch.set_rng_state(drawn[2])

    def _row(self, name: str, status: Status, observed: str, advice: str = "") -> None:
        self.rows.append(Row(self._area, name, status, observed, advice, self._check))
