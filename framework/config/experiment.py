"""The frozen experiment: every part's options, checked, with all defaults written out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from attrs.validators import ge, le, matches_re

from framework.config import merge
from framework.config.structure import Part, Structurer
from framework.errors import ExperimentError, Problem
from framework.protocols import Training, option
from framework.registry import Registry


@attrs.frozen
class Experiment:
    """One experiment: data only, nothing of it is built yet."""

    name: str
    seed: int
    requires: Sequence[str]
    dataset: Part
    model: Part
    loss: Part
    optimizer: Part
    scheduler: Part
    sampler: Part
    precision: Part
    strategy: Part
    trainer: Training
    metrics: Mapping[str, Part]
    callbacks: Mapping[str, Part]
    used: Sequence[Part] = attrs.field(repr=False, eq=False)
    """Every component, nested ones too, for the run's record."""
    draft: merge.Draft = attrs.field(repr=False, eq=False)


@attrs.frozen
class Head:
    """The keys of an experiment that are no component."""

    name: str = option(
        help="names the folder of its runs",
        validator=matches_re(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"),
    )
    seed: int = option(help="of splits, weights, order, dropout", validator=[ge(0), le(2**63 - 1)])
    requires: list[str] = option([], help="distributions it needs, as 'name>=1.2'")


def load(
    path: Path,
    over: Sequence[merge.Draft] = (),
    registry: Registry | None = None,
    tables: Mapping[str, Callable[[Structurer], None]] = MappingProxyType({}),
) -> Experiment:
    """Read, merge and check an experiment; `ExperimentError` holds every mistake in it.

    `tables` checks keys of the experiment further, each once all up to it are structured. A key
    that only it knows is the table of a command.
    """
    draft = merge.read(path, over)
    tree = draft.tree
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    tree.setdefault("name", plain[:100] or "experiment")
    structurer = Structurer(draft, registry or Registry(), draft.problems)
    heads = attrs.fields_dict(Head)
    keys = dict.fromkeys([*heads, *merge.COMPONENTS, "trainer", *tables])
    meant = structurer.unknown((), tree, keys, "an experiment has no key", "the keys are")
    table = {key: tree[key] for key in heads if key in tree}
    head = structurer.options(Head, table, (), "the experiment")
    found: dict[str, Any] = {}
    for key in keys:
        kind = merge.COMPONENTS.get(key)
        if key == "trainer":
            found[key] = structurer.table(Training, key)
        elif kind and kind.many:
            found[key] = structurer.components(kind.name, tree[key], (key,))
        elif kind and key in tree:
            found[key] = structurer.component(kind.name, tree[key], (key,))
        elif kind and f"mean '{key}'" not in meant:
            structurer.lacks((), f"the experiment names no {key}; write {key} = …")
        if key in tables and key in tree:
            tables[key](structurer)
    if structurer.problems:
        raise ExperimentError(in_order(structurer.problems))
    return Experiment(**attrs.asdict(head), used=[*structurer.used.values()], draft=draft, **found)


def in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Sort problems by line: first those of the file itself, then its parents', then `--set`'s."""
    return sorted(problems, key=lambda p: (p.file == "--set", len(p.via), p.line, p.column))
