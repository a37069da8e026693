"""What a search comes to: `best.toml`, `study.json`, the best trained again, and the page."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import filelock
from optuna.trial import FrozenTrial

from framework.commands import _page, _records, _resolved
from framework.commands._search import Search
from framework.commands._study import Desk
from framework.commands._worker import Worker, retrained
from framework.config.experiment import Experiment

_TOLD = ("attempt", "runs", "steps", "seconds", "metrics")
_FILES = ("*.toml", "study.json", "study.html", "*.png")


def best(desk: Desk) -> list[FrozenTrial]:
    """Return the best trial, or, of several metrics, every one that no other outdoes in all."""
    numbers = desk.best(1)
    return [trial for trial in desk.trials() if trial.number in numbers]


def ended(worker: Worker, folder: Path) -> dict[str, Any]:
    """Write what a search comes to, once; what stands in `study.json` is returned."""
    desk = worker.desk
    with filelock.FileLock(folder / ".end.lock"):
        files = _experiments(worker, folder)
        found = _found(desk, files, {})
        _write(folder, found)
        if len(files) == 1 and desk.plan.search.retrain:
            trial = best(desk)[0]
            found |= {"retrained": retrained(worker, trial)}
            _write(folder, found)
        _page.write(desk.study, found, folder)
    return found


def trackers(experiment: Experiment) -> dict[str, Any]:
    """Return the callbacks that can keep a search together, by label."""
    live = {label: part.options.build() for label, part in experiment.callbacks.items()}
    return {label: callback for label, callback in live.items() if hasattr(callback, "study")}


def tracked(
    found: Mapping[str, Any], search: Search, trackers: Mapping[str, Any], folder: Path
) -> None:
    """Have them told what a search came to."""
    metrics = {
        f"{name}/{which}": value
        for name, both in found["retrained"].get("test", {}).items()
        for which, value in both.items()
    }
    one = found["best"][0] if len(found["best"]) == 1 else None
    told = {
        "params": {"search": attrs.asdict(search)},
        "tags": {"best": {"trial": one["number"], **one["params"]}} if one else {},
        "metrics": {f"test/{name}": value for name, value in metrics.items()}
        | (dict(zip(found["metrics"], one["values"], strict=True)) if one else {}),
        "step": len(found["trials"]),
        "files": [file for name in _FILES for file in sorted(folder.glob(name))],
    }
    for live in trackers.values():
        live.study(folder, found["name"], told)


def _experiments(worker: Worker, folder: Path) -> dict[int, str]:
    """Write the experiment of each best trial, and name the files by the trials' numbers."""
    found = best(worker.desk)
    files = {}
    for trial in found:
        name = "best.toml" if len(found) == 1 else f"best-{trial.number}.toml"
        values = ", ".join(
            f"{k} {v!r}" for k, v in zip(worker.desk.plan.search.metrics, trial.values, strict=True)
        )
        text = _resolved.toml(worker.of(trial))
        _records.replace(folder / name, f"# trial {trial.number}: {values}\n{text}")
        files[trial.number] = name
    return files


def _found(desk: Desk, files: dict[int, str], again: dict[str, Any]) -> dict[str, Any]:
    trials = [_plain(trial) for trial in desk.trials()]
    return {
        "name": desk.study.study_name,
        "metrics": desk.plan.search.metrics,
        "directions": desk.plan.search.directions,
        "best": [{**_plain(t), "file": files[t.number]} for t in best(desk) if t.number in files],
        "retrained": again,
        "trials": trials,
    }


def _plain(trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial as JSON."""
    told = {key: trial.user_attrs.get(key) for key in _TOLD}
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "values": trial.values,
        "params": trial.params,
        "reason": trial.user_attrs.get("reason", ""),
        **told,
    }


def _write(folder: Path, found: dict[str, Any]) -> None:
    text = json.dumps(_records.plain(found), indent=1, allow_nan=False)
    _records.replace(folder / "study.json", text + os.linesep)
