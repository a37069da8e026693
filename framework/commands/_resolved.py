"""A resolved experiment, every default written out, as TOML that reads back to the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from framework.commands._toml import key, value
from framework.config.experiment import Experiment
from framework.config.merge import COMPONENTS
from framework.config.positions import Path
from framework.config.structure import Part


def tree(experiment: Experiment) -> dict[str, Any]:
    """Return the resolved experiment as plain values."""
    told = attrs.asdict(experiment, recurse=False, filter=lambda field, v: field.eq and v != [])
    found = {name: _plain(experiment, item) for name, item in told.items()}
    for name in [name for name, kind in COMPONENTS.items() if kind.many]:
        # what was dropped stays so where this document is extended
        dropped = {k: v for k, v in experiment.draft.tree[name].items() if v is False}
        found[name] = dropped | found[name]
    return found


def toml(experiment: Experiment) -> str:
    """Return the resolved experiment as a document that runs again as it stands."""
    return document(tree(experiment))


def document(table: Mapping[str, Any]) -> str:
    """Return a whole document: of each table its plain keys first, then its tables.

    A value of None has no form in TOML and is left out: it stands for an option that is not set.
    """
    return "".join(f"{text}\n" for text, _ in lines(table))


def lines(table: Mapping[str, Any], path: Path = ()) -> Iterator[tuple[str, Path]]:
    """Yield what a document is made of, each with the path whose value it says, if it says one."""
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    plain = {k: v for k, v in table.items() if k not in inner and v is not None}
    if path and (plain or not inner):
        yield f"\n[{'.'.join(key(str(k)) for k in path)}]", () if plain else path
    for k, item in plain.items():
        yield f"{key(str(k))} = {value(item)}", (*path, k)
    for k, item in inner.items():
        yield from lines(item, (*path, k))


def _plain(experiment: Experiment, item: Any) -> Any:
    """Return options as plain values; components get their `use` back."""
    item = item.options if isinstance(item, Part) else item
    if attrs.has(type(item)):
        given = attrs.asdict(item, recurse=False, filter=lambda field, _: field.init)
        fields = {name: _plain(experiment, inner) for name, inner in given.items()}
        names = [part.use for part in experiment.used if part.options is item]
        return {"use": names[0], **fields} if names else fields
    if isinstance(item, Mapping):
        return {name: _plain(experiment, inner) for name, inner in item.items()}
    return item
