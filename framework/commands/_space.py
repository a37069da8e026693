"""What a trial draws from the space of a search, and the experiment that this makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.commands import _experiment, _study, _toml
from framework.commands._search import Choices, Dimension, Plan
from framework.config import experiment as config
from framework.config.experiment import Experiment
from framework.config.merge import Draft, Origin, parse

if TYPE_CHECKING:
    import optuna

_TABLES = _experiment.TABLES | {"search": lambda _: None}  # checked when the search began


def draw(trial: optuna.Trial, plan: Plan) -> dict[str, Any]:
    """Draw what a trial varies: an option of a component only where that has been chosen."""
    drawn: dict[str, Any] = {}
    with _study.quiet():
        for each in plan.dimensions:
            if not each.above or drawn.get(each.above) in each.where:
                drawn[each.key] = _drawn(trial, each)
    return drawn


def _drawn(trial: optuna.Trial, dimension: Dimension) -> Any:
    spec = dimension.spec
    if isinstance(spec, Choices):
        return trial.suggest_categorical(dimension.key, dimension.labels)
    bounds = dimension.key, spec.low, spec.high
    if dimension.whole:
        return trial.suggest_int(*bounds, step=spec.step or 1, log=spec.log)
    return trial.suggest_float(*bounds, step=spec.step or None, log=spec.log)


def loaded(
    file: Path, sets: Sequence[Draft], plan: Plan, drawn: Mapping[str, Any], seed: int | None = None
) -> Experiment:
    """Load the experiment with what was drawn laid over it, and with a seed, if one is given."""
    over = [_layer(each, drawn[each.key]) for each in plan.dimensions if each.key in drawn]
    over += [] if seed is None else [_said(f"seed = {seed}", Path.cwd())]
    return config.load(file, [*sets, *over], tables=_TABLES)


def _layer(dimension: Dimension, value: Any) -> Draft:
    if isinstance(dimension.spec, Choices):
        value = dimension.spec.choices[dimension.labels.index(value)]
    key = ".".join(map(_toml.key, dimension.key.split(".")))
    return _said(f"{key} = {_toml.value(value)}", dimension.folder)


def _said(text: str, folder: Path) -> Draft:
    return parse(text, Origin("trial", folder, text))
