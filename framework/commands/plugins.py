"""`plugins [KIND [NAME]] [--check-env]`."""

from __future__ import annotations

import argparse
import inspect
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import attrs

from framework.commands import _installed
from framework.errors import UserError
from framework.registry import KINDS, Offer, Registry
from framework.testing.place import place

EXAMPLE = "example: python -m framework plugins loss focal"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("kind", nargs="?", help="only this kind, as in loss")
    parser.add_argument("name", nargs="?", help="one plugin, with its options")
    parser.add_argument(
        "--check-env",
        action="store_true",
        help="import every plugin, and tell duplicates, unmet requirements and what fails",
    )
    parser.add_argument("--json", action="store_true", help="print objects")


def execute(options: argparse.Namespace) -> int:
    """List without importing anything; only a plugin that is named is imported."""
    registry = Registry()
    if options.kind:
        _installed.check_kind(options.kind)
    if options.name:
        return _one(registry, options.kind, options.name, as_json=options.json)
    kinds = [options.kind] if options.kind else KINDS
    offers = [offer for kind in kinds for offer in registry.of_kind(kind)]
    if options.check_env:
        return _check(offers, as_json=options.json)
    rows = [_row(offer) for offer in offers]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    _print(rows)
    for line in _duplicates(offers):
        print(f"warning: {line}")
    return 0


def _row(offer: Offer) -> dict[str, str]:
    summary, broken = _installed.look(offer)
    return {
        "kind": offer.kind,
        "name": offer.name,
        "distribution": offer.distribution,
        "version": offer.version,
        "object": offer.entry.value,
        "summary": summary,
        "broken": broken,
    }


def _print(rows: Sequence[dict[str, str]]) -> None:
    """Print a table, as wide as its words."""
    owners = [f"{row['distribution']} {row['version']}" for row in rows]
    name, owner = (max(map(len, words), default=0) for words in ([r["name"] for r in rows], owners))
    for row, of in zip(rows, owners, strict=True):
        about = f"broken: {row['broken']}" if row["broken"] else row["summary"]
        print(f"{row['kind']:<11}{row['name']:<{name}}  {of:<{owner}}  {about}".rstrip())


def _duplicates(offers: Sequence[Offer]) -> list[str]:
    """Tell every name of a kind that several distributions offer."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for offer in offers:
        owners[offer.kind, offer.name].append(offer.owner)
    return [
        f"{kind} '{name}' is offered by {' and '.join(found)}; pick one as 'distribution:{name}'"
        for (kind, name), found in owners.items()
        if len(found) > 1
    ]


def _check(offers: Sequence[Offer], *, as_json: bool) -> int:
    """Import everything that is offered; the exit code is 1 where something is wrong."""
    problems = _duplicates(offers)
    for name in dict.fromkeys(offer.distribution for offer in offers):
        problems += [f"{name}: {reason}" for reason in _installed.unmet(name)]
    for offer in offers:
        try:
            offer.load()
        except UserError as error:
            problems.append(str(error))
    if as_json:
        print(json.dumps({"problems": problems}, indent=1))
    else:
        distributions = {offer.distribution for offer in offers}
        print(*problems, sep="\n", end="\n" if problems else "")
        print(
            f"{len(offers)} plugins of {len(distributions)} distributions:"
            f" {len(problems) or 'no'} problem{'' if len(problems) == 1 else 's'}"
        )
    return 1 if problems else 0


def _one(registry: Registry, kind: str, name: str, *, as_json: bool) -> int:
    """Import one plugin and show its class and options."""
    offer = registry.find(kind, name)
    cls = offer.load()
    fields = [
        {
            "name": field.name,
            "type": _type(field.type),
            "default": _default(field),
            "help": field.metadata.get("help", ""),
        }
        for field in attrs.fields(cls)
        if field.init
    ]
    file, line = place(cls)
    where = f"{file}:{line}" if line else file or cls.__module__
    if as_json:
        about = {"doc": inspect.getdoc(cls), "defined_in": where, "options": fields}
        print(json.dumps({**_row(offer), **about}, indent=1))
        return 0
    print(f"{kind} '{offer.name}' of {offer.owner}")
    print(inspect.getdoc(cls) or "")
    print(f"defined in {where}")
    for field in fields:
        print(f"  {field['name']}: {field['type']} = {field['default']}\n      {field['help']}")
    return 0


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _default(field: attrs.Attribute[Any]) -> str:
    if field.default is attrs.NOTHING:
        return "required"
    factory = getattr(field.default, "factory", None)
    return repr(factory() if factory else field.default)
