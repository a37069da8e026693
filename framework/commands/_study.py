"""A search's study: its storage, and who runs which trial, so that each is run, and once.

Optuna's storages keep it. Trials are taken, and those of killed processes found, under a lock that
ends with its process: there are never more of them than were asked for.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import filelock
import optuna
from optuna.trial import FrozenTrial, TrialState

from framework.commands import _engines, _owner, _resolved, _storage
from framework.commands._search import Plan
from framework.config.experiment import Experiment
from framework.errors import UserError, listing

ATTEMPTS = 2
"""Times that a trial is taken up at most; that of a killed process is tried again once."""
_RUNNING, _WAITING = TrialState.RUNNING, TrialState.WAITING


@attrs.define
class Desk:
    """Gives out the trials of a study, and takes what came of them."""

    study: optuna.Study
    plan: Plan
    seed: int
    lock: _storage.Lock

    def trials(self) -> list[FrozenTrial]:
        """Every trial there is."""
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def take(self) -> optuna.Trial | None:
        """Take up the next trial; None where all that were asked for are taken."""
        with self.lock():
            self._recover()
            trials = self.trials()
            waiting = any(trial.state == _WAITING for trial in trials)
            if len(trials) >= self.plan.search.trials and not waiting:
                return None
            # the number of the one that is taken: it draws what it would have drawn at once
            number = min((t.number for t in trials if t.state == _WAITING), default=len(trials))
            given = self.plan.search.sampler
            self.study.sampler = _engines.made("sampler", given, self.seed, number)
            with quiet():
                trial = self.study.ask()
            attempt = trial.user_attrs.get("attempt", 0) + 1
            for key, value in {**_owner.mine(), "attempt": attempt}.items():
                trial.set_user_attr(key, value)
        return trial

    def over(self) -> bool:
        """Whether nothing is left to do, nor anybody at it."""
        return all(trial.state.is_finished() for trial in self.trials())

    def tell(self, trial: optuna.Trial, state: TrialState, said: Mapping[str, Any]) -> bool:
        """Say how a trial ended; False where it is no longer this process's to tell."""
        with self.lock():
            values = said.get("values") if state == TrialState.COMPLETE else None
            if not self._holds(trial):
                return False
            for key, value in said.items():
                trial.set_user_attr(key, value)
            with quiet():
                for name, excess in self.excesses(said.get("metrics", {})).items():
                    trial.set_constraint(name, excess)
                self.study.tell(trial, values, state)
        return True

    def best(self, number: int) -> set[int]:
        """Return the best trials so far: so many, or of several metrics what nothing outdoes."""
        with quiet():
            done = [t for t in self.trials() if t.state == TrialState.COMPLETE]
            good = [t for t in done if all(excess <= 0 for excess in t.constraints.values())]
            if len(self.plan.search.metrics) > 1:
                return {t.number for t in self.study.best_trials} if good else set()
        sign = -1 if self.plan.search.directions[0] == "maximize" else 1
        ranked = sorted(good, key=lambda trial: (sign * trial.value, trial.number))
        return {trial.number for trial in ranked[:number]}

    def excesses(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return by how much metrics break their bounds; what isn't above 0 keeps them."""
        found = {}
        for name, bound in self.plan.bounds.items() if metrics else ():
            if bound.low is not None:
                found[f"{name} low"] = bound.low - metrics[name]
            if bound.high is not None:
                found[f"{name} high"] = metrics[name] - bound.high
        return found

    def give_back(self, trial: optuna.Trial) -> None:
        """Leave a trial that was interrupted to whoever asks next."""
        with self.lock():
            if self._holds(trial):
                trial.set_user_attr("attempt", trial.user_attrs["attempt"] - 1)
                self._requeue(trial._trial_id)  # noqa: SLF001 - it has no other name

    def _holds(self, trial: optuna.Trial) -> bool:
        now = self.trials()[trial.number]
        mine = now.user_attrs.get("owner") == trial.user_attrs["owner"]
        return bool(mine and now.state == _RUNNING)

    def _recover(self) -> None:
        """Have the trials of processes that are gone tried again, those of before as failed."""
        for trial in self.trials():
            if trial.state != _RUNNING or not _owner.gone(trial.user_attrs):
                continue
            if trial.user_attrs.get("attempt", 0) < ATTEMPTS:
                self._requeue(trial._trial_id)  # noqa: SLF001
                continue
            storage, number = self.study._storage, trial._trial_id  # noqa: SLF001
            storage.set_trial_user_attr(number, "reason", "its process was killed, twice")
            storage.set_trial_state_values(number, TrialState.FAIL)

    def _requeue(self, number: int) -> None:
        # it keeps its number and what was drawn; Optuna's own retry would make a further trial
        self.study._storage.set_trial_state_values(number, _WAITING)  # noqa: SLF001


@contextmanager
def alive(trial: optuna.Trial) -> Iterator[None]:
    """Give signs of life for a trial, which a process on another machine goes by."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_owner.BEAT):
            # the storage may be away for a while, and so may the trial
            with contextlib.suppress(Exception):
                trial.set_user_attr("alive", time.time())

    thread = threading.Thread(target=beat, daemon=True, name="alive")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's remarks from the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def opened(plan: Plan, name: str, folder: Path, seed: int, facts: Mapping[str, Any]) -> Desk:
    """Open the study of a name, which is made where there is none, in a folder that is.

    `UserError` where the storage can't be reached, or where `facts`, by path in the experiment,
    aren't those that the study began with.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror})") from None
    search = plan.search
    with filelock.FileLock(folder / ".creation.lock", timeout=_storage.CREATION):
        storage, lock = _storage.opened(plan, name, folder)
        with lock(), quiet():
            study = optuna.create_study(
                storage=storage,
                study_name=name,
                directions=search.directions,
                pruner=_engines.made("pruner", search.pruner),
                load_if_exists=True,
            )
            began = study.user_attrs.get("facts")
            if began is None:
                study.set_user_attr("facts", {**facts})
            elif changed := [k for k in {**began, **facts} if began.get(k) != facts.get(k)]:
                raise UserError(
                    f"{folder}: this search began with another {listing(sorted(changed)[:3])};"
                    " give the experiment another name, or remove the study"
                )
    return Desk(study, plan, seed, lock)


def facts(experiment: Experiment, plan: Plan) -> dict[str, Any]:
    """Return what must stay the same while a study grows, by path; of files only their names."""
    tree = _resolved.tree(experiment)
    del tree["trainer"]["threads"]  # each machine has its own
    # those that only tell of the trials may change
    tree["callbacks"] = {
        label: tree["callbacks"][label]
        for label, part in experiment.callbacks.items()
        if not getattr(part.options.build(), "sink", False)
    }
    kept = {key: getattr(plan.search, key) for key in _KEPT}
    return dict(_flat({**tree, "requires": [], "search": kept}))


_KEPT = ("metric", "direction", "space", "constraints", "seeds")


def _flat(item: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(item, Mapping) and item:
        for key, inner in item.items():
            yield from _flat(inner, f"{path}.{key}".lstrip("."))
    else:
        plain = item.name if isinstance(item, Path) else item
        yield path, json.loads(json.dumps(plain, default=str))
