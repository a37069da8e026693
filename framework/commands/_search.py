"""The `[search]` table: which options a search varies, and over what.

```toml
[search]
metric = "val/f1"
direction = "maximize"
trials = 40
sampler = { use = "tpe" }
pruner = { use = "hyperband" }
[search.space]
"optimizer.lr" = { low = 1e-6, high = 1e-4, log = true }
"loss" = { choices = ["focal", "cross_entropy"] }
"loss.gamma" = { low = 0.0, high = 5.0 }      # of a trial whose loss has one
[search.constraints]
"val/recall" = { low = 0.5 }
```

It is checked with the rest of the experiment: a key must be the path of an option, and each
bound and choice a value that the option takes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import ge, min_len

from framework.commands import _engines, _monitors, _paths, _toml
from framework.config.positions import Path as Keys
from framework.config.structure import Structurer
from framework.protocols import option

_DATABASE = re.compile(r"(sqlite|(postgresql|mysql)(\+\w+)?)://.+")


def _storage(_: object, field: attrs.Attribute[str], value: str) -> None:
    if value != "journal" and not _DATABASE.fullmatch(value):
        raise ValueError(
            f"'{field.name}' must be 'journal', or a database as sqlite:///trials.db,"
            " postgresql://… or mysql://…"
        )


@attrs.frozen
class Search:
    """The `[search]` table."""

    metric: str | list[str] = option(
        help="what to improve, as in val/f1, in a trial's best checkpoint; several: their"
        " trade-off",
        metric=True,
    )
    direction: Literal["minimize", "maximize"] | list[Literal["minimize", "maximize"]] = option(
        help="whether lower or higher is better, for each metric"
    )
    trials: int = option(20, help="trials in all, those of before counted", validator=ge(1))
    sampler: str | dict[str, Any] = option(
        "tpe", help="what draws the values, by its name or as a table with its options"
    )
    pruner: str | dict[str, Any] = option(
        "none", help="what ends a trial that an evaluation shows to be poor, likewise"
    )
    storage: str = option(
        "journal",
        help="journal: a file beside the runs; or the address of a database, which several machines"
        " can share",
        validator=_storage,
    )
    keep: int = option(
        1, help="best trials so far whose checkpoints are kept; 0: those of all", validator=ge(0)
    )
    seeds: int = option(
        1, help="runs of a trial, each of another seed, whose mean counts", validator=ge(1)
    )
    retrain: int = option(
        3, help="seeds over which the best is trained again and tested; 0: none", validator=ge(0)
    )
    space: dict[str, dict[str, Any]] = option({}, help="ranges and choices by path of the option")
    constraints: dict[str, dict[str, Any]] = option(
        {}, help="bounds that metrics of a trial must keep, by the metric's name", metric=True
    )

    def __attrs_post_init__(self) -> None:
        """Hold metrics and directions against each other."""
        metrics, directions = self.metrics, self.directions
        if not metrics or len(metrics) != len(directions):
            told = f"{len(metrics)} and {len(directions)}"
            raise ValueError(f"'metric' and 'direction' must be as many, at least one: {told}")

    @property
    def metrics(self) -> list[str]:
        """The metrics, one or several."""
        return [self.metric] if isinstance(self.metric, str) else self.metric

    @property
    def directions(self) -> list[str]:
        """A direction for each."""
        return [self.direction] if isinstance(self.direction, str) else [*self.direction]


@attrs.frozen
class Range:
    """Numbers from `low` to `high`, both among them."""

    low: int | float = option(help="the least value")
    high: int | float = option(help="the greatest value")
    step: int | float = option(0, help="distance of neighbouring values; 0: any", validator=ge(0))
    log: bool = option(False, help="drawn evenly on a logarithmic scale; without a step")

    def __attrs_post_init__(self) -> None:
        """Hold the bounds against each other."""
        if not (self.low < self.high and math.isfinite(self.high - self.low)):
            raise ValueError(f"low = {self.low} must be below high = {self.high}, both finite")
        if self.log and (self.low <= 0 or self.step):
            raise ValueError("a logarithmic range begins above 0 and has no step")


@attrs.frozen
class Choices:
    """One of several values."""

    choices: list[Any] = option(help="the values", validator=min_len(1))


@attrs.frozen
class Bound:
    """What a metric of a trial must keep to."""

    low: int | float | None = option(None, help="the least value")
    high: int | float | None = option(None, help="the greatest value")

    def __attrs_post_init__(self) -> None:
        """Want one of them."""
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both")


@attrs.frozen
class Dimension:
    """One line of the space, checked."""

    key: str
    spec: Range | Choices
    whole: bool
    """Whether the option takes whole numbers alone."""
    labels: Sequence[Any]
    """Of each choice, what stands for it in the storage, which knows no tables."""
    folder: Path
    """What a relative path among the choices starts from."""
    above: str = ""
    """The line that chooses the component which has this option, if one does."""
    where: Sequence[Any] = ()
    """The labels of its choices that have it."""


@attrs.frozen
class Plan:
    """The `[search]` table, checked; its dimensions with those of a component behind it."""

    search: Search
    bounds: Mapping[str, Bound]
    dimensions: Sequence[Dimension]
    folder: Path
    """What a relative path of the storage starts from."""


def check(structurer: Structurer) -> None:
    """Check the table once the rest of the experiment is structured."""
    plan(structurer)


def plan(structurer: Structurer) -> Plan | None:
    """Return the checked table; None where there is a mistake in it, which is told."""
    if structurer.draft.partial:
        return None  # what it names may stand in the file that can't be read
    # with a record of its own of what is used: a choice is no part of the experiment
    scratch, before = attrs.evolve(structurer, used={}), len(structurer.problems)
    search = scratch.table(Search, "search")
    _monitors.check_one(structurer, ("search",))
    # nor can it vary itself
    del scratch.classes["search",]
    bounds = {key: _bound(scratch, key, spec) for key, spec in _tables(structurer, "constraints")}
    dimensions: dict[str, Dimension | None] = {}
    # a component before its options
    for key, spec in sorted(_tables(structurer, "space"), key=lambda item: item[0].count(".")):
        dimensions[key] = _line(scratch, key, spec, dimensions)
    if search is not None:
        _engines_of(structurer, search)
    if len(structurer.problems) > before:
        return None
    made = [dimension for dimension in dimensions.values() if dimension]
    folder = structurer.draft.folder(("search", "storage"))
    return Plan(search, {k: b for k, b in bounds.items() if b}, made, folder)


def _tables(structurer: Structurer, name: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the tables in a table of the search; what is none has been told."""
    table = structurer.draft.tree["search"]
    found = table.get(name) if isinstance(table, dict) else None
    lines = found.items() if isinstance(found, dict) else ()
    return [(key, spec) for key, spec in lines if isinstance(spec, dict)]


