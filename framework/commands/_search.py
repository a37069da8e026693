"""The `[search]` table: which options a search varies, and over what.

```toml
[search]
metric = "val/f1"
direction = "maximize"
[search.space]
"optimizer.lr" = { low = 1e-6, high = 1e-4, log = true }
"loss" = { choices = ["focal", "cross_entropy"] }
```

It is checked with the rest of the experiment: a key must be the path of an option, and each
bound and choice a value that the option takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import attrs
from attrs.validators import ge, min_len

from framework.commands import _monitors
from framework.config.positions import Path as Keys
from framework.config.structure import Structurer
from framework.errors import nearest
from framework.protocols import option


@attrs.frozen
class Search:
    """The `[search]` table."""

    metric: str | list[str] = option(
        help="what to improve, as in val/f1; several: their trade-off", metric=True
    )
    direction: Literal["minimize", "maximize"] | list[Literal["minimize", "maximize"]] = option(
        help="whether lower or higher is better, for each metric"
    )
    trials: int = option(20, help="trials in all", validator=ge(1))
    space: dict[str, dict[str, Any]] = option({}, help="ranges and choices by path of the option")

    def __attrs_post_init__(self) -> None:
        """Hold metrics and directions against each other."""
        metrics, directions = (
            [given] if isinstance(given, str) else given for given in (self.metric, self.direction)
        )
        if not metrics or len(metrics) != len(directions):
            told = f"{len(metrics)} and {len(directions)}"
            raise ValueError(f"'metric' and 'direction' must be as many, at least one: {told}")


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


def check(structurer: Structurer) -> None:
    """Check the table once the rest of the experiment is structured."""
    if structurer.draft.partial:
        return  # what it names may stand in the file that can't be read
    # with a record of its own of what is used: a choice is no part of the experiment
    scratch = attrs.evolve(structurer, used={})
    scratch.table(Search, "search")
    _monitors.check_one(structurer, ("search",))
    # nor can it vary itself
    del scratch.classes["search",]
    table = structurer.draft.tree["search"]
    space = table.get("space") if isinstance(table, dict) else None
    for key, spec in space.items() if isinstance(space, dict) else ():
        if isinstance(spec, dict):
            _line(scratch, key.split("."), spec, ("search", "space", key))


def _line(structurer: Structurer, keys: list[str], spec: dict[str, Any], at: Keys) -> None:
    """Check one line of the space: its key names an option, and the option takes its values."""
    deeper = [name for name, value in spec.items() if isinstance(value, dict)]
    if deeper:
        path = '"' + ".".join([*keys, deeper[0]]) + '"'
        structurer.fail(at, f"write the path as one quoted key: {path} = …", at_value=False)
        return
    cls = Choices if "choices" in spec else Range
    given = structurer.options(cls, spec, at, f"'{at[-1]}'")
    found = _find(structurer, keys, at)
    if given is None or found is None:
        return
    if cls is Choices:
        values = {(*at, "choices", index): value for index, value in enumerate(given.choices)}
    else:
        values = {(*at, name): spec[name] for name in ("low", "high", "step") if name in spec}
    for place, value in values.items():
        if isinstance(found, str):
            structurer.component(found, value, place)
        else:
            # a step needs the option's type, and is no value of it
            field = found.evolve(validator=None) if place[-1] == "step" else found
            structurer.field(field, value, place, f"'{at[-1]}'")


def _find(structurer: Structurer, keys: list[str], at: Keys) -> Any:
    """Return the kind of the component, or the field of the option, that a path names.

    None where it names nothing, which is told, or where its component can't be loaded.
    """
    known = structurer.classes
    path: Keys = ()
    field: Any = None
    for key in keys:
        if field is not None and get_origin(field.type) is dict:
            # a free table, as `model.config`: any key, and values of its type
            return field.evolve(type=get_args(field.type)[-1], validator=None)
        if path in known and known[path] is None:
            return None
        fields = _inside(known, path)
        if key not in fields:
            near = nearest(key, sorted(fields), "there is")
            within = f" in '{'.'.join(map(str, path))}'" if path else ""
            structurer.fail(at, f"no option is named '{key}'{within}{near}", at_value=False)
            return None
        field, path = fields[key], (*path, key)
    kind, _ = known.get(path) or ("", None)
    if not kind and field is None and known.get(path, "") is not None:
        structurer.fail(at, f"'{at[-1]}' names a table, not an option", at_value=False)
    return kind or field


def _inside(known: Mapping[Keys, Any], path: Keys) -> dict[str, Any]:
    """Return the fields of the options at a path, or the labels of the parts there."""
    if path in known:
        return dict(attrs.fields_dict(known[path][1]))
    below = (p for p in known if len(p) > len(path) and p[: len(path)] == path)
    return {str(p[len(path)]): None for p in below}
