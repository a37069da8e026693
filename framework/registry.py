"""The registry of plugins: names from entry points, classes only when an experiment names them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import attrs

from framework.errors import UserError, nearest


@attrs.frozen
class Kind:
    """One kind of part: `table` is the experiment's key for it, `many` makes it labelled.

    It is offered by the entry points of the group `framework.NAME`.
    With `listed`, several may also be given as a list of names, which replaces a parent's.
    """

    name: str
    table: str | None
    many: bool = False
    listed: bool = False
    build: str = "build"
    """The method that its options must have."""


_SINGLE = "dataset model loss optimizer scheduler sampler precision strategy"
_OTHERS = "source=fetch tokenizer=build decoding=build command=execute check=observe"
KINDS: Mapping[str, Kind] = {
    **{name: Kind(name, name) for name in _SINGLE.split()},
    "metric": Kind("metric", "metrics", many=True, listed=True),
    "callback": Kind("callback", "callbacks", many=True),
    **{k: Kind(k, None, build=m) for k, m in (x.split("=") for x in _OTHERS.split())},
}


@attrs.frozen
class Offer:
    """A plugin that an installed distribution offers; nothing of it is imported yet."""

    kind: str
    name: str
    distribution: str
    version: str
    entry: EntryPoint = attrs.field(repr=False, eq=False)

    @property
    def owner(self) -> str:
        """The distribution with its version."""
        return f"{self.distribution} {self.version}"

    def load(self) -> type[Any]:
        """Import the plugin's class; `UserError` names distribution, version and exception."""
        owner = f"{self.kind} '{self.name}' of {self.owner}"
        try:
            cls = self.entry.load()
            if attrs.has(cls):
                attrs.resolve_types(cls, include_extras=False)
        except (Exception, SystemExit) as error:  # a script that was meant to be run ends itself
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            raise UserError(f"{owner} can't be imported ({self.entry.value}): {reason}") from error
        if not (inspect.isclass(cls) and attrs.has(cls)):
            raise UserError(f"{owner} is no attrs class of options ({self.entry.value})")
        method = KINDS[self.kind].build
        if not callable(getattr(cls, method, None)):
            raise UserError(f"{owner} has no method '{method}' ({self.entry.value})")
        return cls


def _scan() -> tuple[Offer, ...]:
    """Read every distribution's entry points once, and its name and version if it has any."""
    every = entry_points()
    owners: dict[int, tuple[str, str]] = {}
    found = []
    for kind in KINDS.values():
        for entry in every.select(group=f"framework.{kind.name}"):
            dist = entry.dist
            if id(dist) not in owners:
                owners[id(dist)] = (dist.name, dist.version) if dist else ("unknown", "?")
            found.append(Offer(kind.name, entry.name, *owners[id(dist)], entry))
    return tuple(sorted(found, key=lambda offer: (offer.kind, offer.name, offer.distribution)))


@attrs.frozen
class Registry:
    """What is offered, by kind and name. An object that is passed in, never a global."""

    offers: tuple[Offer, ...] = attrs.field(factory=_scan)

    def of_kind(self, kind: str) -> list[Offer]:
        """Every offer of one kind, by name."""
        return [offer for offer in self.offers if offer.kind == kind]

    def find(self, kind: str, name: str) -> Offer:
        """Find the one owner of a name; `distribution:name` picks one of several."""
        wanted, _, bare = name.rpartition(":")
        offers = self.of_kind(kind)
        found = [o for o in offers if o.name == bare and wanted in ("", o.distribution)]
        if len(found) == 1:
            return found[0]
        if found:
            owners = " and ".join(o.owner for o in found)
            picks = " or ".join(f"'{o.distribution}:{bare}'" for o in found)
            raise UserError(f"{kind} '{bare}' is offered by {owners}: write {picks}")
        names = sorted({offer.name for offer in offers})
        raise UserError(f"no {kind} is named '{name}'{nearest(bare, names, 'the choices are')}")
