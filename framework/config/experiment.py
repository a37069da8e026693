"""The frozen experiment: every part's options, checked, with all defaults written out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from attrs.validators import ge, le, matches_re

from framework.config import dump, merge
from framework.config.positions import Path as Keys
from framework.config.structure import Part, Structurer
from framework.errors import ExperimentError, Problem, UserError, nearest
from framework.protocols import Training, option
from framework.registry import KINDS, Registry


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
    precision: Part
    strategy: Part
    trainer: Training
    metrics: Mapping[str, Part]
    callbacks: Mapping[str, Part]
    used: Sequence[Part] = attrs.field(repr=False, eq=False)
    """Every component, nested ones too, for the run's record."""
    draft: merge.Draft = attrs.field(repr=False, eq=False)

    def tree(self) -> dict[str, Any]:
        """Return the resolved experiment as plain values, every default written out."""
        told = {field.name: getattr(self, field.name) for field in attrs.fields(Experiment)}
        tree = {
            k: self._plain(v) for k, v in told.items() if k not in ("used", "draft") and v != []
        }
        for kind in KINDS.values():
            if kind.many:
                # what was dropped stays so where this document is extended
                key = str(kind.table)
                given = self.draft.tree.get(key, {}).items()
                tree[key] = {k: v for k, v in given if v is False} | tree[key]
        return tree

    def toml(self, *, origins: bool = False) -> str:
        """Return the resolved experiment as a document that runs again as it stands.

        With `origins`, a comment behind each value says where it came from.
        """
        return dump.document(self.tree(), self.origin if origins else lambda _: "")

    def origin(self, path: Keys) -> str:
        """Say in few words where the value of a path came from."""
        known = self.draft.origins
        found = known.get(path) or (known.get(path[:-1]) if path[-1] == "use" else None)
        return found.short if found else "default"

    def _plain(self, item: Any) -> Any:
        """Return options as plain values; components get their `use` back."""
        item = item.options if isinstance(item, Part) else item
        if attrs.has(type(item)):
            given = [field.name for field in attrs.fields(type(item)) if field.init]
            fields = {name: self._plain(getattr(item, name)) for name in given}
            names = [part.use for part in self.used if part.options is item]
            return {"use": names[0], **fields} if names else fields
        if isinstance(item, Mapping):
            return {key: self._plain(value) for key, value in item.items()}
        return item


@attrs.frozen
class Head:
    """The keys of an experiment that are no component."""

    name: str = option(
        help="names the folder of its runs", validator=matches_re(r"[A-Za-z0-9][A-Za-z0-9._-]*")
    )
    seed: int = option(help="of splits, weights, order, dropout", validator=[ge(0), le(2**63 - 1)])
    requires: list[str] = option([], help="distributions it needs, as 'name>=1.2'")


def load(
    path: Path,
    sets: Sequence[str] = (),
    registry: Registry | None = None,
    tables: Mapping[str, Callable[[Structurer], None]] = MappingProxyType({}),
    *,
    inputs: bool = False,
) -> Experiment:
    """Read, merge and check an experiment; `ExperimentError` holds every mistake in it.

    With `inputs`, a dataset that has a `check` looks for its files before any other plugin is
    loaded: what is missing is told before torch is imported. `tables` checks the tables that
    belong to commands, by key, once everything else is structured.
    """
    draft = merge.read(path, sets)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-._")
    draft.tree.setdefault("name", plain or "experiment")
    structurer = Structurer(draft, registry or Registry(), draft.problems)
    heads = [field.name for field in attrs.fields(Head)]
    meant = ""
    for key in draft.tree:
        if key not in (known := [*heads, *merge.COMPONENTS, "trainer", *tables]):
            hint = nearest(key, known, "the keys are")
            structurer.fail((key,), f"an experiment has no key '{key}'{hint}", at_value=False)
            meant += hint
    table = {key: draft.tree[key] for key in heads if key in draft.tree}
    head = structurer.options(Head, table, (), "the experiment")
    _requirements(structurer, draft.tree.get("requires", []))
    found: dict[str, Any] = {}
    for kind in KINDS.values():
        key = str(kind.table)
        if kind.many:
            found[key] = structurer.components(kind.name, draft.tree[key], (key,))
        elif key in draft.tree:
            found[key] = structurer.component(kind.name, draft.tree[key], (key,))
        elif kind.table and f"mean '{key}'" not in meant:
            structurer.lacks((), f"the experiment names no {key}; write {key} = …")
        if inputs and found.get("dataset") and kind.name == "dataset":
            _check(structurer, found["dataset"].options)
    found["trainer"] = structurer.table(Training, "trainer")
    for key in () if draft.partial else tables.keys() & draft.tree.keys():
        tables[key](structurer)
    if structurer.problems:
        raise ExperimentError(_in_order(structurer.problems))
    return Experiment(**attrs.asdict(head), used=structurer.used, draft=draft, **found)


def _in_order(problems: Sequence[Problem]) -> list[Problem]:
    """Sort problems by line: first those of the file itself, then its parents', then `--set`'s."""
    return sorted(problems, key=lambda p: (p.file == "--set", len(p.via), p.line, p.column))


def _check(structurer: Structurer, dataset: Any) -> None:
    """Let the dataset look for its input files; a failure ends the loading."""
    try:
        getattr(dataset, "check", lambda: None)()
    except UserError as error:
        # the message names the file that is missing: no line of the experiment needs showing
        found = Problem(str(error), structurer.draft.problem(("dataset",), "").where)
        raise ExperimentError([*_in_order(structurer.problems), found]) from None


def _requirements(structurer: Structurer, requires: Any) -> None:
    """Check `requires` against what is installed."""
    if not requires:
        return  # what reads requirements takes as long to import as all the rest
    from packaging.requirements import InvalidRequirement, Requirement

    for index, text in enumerate(requires if isinstance(requires, list) else ()):
        if not isinstance(text, str):
            continue  # already told as a wrong type
        at = ("requires", index)
        try:
            wanted = Requirement(text)
            found = version(wanted.name)
        except InvalidRequirement:
            structurer.fail(at, f"{text!r} is no requirement; write it as 'name>=1.2'")
        except PackageNotFoundError:
            structurer.fail(at, f"'{wanted.name}' is not installed; pip install '{text}'")
        else:
            if not wanted.specifier.contains(found, prereleases=True):
                structurer.fail(at, f"'{text}' is required and {found} is installed")
