"""The loop. It knows protocols and hooks; nothing of tasks, files of experiments or plugins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, closing, suppress

import attrs

from framework import checkpoint
from framework.batching import Feed, Windows, in_order
from framework.hooks import Hooks
from framework.protocols import LiveMetric, Row
from framework.state import Best, State
from framework.step import OutOfMemory, Recent, Tally, Update, Window, halved

Sink = Callable[[list[Row]], None]


@attrs.define(kw_only=True)
class Trainer:
    """Trains and evaluates the parts it is given."""

    state: State
    update: Update
    hooks: Hooks
    feeds: Mapping[str, Feed]
    metrics: Callable[[], dict[str, LiveMetric]]
    """Makes the metrics of one evaluation, by label."""
    rows: Callable[[str], AbstractContextManager[Sink]]
    """Opens the predictions file of a split."""
    keeper: checkpoint.Keeper
    recent: Recent

    def fit(self) -> None:
        """Train as long as the plan and the callbacks say, then test with the best weights."""
        state = self.state
        self.update.forward.module.train()
        self.keeper.go_on()
        self._settle()
        while not state.halted and ((state.batch and not state.over) or self._going()):
            self._epoch()
        if state.halted:
            state.save("last")
        self._save()
        if not state.halted:
            self.keeper.best(state)
            self._test()
        with state.clock("checkpoint"):
            self.keeper.wait()

    def _test(self) -> None:
        """Evaluate the test split, if there is one, while the last checkpoint is written."""
        if "test" in self.feeds:
            with suppress(InterruptedError), self.rows("test") as sink:
                if not self.evaluate("test", sink):
                    if self.state.best is None:  # and so the weights are the last ones
                        self.keeper.save(self.state, ["last"])
                    raise InterruptedError  # some rows must not be taken for all of them

    def run_epoch(self, windows: Windows, step: Callable[[Window], bool]) -> None:
        """Run a step function over windows until they end or it says that it is done."""
        with closing(windows):
            any(map(step, windows))  # it ends with the first that is done

    def train_step(self, window: Window) -> bool:
        """One optimizer step, then whatever is due after it."""
        state, call, training = self.state, self.hooks.call, self.state.training
        call.step_start(state=state, window=window)
        with state.clock("train"):
            try:
                loss, norm, state.missed = self.update(window, state.step - state.skipped)
            except OutOfMemory:
                state.micro_batch = halved(window, state.step + 1, training.on_oom)
                return True
        self.recent.add(loss, norm)
        items = state.strategy.sum({"": sum(len(b["id"]) for b in window)})[""]
        state.count(self.update.learning_rate, items, skipped=bool(state.missed))
        call.step_end(state=state, window=window, loss=loss, norm=norm)
        last = state.batch == state.steps_per_epoch or self._done()
        if state.missed not in ("", "overflow") and training.on_nonfinite == "stop":
            state.stop(f"step {state.step}: the {state.missed} is not finite", "failed")
        if state.step % training.log_every == 0 or last or state.ended:
            self._log("train", self.recent.take() | {"learning_rate": state.learning_rate})
        due = last if not training.eval_every else not state.step % training.eval_every
        state.due = (due or self._done()) and "val" in self.feeds and not state.ended
        return self._settle()

    def _epoch(self) -> None:
        """Train what is left of the epoch; it stays open where an interrupt ends it."""
        state, call = self.state, self.hooks.call
        if not state.batch:
            call.epoch_start(state=state)
        while state.batch < state.steps_per_epoch and self._going():
            windows = self._feed("train").epoch(state.epoch, state.batch)
            self.run_epoch(windows, self.train_step)
        if state.halted:
            return
        if state.batch == state.steps_per_epoch:
            state.epoch, state.batch = state.epoch + 1, 0
        state.over = not self._going()
        call.epoch_end(state=state)
        self._save()

    def _settle(self) -> bool:
        """Do what a step left due: its validation and its checkpoint; whether training ends."""
        if self.state.due and not self.state.halted:
            self.state.due = not self.keeper.whole(lambda: self.evaluate("val"))
        self._save()
        return self.state.stopping or self._done()

    def evaluate(self, split: str, sink: Sink | None = None) -> dict[str, float]:
        """Evaluate a split, each record once, its rows into `sink`; no values if interrupted."""
        state, call, forward = self.state, self.hooks.call, self.update.forward
        tally = Tally(forward, self.update.loss, self.metrics())

        def step(window: Window) -> bool:
            rows: list[tuple[int, Row]] = []
            for batch in window:
                index = batch.pop("_index")
                found = tally.add(batch)
                if sink is not None and batch["id"]:
                    rows += zip(index, state.model.processor.decode(*found), strict=True)
                if state.halted:
                    return True
            if sink is not None:
                sink(in_order(row for rank in state.strategy.gather(rows) for row in rank))
            state.meet()
            return state.halted

        call.evaluate_start(state=state, split=split)
        forward.module.eval()
        feed = self._feed(split)
        with state.clock("evaluate"):
            self.run_epoch(feed.whole(), step)
            values = {} if state.halted else tally.values()
        forward.module.train()
        if state.halted:
            return {}
        state.metrics[split] = values
        call.evaluate_end(state=state, split=split, metrics=values)
        self._log(split, values)
        return values

    def _log(self, split: str, values: Mapping[str, float]) -> None:
        named = {f"{split}/{name}": value for name, value in values.items()}
        self.hooks.call.log(state=self.state, point=self.state.point() | named)

    def _save(self) -> None:
        """Begin the checkpoint that hooks asked for, if they did."""
        state = self.state
        requests, state.saves = state.saves, {}
        if "best" in requests:
            metrics = {split: dict(values) for split, values in state.metrics.items()}
            state.best = Best(step=state.step, metrics=metrics, **requests["best"])
        if requests or self.keeper.failed:
            with state.clock("checkpoint"):
                self.keeper.save(state, [*requests])

    def _feed(self, split: str) -> Feed:
        """Return a split's feed, in micro-batches that there was memory for."""
        if self.feeds[split].workers:
            self.keeper.wait()  # processes that are forked now would inherit the writer's locks
        return attrs.evolve(self.feeds[split], micro_batch=self.state.micro_batch)

    def _going(self) -> bool:
        return self.state.epoch < self.state.epochs and not (self.state.stopping or self._done())

    def _done(self) -> bool:
        return self.state.step >= self.state.total_steps
