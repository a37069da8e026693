"""The loop. It knows protocols and hooks; nothing of tasks, files of experiments or plugins."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from framework import checkpoint
from framework.batching import Feed
from framework.errors import RunError
from framework.hooks import Hooks
from framework.protocols import (
    Batch,
    LiveLoss,
    LiveMetric,
    LivePrecision,
    LiveStrategy,
    Outputs,
    Row,
    Training,
)
from framework.state import Best, State

Window = Sequence[Batch]
Sink = Callable[[list[Row]], None]

KEEP = 2
"""Newest checkpoints that are kept, besides those under a link."""


@attrs.frozen
class Forward:
    """The forward pass: a module on its device, under its precision."""

    module: nn.Module
    precision: LivePrecision
    strategy: LiveStrategy

    def __call__(self, batch: Batch) -> tuple[Outputs, Batch]:
        """Return the outputs of a batch, and the batch on the device."""
        device = self.strategy.device
        placed = {
            key: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for key, value in batch.items()
        }
        with self.precision.autocast():
            return self.module(**placed), placed


@attrs.define(kw_only=True)
class Trainer:
    """Trains and evaluates the parts it is given."""

    state: State
    training: Training
    forward: Forward
    loss: LiveLoss
    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]
    hooks: Hooks
    feeds: Mapping[str, Feed]
    metrics: Callable[[], dict[str, LiveMetric]]
    """Makes the metrics of one evaluation, by label."""
    rows: Callable[[str], AbstractContextManager[Sink]]
    """Opens the predictions file of a split."""
    info: Mapping[str, Any]
    experiment: str
    pending: list[dict[str, Tensor]] = attrs.field(factory=list)
    """The losses and gradient norms of the steps since the last logged point."""

    def fit(self) -> None:
        """Train as long as the plan and the callbacks say, then test with the best weights."""
        state, call = self.state, self.hooks.call
        self.forward.module.train()
        while state.epoch < state.epochs and not (state.stopping or self._done()):
            call.epoch_start(state=state)
            self.run_epoch(self.feeds["train"].epoch(state.epoch, state.batch), self.train_step)
            if state.batch == state.steps_per_epoch:
                state.epoch, state.batch = state.epoch + 1, 0
            call.epoch_end(state=state)
        if state.status == "interrupted":
            return
        if state.best is not None:
            best = state.folder / "checkpoints" / "best" / "model" / "model.safetensors"
            checkpoint.load_weights(state.model.module, best)
            state.metrics = dict(state.best.metrics)
        if "test" in self.feeds:
            with self.rows("test") as sink:
                self.evaluate("test", sink)

    def run_epoch(self, windows: Iterable[Window], step: Callable[[Window], bool]) -> None:
        """Run a step function over windows until they end or it says that it is done."""
        for window in windows:
            if step(window):
                break

    def train_step(self, window: Window) -> bool:
        """One optimizer step over a window of micro-batches, then whatever is due after it."""
        state, call = self.state, self.hooks.call
        call.step_start(state=state, window=window)
        with self._clock("train"):
            self.pending.append(self._update(window))
        state.step, state.batch = state.step + 1, state.batch + 1
        state.items += self.forward.strategy.sum({"items": sum(len(b["id"]) for b in window)})[
            "items"
        ]
        call.step_end(state=state, window=window)
        last = state.batch == state.steps_per_epoch or self._done()
        if state.step % self.training.log_every == 0 or last or state.stopping:
            self._log_training()
        every = self.training.eval_every
        due = state.step % every == 0 if every else last
        if due and "val" in self.feeds and not state.stopping:
            self.evaluate("val")
        if state.status == "interrupted":
            state.save("last")
        if state.saves:
            self._save()
        return state.stopping or self._done()

    @torch.no_grad()
    def evaluate(self, split: str, sink: Sink | None = None) -> dict[str, float]:
        """Evaluate a split, each record once; values without the split's name.

        `sink` takes the rows that the model decodes from each batch, in the split's order.
        """
        metrics = self.metrics()
        sums: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)

        def step(window: Window) -> bool:
            for batch in window:
                outputs, losses, placed = self._losses(batch)
                for part, count in self.loss.counts(batch).items():
                    counts[part] += count
                    sums[part] += float(losses[part])
                for metric in metrics.values():
                    metric.update(outputs, placed)
                if sink is not None:
                    sink(self.state.model.processor.decode(outputs, placed))
            return False

        self.hooks.call.evaluate_start(state=self.state, split=split)
        self.forward.module.eval()
        with self._clock("evaluate"):
            self.run_epoch(self.feeds[split].whole(), step)
        self.forward.module.train()
        values = self._merged(metrics, sums, counts)
        self.state.metrics[split] = values
        self.hooks.call.evaluate_end(state=self.state, split=split, metrics=values)
        self._log({f"{split}/{name}": value for name, value in values.items()})
        return values

    def _losses(self, batch: Batch) -> tuple[Outputs, dict[str, Tensor], Batch]:
        outputs, placed = self.forward(batch)
        return outputs, self.loss(outputs, placed), placed

    def _update(self, window: Window) -> dict[str, Tensor]:
        """Forward, backward and step; sums are divided by the window's counts over all ranks."""
        counts: dict[str, int] = defaultdict(int)
        for batch in window:
            for part, count in self.loss.counts(batch).items():
                counts[part] += count
        totals = self.forward.strategy.sum(counts)
        means: dict[str, Tensor] = {}
        for batch in window:
            sums = self._losses(batch)[1]
            parts = {part: value / max(totals[part], 1) for part, value in sums.items()}
            self.forward.precision.backward(torch.stack(list(parts.values())).sum())
            for part, value in parts.items():
                means[part] = means[part] + value.detach() if part in means else value.detach()
        state, groups = self.state, self.optimizer.param_groups
        factor = self.factor(state.step - state.skipped)
        for group in groups:
            group["lr"] = group["initial_lr"] * factor
        state.learning_rate = max(group["lr"] for group in groups)
        parameters = [parameter for group in groups for parameter in group["params"]]
        norm, stepped = self.forward.precision.step(
            self.optimizer, parameters, self.training.max_grad_norm
        )
        if not stepped:
            self._refuse(means, norm, window)
        return means | {"": norm}

    def _refuse(self, means: Mapping[str, Tensor], norm: Tensor, window: Window) -> None:
        """Count a step that loss scaling skipped; any other step not taken ends the run."""
        self.state.skipped += 1
        parts = {part: float(value) for part, value in means.items()}
        if self.forward.precision.scaled and all(map(math.isfinite, parts.values())):
            return
        ids = [str(record) for batch in window for record in batch["id"]]
        raise RunError(
            f"step {self.state.step + 1}: the loss is {parts} and the gradient norm"
            f" {float(norm)}; the weights were left as they were. Records: {', '.join(ids)}"
        )

    def _log_training(self) -> None:
        """Log the means since the last point: the one place where training reads the device."""
        names = list(self.pending[0])
        rows = torch.stack(
            [torch.stack([step[n].double() for n in names]) for step in self.pending]
        )
        self.pending.clear()
        means = dict(zip(names, rows.mean(dim=0).tolist(), strict=True))
        norm = means.pop("")
        values = with_total(means) | {
            "grad_norm": norm,
            "learning_rate": self.state.learning_rate,
        }
        self._log({f"train/{name}": value for name, value in values.items()})

    def _log(self, values: Mapping[str, float]) -> None:
        state = self.state
        epoch = state.epoch + state.batch / state.steps_per_epoch
        point = {"step": state.step, "epoch": epoch, "time": time.time() - state.started}
        self.hooks.call.log(state=state, point=point | dict(values))

    def _merged(
        self, metrics: Mapping[str, LiveMetric], sums: dict[str, float], counts: dict[str, int]
    ) -> dict[str, float]:
        """Merge over ranks, compute, and name the values."""
        ranks = self.forward.strategy.gather((dict(metrics), dict(sums), dict(counts)))
        mine = ranks.pop(self.forward.strategy.rank)
        losses = {}
        for part in mine[1]:
            count = sum(rank[2].get(part, 0) for rank in [mine, *ranks])
            losses[part] = sum(rank[1].get(part, 0.0) for rank in [mine, *ranks]) / max(count, 1)
        values = with_total(losses)
        for label, metric in metrics.items():
            metric.merge([rank[0][label] for rank in ranks])
            for name, value in metric.compute().items():
                values[f"{label}/{name}" if name else label] = float(value)
        return values

    def _save(self) -> None:
        """Write the checkpoint that hooks asked for and link it under each tag."""
        state = self.state
        requests, state.saves = state.saves, {}
        if "best" in requests:
            metrics = {split: dict(values) for split, values in state.metrics.items()}
            state.best = Best(step=state.step, metrics=metrics, **requests["best"])
        live = {
            "optimizer": self.optimizer,
            "precision": self.forward.precision,
            "hooks": self.hooks,
        }
        with self._clock("checkpoint"):
            folder = checkpoint.write(state, live, self.info, self.experiment)
            for tag in requests:
                checkpoint.link(folder, tag)
            checkpoint.prune(folder.parent, keep=KEEP)
        self.hooks.call.save_end(state=state, folder=folder)

    def _done(self) -> bool:
        return self.state.step >= self.state.total_steps

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        spent = time.perf_counter() - begun
        self.state.timing[name] = self.state.timing.get(name, 0.0) + spent


def with_total(parts: Mapping[str, float]) -> dict[str, float]:
    """Return the parts of a loss and their sum, `loss`; a single part is just that."""
    total = {"loss": sum(parts.values())}
    return total if len(parts) == 1 else total | {f"loss/{n}": v for n, v in parts.items()}