def _bound(structurer: Structurer, key: str, spec: dict[str, Any]) -> Bound | None:
    made: Bound | None = structurer.options(Bound, spec, ("search", "constraints", key), f"'{key}'")
    return made


def _engines_of(structurer: Structurer, search: Search) -> None:
    """Check the names and the options of sampler and pruner."""
    for kind in ("sampler", "pruner"):
        given = getattr(search, kind)
        found = _engines.mistake(kind, given, len(search.metrics))
        if found:
            key, message = found
            inside = (key,) if key and isinstance(given, dict) else ()
            at: Keys = ("search", kind, *inside)
            structurer.fail(at, message, at_value=key in ("use", ""))


def _line(
    structurer: Structurer, key: str, spec: dict[str, Any], others: Mapping[str, Dimension | None]
) -> Dimension | None:
    """Check one line of the space: its key names an option, and the option takes its values."""
    at: Keys = ("search", "space", key)
    deeper = [name for name, value in spec.items() if isinstance(value, dict)]
    if deeper:
        path = f'"{key}.{deeper[0]}"'
        structurer.fail(at, f"write the path as one quoted key: {path} = …", at_value=False)
        return None
    cls = Choices if "choices" in spec else Range
    given = structurer.options(cls, spec, at, f"'{key}'")
    above = next((o for o in _paths.around(key) if o in others), "")
    outer = others.get(above)
    if above and outer is None:
        return None  # its own mistake has been told
    found = _paths.found(structurer, key, above, len(outer.labels) if outer else 0)
    if given is None or not found:
        return None
    if cls is Choices:
        values = {(*at, "choices", index): value for index, value in enumerate(given.choices)}
    else:
        values = {(*at, name): spec[name] for name in ("low", "high", "step") if name in spec}
    taken = [
        _taken(structurer, each, place, v) for each in found.values() for place, v in values.items()
    ]
    labels = outer.labels if outer else ()
    return Dimension(
        key,
        given,
        all(type(value) is int for value in taken),
        _labels(given.choices) if cls is Choices else (),
        structurer.draft.folder(at),
        above if outer and found.keys() != {-1} else "",
        [labels[index] for index in found if index >= 0],
    )


def _taken(structurer: Structurer, found: Any, place: Keys, value: Any) -> Any:
    """Check one value against an option, or against a kind of component."""
    if isinstance(found, str):
        return structurer.component(found, value, place)
    # a step needs the option's type, and is no value of it
    field = found.evolve(validator=None) if place[-1] == "step" else found
    return structurer.field(field, value, place, f"'{place[2]}'")


def _labels(choices: Sequence[Any]) -> list[Any]:
    """Return what stands for each choice: itself where it is plain, else its text."""
    plain = all(isinstance(value, (str, int, float)) for value in choices)
    # 1 and true are equal
    return [*choices] if plain and len({*choices}) == len(choices) else [*map(_toml.value, choices)]
