"""Which run goes on, and whether an experiment may go on with it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tomli

from framework.commands import _inside, _records, _toml
from framework.commands._experiment import TABLES
from framework.commands._resolved import toml
from framework.config import experiment as config
from framework.config.experiment import Experiment
from framework.config.positions import Path as Keys
from framework.errors import ExperimentError, UserError

_FREE = ("epochs", "steps", "micro_batch", "workers", "compile", "on_oom", "on_nonfinite")
"""Keys of `[trainer]` that change nothing of what has been trained."""
_log = logging.getLogger("framework")


def find(experiment: Experiment, run: str, launch: str = "") -> Path | None:
    """Return the folder to go on with: the one given, or the newest run of the name.

    With a `launch`, only what began under that start of torchrun. None where there is no such
    run. `UserError` where the folder given is none, and `ExperimentError` with each difference
    that the past can't bear.
    """
    root = Path.cwd() / "runs" / experiment.name
    if run:
        folder = around(Path(run))
    else:
        folders = [file.parent for file in root.glob("*/experiment.toml")]
        times = {
            path: (path.name[:16], (path / "experiment.toml").stat().st_mtime)
            for path in folders
            if launch in ("", _records.read(path / "environment.json").get("launch"))
        }
        if not times:
            _log.warning("%s: no run here to go on with; starting one", root)
            return None
        folder = max(times, key=lambda path: times[path])
    _inside.check(folder)
    _compare(experiment, folder)
    return folder


def around(path: Path) -> Path:
    """Return the run folder that a path names or lies in."""
    for folder in (path.absolute(), *path.absolute().parents[:3]):
        if (folder / "experiment.toml").is_file() and not (folder / "info.json").exists():
            return folder
    raise UserError(f"{path}: there is no run folder here; 'runs/NAME/TIME' is one")


def _compare(experiment: Experiment, folder: Path) -> None:
    file = folder / "experiment.toml"
    try:
        before = dict(_flat(tomli.loads(file.read_text(encoding="utf-8"))))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read ({error})") from None
    after = dict(_flat(tomli.loads(toml(experiment))))
    values = {key: (before.get(key), after.get(key)) for key in {**before, **after}}
    # nan is not equal to itself, and the same option all the same
    differing = [k for k, (then, now) in values.items() if then != now and repr(then) != repr(now)]
    watching, free = _free(experiment)
    if differing:
        watching |= _free(config.load(file, tables=TABLES))[0]
    problems = []
    for key in differing:
        then, now = (_toml.value(x[key]) if key in x else "not set" for x in (before, after))
        table, *rest = key
        bears = table == "requires" or (table == "trainer" and rest[0] in _FREE)
        parts = {"dataset": experiment.dataset, "model": experiment.model}
        bears |= table in parts and rest[0] in getattr(parts[table].options, "free", ())
        bears |= table == "callbacks" and (rest[0] in watching or tuple(rest) in free)
        if not bears:
            message = f"{'.'.join(map(str, key))} is {now}, and {then} in the run that goes on"
            problems.append(experiment.draft.problem(key, message))
    if problems:
        raise ExperimentError([*problems, experiment.draft.problem((), _advice(folder))])


def _advice(folder: Path) -> str:
    return (
        f"{folder} can go on with more epochs or steps, a smaller micro_batch, and other workers,"
        " sinks, compile, on_oom or on_nonfinite; for anything else start a run of its own, without"
        " --resume"
    )


def _free(experiment: Experiment) -> tuple[set[str], set[tuple[str, str]]]:
    """Labels of callbacks that only watch, and options of others that the past doesn't hang on."""
    live = {label: part.options.build() for label, part in experiment.callbacks.items()}
    watching = {label for label, callback in live.items() if getattr(callback, "sink", False)}
    free = {(k, name) for k, callback in live.items() for name in getattr(callback, "free", ())}
    return watching, free


def _flat(tree: Mapping[str, Any], path: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, (*path, key))
        else:
            yield (*path, key), value
