"""Optuna's samplers and pruners by the names that `[search]` gives them, and their options."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
from typing import Any

from framework.errors import nearest

SAMPLERS: Mapping[str, str] = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "gp": "GPSampler",
    "nsgaii": "NSGAIISampler",
    "nsgaiii": "NSGAIIISampler",
    "qmc": "QMCSampler",
}
PRUNERS: Mapping[str, str] = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "threshold": "ThresholdPruner",
}
_GROUPS = {"sampler": SAMPLERS, "pruner": PRUNERS}
_STEADY = ("qmc",)
"""Samplers that go through one sequence, which the same seed gives to every worker."""


def named(given: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of `NAME` or `{ use = NAME, … }`."""
    table = {"use": given} if isinstance(given, str) else dict(given)
    return str(table.pop("use", "")), table


def mistake(kind: str, given: str | Mapping[str, Any], metrics: int) -> tuple[str, str] | None:
    """Return what is wrong with a `sampler` or `pruner`: of which of its keys, and in words."""
    name, options = named(given)
    if name not in _GROUPS[kind]:
        return "use", f"no {kind} is named '{name}'{nearest(name, _GROUPS[kind], 'there are')}"
    if metrics > 1 and kind == "pruner" and name != "none":
        return "", f"{metrics} metrics can't be pruned by: remove 'pruner', or keep one metric"
    if not options:
        return None  # what has none is known to be good without Optuna, whose import takes a while
    known = _known(kind, name)
    for key in options:
        if key not in known:
            return key, f"{kind} '{name}' has no option '{key}'{nearest(key, known, 'there are')}"
    try:
        made(kind, given)
    except (ValueError, TypeError) as error:
        return "", f"{kind} '{name}': {str(error).splitlines()[0]}"
    return None


def made(kind: str, given: str | Mapping[str, Any], seed: int = 0, at: int = 0) -> Any:
    """Make a sampler or pruner; `at` is the trial that a sampler is made for.

    One made anew for each trial draws what depends on the seed and the trials so far alone: a
    search that is interrupted draws the same trials as one that isn't.
    """
    name, options = named(given)
    if kind == "sampler":
        import numpy as np

        words = [seed] if name in _STEADY else [seed, at]
        options["seed"] = int(np.random.SeedSequence(words).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental is nothing to act on
        return _class(kind, name)(**options)


def _class(kind: str, name: str) -> Any:
    import optuna

    # by `getattr`, as each is imported only when it is used
    return getattr(optuna.samplers if kind == "sampler" else optuna.pruners, _GROUPS[kind][name])


def _known(kind: str, name: str) -> list[str]:
    """Return the options that a file can give: the seed is the experiment's."""
    parameters = inspect.signature(_class(kind, name)).parameters
    return [key for key in parameters if key != "seed"]
