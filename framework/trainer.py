"""The loop. It knows protocols and hooks; nothing of tasks, files of experiments or plugins."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import attrs

from framework import checkpoint
from framework.batching import Feed
from framework.errors import RunError
from framework.hooks import Hooks
from framework.protocols import LiveMetric, Row, Training
from framework.state import Best, State
from framework.step import Tally, Update, Window, means, with_total

if TYPE_CHECKING:
    from torch import Tensor

Sink = Callable[[list[Row]], None]
KEEP = 2
"""Newest checkpoints that are kept, besides those under a link."""
OVERFLOWS = 30
"""Steps in a row that loss scaling may skip before the run is given up."""


@attrs.define(kw_only=True)
class Trainer:
    """Trains and evaluates the parts it is given."""

    state: State
    training: Training
    update: Update
    hooks: Hooks
    feeds: Mapping[str, Feed]
    metrics: Callable[[], dict[str, LiveMetric]]
    """Makes the metrics of one evaluation, by label."""
    rows: Callable[[str], AbstractContextManager[Sink]]
    """Opens the predictions file of a split."""
    model_files: checkpoint.ModelFiles
    pending: list[dict[str, Tensor]] = attrs.field(factory=list)
    """Losses and gradient norms of the steps since the last logged point, on the device."""
    overflows: int = 0

    def fit(self) -> None:
        """Train as long as the plan and the callbacks say, then test with the best weights."""
        state, call = self.state, self.hooks.call
        self.update.forward.module.train()
        while state.epoch < state.epochs and not (state.stopping or self._done()):
            call.epoch_start(state=state)
            self.run_epoch(self.feeds["train"].epoch(state.epoch, state.batch), self.train_step)
            if state.batch == state.steps_per_epoch and state.status != "interrupted":
                state.epoch, state.batch = state.epoch + 1, 0
            call.epoch_end(state=state)
            self._save()
        if state.status == "interrupted":
            state.save("last")
            self._save()
            return
        if state.best is not None:
            best = state.folder / "checkpoints" / "best"
            checkpoint.verify(best)
            checkpoint.load_weights(state.model.module, best / "model" / "model.safetensors")
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
        """One optimizer step, then whatever is due after it."""
        state, call = self.state, self.hooks.call
        call.step_start(state=state, window=window)
        with state.clock("train"):
            try:
                found, taken = self.update(window, state.step - state.skipped)
            except RunError as error:
                raise RunError(f"step {state.step + 1}: {error}") from None
        self.pending.append(found)
        self.overflows = 0 if taken else self.overflows + 1
        if self.overflows > OVERFLOWS:
            raise RunError(
                f"step {state.step + 1}: {OVERFLOWS} steps in a row overflowed; use bf16"
            )
        items = self.update.forward.strategy.sum({"": sum(len(b["id"]) for b in window)})[""]
        state.count(self.update.learning_rate, items, skipped=not taken)
        call.step_end(state=state, window=window)
        last = state.batch == state.steps_per_epoch or self._done()
        if state.step % self.training.log_every == 0 or last or state.stopping:
            self._log_training()
        every = self.training.eval_every
        due = self._done() or (state.step % every == 0 if every else last)
        if due and "val" in self.feeds and not state.stopping:
            self.evaluate("val")
        self._save()
        return state.stopping or self._done()

    def evaluate(self, split: str, sink: Sink | None = None) -> dict[str, float]:
        """Evaluate a split, each record once; values without the split's name.

        `sink` takes the rows that the model decodes from each batch, in the split's order. An
        interrupt ends it at the next batch, without values.
        """
        import torch

        state, call, forward = self.state, self.hooks.call, self.update.forward
        tally = Tally(forward, self.update.loss, self.metrics())

        def step(window: Window) -> bool:
            for batch in window:
                found = tally.add(batch)
                if sink is not None:
                    sink(state.model.processor.decode(*found))
            return state.status == "interrupted"

        call.evaluate_start(state=state, split=split)
        forward.module.eval()
        with state.clock("evaluate"), torch.no_grad():
            self.run_epoch(self.feeds[split].whole(), step)
        forward.module.train()
        if state.status == "interrupted":
            return {}
        values = state.metrics[split] = tally.values()
        call.evaluate_end(state=state, split=split, metrics=values)
        self._log(split, values)
        return values

    def _log_training(self) -> None:
        """Log the means since the last point."""
        values = means(self.pending)
        self.pending.clear()
        extra = {"grad_norm": values.pop(""), "learning_rate": self.state.learning_rate}
        self._log("train", with_total(values) | extra)

    def _log(self, split: str, values: Mapping[str, float]) -> None:
        state = self.state
        epoch = state.epoch + state.batch / state.steps_per_epoch
        point = {"step": state.step, "epoch": epoch, "time": time.time() - state.started}
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.hooks.call.log(state=state, point=point | named)

    def _save(self) -> None:
        """Write the checkpoint that hooks asked for, if they did, and link it under each tag."""
        state = self.state
        requests, state.saves = state.saves, {}
        if not requests:
            return
        if "best" in requests:
            metrics = {split: dict(values) for split, values in state.metrics.items()}
            state.best = Best(step=state.step, metrics=metrics, **requests["best"])
        precision = self.update.forward.precision
        live = {"optimizer": self.update.optimizer, "precision": precision, "hooks": self.hooks}
        with state.clock("checkpoint"):
            folder = checkpoint.write(state, live, self.model_files)
            for tag in requests:
                checkpoint.link(folder, tag)
            checkpoint.prune(folder.parent, keep=KEEP)
        self.hooks.call.save_end(state=state, folder=folder)

    def _done(self) -> bool:
        return self.state.step >= self.state.total_steps
