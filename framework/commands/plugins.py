"""`plugins [KIND [NAME]]`."""

from __future__ import annotations

import argparse
import inspect
import json
from typing import Any

import attrs

from framework.errors import UserError, listing, nearest
from framework.registry import KINDS, Registry

EXAMPLE = "example: python -m framework plugins loss focal"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("kind", nargs="?", help="only this kind, as in loss")
    parser.add_argument("name", nargs="?", help="one plugin, with its options")
    parser.add_argument("--json", action="store_true", help="print objects")


def execute(options: argparse.Namespace) -> int:
    """List from metadata alone; only a plugin that is named is imported."""
    registry = Registry()
    if options.kind and options.kind not in KINDS:
        hint = nearest(options.kind, KINDS) or f"; the kinds are {listing(KINDS)}"
        raise UserError(f"there is no kind '{options.kind}'{hint}")
    if options.name:
        return _one(registry, options.kind, options.name, as_json=options.json)
    kinds = [options.kind] if options.kind else KINDS
    rows = [
        {
            "kind": offer.kind,
            "name": offer.name,
            "distribution": offer.distribution,
            "version": offer.version,
            "object": offer.entry.value,
        }
        for kind in kinds
        for offer in registry.of_kind(kind)
    ]
    if options.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['kind']:<11}{row['name']:<18}{row['distribution']} {row['version']}")
    for kind, name, offers in registry.duplicates():
        owners = " and ".join(f"{offer.distribution} {offer.version}" for offer in offers)
        print(f"warning: {kind} '{name}' is offered by {owners}")
    return 0


def _one(registry: Registry, kind: str, name: str, *, as_json: bool) -> int:
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
    if as_json:
        print(json.dumps({"kind": kind, "name": name, "options": fields}, indent=1))
        return 0
    print(f"{kind} '{offer.name}' of {offer.distribution} {offer.version}")
    print(inspect.getdoc(cls) or "")
    print(f"defined in {inspect.getsourcefile(cls)}:{inspect.getsourcelines(cls)[1]}")
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
