"""A process of a search: it takes trials, runs them, and says what came of each."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from optuna.trial import TrialState

from framework.commands import _records, _sets, _space, _study, _toml
from framework.commands._study import Desk
from framework.commands._trial import Bench, Watch
from framework.config.experiment import Experiment
from framework.config.merge import Draft
from framework.errors import ExperimentError, UserError

if TYPE_CHECKING:
    import optuna

_PAUSE = 0.5
"""Seconds between two looks at what the others are doing."""


@attrs.define
class Worker:
    """Takes trials until there are as many as were asked for."""

    desk: Desk
    bench: Bench
    file: Path
    sets: Sequence[Draft]
    facts: Mapping[str, Any]
    """What the experiment was when the search began."""
    root: Path
    """Where the run folders are."""
    parent: int = 0
    """The process that started this one as a helper, and without which it ends."""

    def work(self, told: Callable[[], None]) -> None:
        """Run trials until none is left to run, not another's either; `told` comes after each."""
        while os.getppid() == self.parent or not self.parent:
            trial = self.desk.take()
            if trial is not None:
                self._one(trial)
                self._tidy()
            elif self.desk.over():
                told()
                return
            else:  # one of the others may be killed, and its trial left
                time.sleep(_PAUSE)
            told()

    def experiment(self, drawn: Mapping[str, Any], seed: int | None = None) -> Experiment:
        """Load the experiment with what a trial drew."""
        return _space.loaded(self.file, self.sets, self.desk.plan, drawn, seed)

    def again(self, drawn: Mapping[str, Any], seed: int, first: str) -> Experiment:
        """Load it for another seed; where the dataset can, its splits are those of the run `first`.

        So that the run's own file cuts no others when it is run or evaluated again.
        """
        loaded = self.experiment(drawn, seed)
        if getattr(loaded.dataset.options, "splits", None) != "":
            return loaded
        file = self.root / first / "splits.json"
        pinned = _sets.parsed(f"dataset.splits={_toml.value(str(file))}")
        sets = [*self.sets, pinned]
        return _space.loaded(self.file, sets, self.desk.plan, drawn, seed)

    def of(self, trial: optuna.trial.FrozenTrial) -> Experiment:
        """Load the experiment of a trial that has ended, with the threads that it had."""
        threads = _sets.parsed(f"trainer.threads={trial.user_attrs['threads']}")
        sets = [*self.sets, threads]
        return _space.loaded(self.file, sets, self.desk.plan, trial.params)

    def _one(self, trial: optuna.Trial) -> None:
        try:
            with _study.alive(trial):
                state, said = self._result(trial)
            self.desk.tell(trial, state, said)
        except BaseException:
            # what it was interrupted in is left to whoever goes on
            self.desk.give_back(trial)
            raise

    def _tidy(self) -> None:
        """Remove the checkpoints of trials that others outdo: they would fill the disk."""
        number = self.desk.plan.search.keep
        # looked at first: one that ends meanwhile may be the best
        trials = self.desk.trials()
        kept = self.desk.best(number)
        for trial in trials if number else ():
            if trial.state.is_finished() and trial.number not in kept:
                for run in trial.user_attrs.get("runs", ()):
                    shutil.rmtree(self.root / run / "checkpoints", ignore_errors=True)

    def _result(self, trial: optuna.Trial) -> tuple[TrialState, dict[str, Any]]:
        """Run a trial, over as many seeds as were asked for."""
        plan, watches = self.desk.plan, []
        said: dict[str, Any] = {"runs": [], "steps": 0, "seconds": 0.0}
        if _study.facts(self.experiment({}), plan) != self.facts:
            raise UserError(f"{self.file}: changed while it was being searched; start this again")
        drawn = _space.draw(trial, plan)
        for at in range(plan.search.seeds):
            watch = Watch(plan, None if at else trial)
            try:
                runs = said["runs"]
                experiment = (
                    self.again(drawn, self.desk.seed + at, runs[0])
                    if at
                    else self.experiment(drawn)
                )
            except ExperimentError as error:  # what was drawn can't go together
                return TrialState.FAIL, said | {"reason": error.problems[0].message}
            said["threads"] = experiment.trainer.threads
            ran = self.bench.run(experiment, watch)
            runs += [ran.folder] if ran.folder else []
            said["steps"] += watch.steps
            said["seconds"] += ran.seconds
            if ran.reason:
                return TrialState.FAIL, said | {"reason": ran.reason}
            if watch.pruned:
                return TrialState.PRUNED, said
            watches.append(watch.values)
        metrics = {k: statistics.fmean(values[k] for values in watches) for k in watches[0]}
        values = [metrics[name] for name in plan.search.metrics]
        return TrialState.COMPLETE, said | {"values": values, "metrics": metrics}


def retrained(worker: Worker, trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """Train what a trial drew over seeds that no trial had, and test it.

    Returns the mean and the standard deviation of each metric of the test split, over the seeds
    that did not fail. What was trained before is not trained again.
    """
    desk, search = worker.desk, worker.desk.plan.search
    key = f"retrained {trial.number}"
    done: dict[str, Any] = dict(desk.study.user_attrs.get(key, {}))
    first = desk.seed + search.seeds
    seeds = [str(seed) for seed in range(first, first + search.retrain)]
    for seed in seeds:
        if seed in done and not done[seed]["reason"]:
            continue
        watch = Watch(desk.plan)
        experiment = worker.again(trial.params, int(seed), trial.user_attrs["runs"][0])
        ran = worker.bench.run(experiment, watch, tested=True)
        result = _records.read(worker.root / ran.folder / "result.json") if ran.folder else {}
        tested = result.get("metrics", {}).get("test", {})
        done[seed] = {"run": ran.folder, "reason": ran.reason, "test": tested}
        desk.study.set_user_attr(key, done)
    tests = [done[seed]["test"] for seed in seeds if not done[seed]["reason"]]
    return {"seeds": {seed: done[seed] for seed in seeds}, "test": _summary(tests)}


def _summary(tests: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation of each metric that is defined in all the runs."""
    found = {}
    for name in tests[0] if tests else ():
        values = [value for test in tests if (value := test.get(name)) is not None]
        if len(values) < len(tests):
            continue
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        found[name] = {"mean": statistics.fmean(values), "std": spread}
    return found
