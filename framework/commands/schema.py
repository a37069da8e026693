"""`schema [FILE]`: the JSON Schema of an experiment, for editors and linters.

A component is an `enum` of names with an `if`/`then` for the options of each: an editor then
says which option is wrong, where a `oneOf` would only say that nothing fits.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import sys
import types
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import attrs
import tomli

from framework.commands._engines import PRUNERS, SAMPLERS
from framework.commands._search import Bound, Choices, Range, Search
from framework.config.experiment import Head
from framework.config.merge import COMPONENTS, DEFAULTS
from framework.errors import UserError
from framework.protocols import Training
from framework.registry import KINDS, Registry

EXAMPLE = "example: python -m framework schema experiments/schema.json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string", Path: "string"}
_BOUNDS = {">=": "minimum", ">": "exclusiveMinimum", "<=": "maximum", "<": "exclusiveMaximum"}
Schema = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "file", type=Path, nargs="?", help="write it there; a file names it: #:schema ./schema.json"
    )


def execute(options: argparse.Namespace) -> int:
    """Write the schema of what is installed now; a plugin that can't be imported is left out."""
    text = json.dumps(schema(Registry()), indent=1, ensure_ascii=False) + "\n"
    if options.file is None:
        print(text, end="")
        return 0
    try:
        options.file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{options.file}: can't write the schema ({error.strerror})") from None
    line = f"#:schema ./{options.file.name}"
    print(f"{options.file}: the schema of what is installed; begin an experiment with '{line}'")
    return 0


def schema(registry: Registry) -> Schema:
    """Return the schema of an experiment made of the plugins that a registry offers.

    A plugin that can't be imported is told in the log and left out.
    """
    found = {kind: _classes(registry, kind) for kind in KINDS}
    definitions: Schema = {}
    for kind, classes in found.items():
        definitions |= {f"{kind}.{name}": _plugin(cls) for name, cls in classes.items()}
        definitions[kind] = _component(registry, kind, classes)
        definitions[f"{kind}.labels"] = _labels(kind, classes)
    top = {str(kind.table): kind for kind in KINDS.values() if kind.table}
    whole = {
        "$schema": DIALECT,
        # without it the linter refuses inline tables of several lines, which we take
        "x-tombi-toml-version": "v1.1.0",
        "title": "An experiment",
        "description": "A dataset, a model, and all that trains one on the other.",
        "type": "object",
        "properties": {
            "extends": {"type": "string", "description": "the file that this one is laid over"},
            **_options(Head)["properties"],
            **{
                key: _ref(f"{kind.name}.labels") if kind.many else _ref(kind.name)
                for key, kind in top.items()
            },
            "trainer": _options(Training),
            "search": _search(),
        },
        "additionalProperties": False,
        # in a file that extends another, what is lacking may stand in the other
        "if": {"not": {"required": ["extends"]}},
        "then": _alone(found),
        "$defs": definitions,
    }
    _open(whole)
    return whole


def _open(schema: Any) -> None:
    """Say of every table that is no options class's that other keys are allowed.

    They are by default, but editors that are strict warn where it isn't said.
    """
    if isinstance(schema, dict):
        for name, inner in [*schema.items()]:
            if name == "if" or (name == "type" and inner == "object"):
                schema.setdefault("additionalProperties", True)
            if name in ("if", "then", "not"):
                inner.setdefault("additionalProperties", True)
            # names of properties are no keywords
            tables = ("properties", "patternProperties", "$defs")
            for item in inner.values() if name in tables else (inner,):
                _open(item)
    elif isinstance(schema, list):
        for item in schema:
            _open(item)


def _classes(registry: Registry, kind: str) -> dict[str, type[Any]]:
    """Import every plugin of a kind, by name; several owners' as `distribution:name`."""
    offers = registry.of_kind(kind)
    owners = Counter(offer.name for offer in offers)
    found = {}
    for offer in offers:
        name = offer.name if owners[offer.name] == 1 else f"{offer.distribution}:{offer.name}"
        try:
            found[name] = offer.load()
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
    return found


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name.replace('/', '~1')}"}


def _required(cls: type[Any]) -> list[str]:
    return [f.name for f in attrs.fields(cls) if f.init and f.default is attrs.NOTHING]


def _component(registry: Registry, kind: str, classes: Mapping[str, type[Any]]) -> Schema:
    """Return the schema of a bare name or a table; one without `use` joins what it is laid over."""
    names = {}
    for name in classes:
        # `distribution:name` picks the owner, also where there is only one
        owners = [o.distribution for o in registry.of_kind(kind) if o.name == name]
        names[name] = [name, *(f"{owner}:{name}" for owner in owners)]
    every = [spelling for spellings in names.values() for spelling in spellings]
    bare = [
        spelling for name in classes if not _required(classes[name]) for spelling in names[name]
    ]
    branches = [
        {
            "if": {"properties": {"use": {"enum": names[name]}}, "required": ["use"]},
            "then": {**_ref(f"{kind}.{name}"), "required": _required(cls)},
        }
        for name, cls in classes.items()
    ]
    return {
        "title": kind,
        "description": f"A {kind} by its name, or a table with `use`.",
        # linters try `if` on tables alone
        "anyOf": [
            {"type": "string", "enum": bare},
            {"type": "object", "properties": {"use": {"enum": every}}, "allOf": branches},
        ],
    }


def _labels(kind: str, classes: Mapping[str, type[Any]]) -> Schema:
    """Return the schema of several components under labels, `use` defaulting to the label."""
    table = {"anyOf": [{"const": False}, _ref(kind)]}
    own = {
        name: {
            "description": _doc(cls),
            "allOf": [table],
            "if": {"type": "object", "not": {"required": ["use"]}},
            "then": _ref(f"{kind}.{name}"),
        }
        for name, cls in classes.items()
    }
    return {
        "title": str(KINDS[kind].table or kind),
        "description": f"Each {kind} under its label; false drops one of the file below.",
        "type": ["array", "object"] if KINDS[kind].listed else "object",
        "items": _ref(kind),
        "properties": own,
        "additionalProperties": table,
    }


def _alone(found: Mapping[str, Mapping[str, type[Any]]]) -> Schema:
    """Return what holds for a file that extends none: only the core's defaults lie below it."""
    defaults = tomli.loads(DEFAULTS.read_text(encoding="utf-8"))
    rules: Schema = {}
    nameless = {"type": "object", "not": {"required": ["use"]}}
    for kind in KINDS.values():
        key = str(kind.table)
        if kind.many:
            lacking = {
                name: {"if": nameless, "then": {"required": needed}}
                for name, cls in found[kind.name].items()
                if (needed := _required(cls))
            }
            unnamed = {"if": {"type": "object"}, "then": {"required": ["use"]}}
            known = dict.fromkeys(found[kind.name], True)
            rules[key] = {
                "properties": {**known, **lacking},
                "patternProperties": {":": True},  # `distribution:name` names the plugin, too
                "additionalProperties": unnamed,
            }
        elif kind.table and key in defaults:
            rules[key] = {"if": nameless, "then": _ref(f"{kind.name}.{defaults[key]}")}
        elif kind.table:
            rules[key] = {"if": {"type": "object"}, "then": {"required": ["use"]}}
    rules["search"] = {"type": "object", "required": _required(Search)}
    lacking_keys = [key for key in COMPONENTS if key not in defaults]
    return {"required": lacking_keys, "properties": rules}


def _options(cls: type[Any]) -> Schema:
    """Return the schema of an options class's table; what is required is said where it is used."""
    attrs.resolve_types(cls, include_extras=False)
    fields = {field.name: _field(field) for field in attrs.fields(cls) if field.init}
    return {
        "title": cls.__name__,
        "description": _doc(cls),
        "type": "object",
        "properties": fields,
        "additionalProperties": False,
    }


def _plugin(cls: type[Any]) -> Schema:
    """Return the schema of a plugin's table: its options, and the name that chose it."""
    found = _options(cls)
    found["properties"]["use"] = {"type": "string"}
    return found


def _doc(cls: type[Any]) -> str:
    return inspect.getdoc(cls) or ""


def _field(field: attrs.Attribute[Any]) -> Schema:
    """Return the schema of an option: its type, the bounds its validators tell, its help."""
    kind = field.metadata.get("kind")
    default = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        default = default.factory()  # type: ignore[union-attr]
    made: Schema
    if kind and isinstance(default, (list, dict)):
        made = {**_ref(f"{kind}.labels")}
    elif kind:
        made = _ref(kind)
    else:
        made = _typed(field.type) | _bounds(field.validator)
    made["description"] = field.metadata.get("help", "")
    with contextlib.suppress(TypeError, ValueError):
        # what JSON can't hold is left out, as is what stands for an option that isn't set
        if default is not None and default is not attrs.NOTHING:
            made["default"] = json.loads(json.dumps(default, allow_nan=False))
    return made


def _typed(hint: Any) -> Schema:
    """Return the schema of a type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        choices = [choice for choice in arguments if type(choice) in _SIMPLE]
        names = sorted({_SIMPLE[type(choice)] for choice in choices})
        return {"type": names[0] if len(names) == 1 else names, "enum": choices}
    if origin in (Union, types.UnionType):
        members = [_typed(member) for member in arguments if member is not types.NoneType]
        if all([*member] == ["type"] for member in members):
            return {"type": list(dict.fromkeys(member["type"] for member in members))}
        return {"anyOf": members}
    if origin is list or hint is list:
        return {"type": "array", "items": _typed(arguments[0]) if arguments else _anything()}
    if origin is dict or hint is dict:
        member = _typed(arguments[1]) if arguments else _anything()
        return {"type": "object", "additionalProperties": member}
    return {"type": _SIMPLE[hint]} if hint in _SIMPLE else _anything()


def _anything() -> Schema:
    return {"additionalProperties": True}


def _bounds(validator: Any) -> Schema:
    """Return the bounds that attrs' own validators hold; others can't be told in a schema."""
    found: Schema = {}
    for each in getattr(validator, "_validators", (validator,)):
        operator, bound = getattr(each, "compare_op", None), getattr(each, "bound", None)
        if operator in _BOUNDS and bound is not None:
            found[_BOUNDS[operator]] = bound
        pattern = getattr(each, "pattern", None)
        if pattern is not None:
            found["pattern"] = f"^(?:{pattern.pattern})$"
    return found


def _search() -> Schema:
    """Return the schema of the `[search]` table."""
    found = _options(Search)
    found["properties"]["space"]["additionalProperties"] = {
        "if": {"required": ["choices"]},
        "then": {**_options(Choices), "required": _required(Choices)},
        "else": {**_options(Range), "required": _required(Range)},
    }
    found["properties"]["constraints"]["additionalProperties"] = _options(Bound)
    for kind, names in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        table = {"type": "object", "properties": {"use": {"enum": [*names]}}, "required": ["use"]}
        given = found["properties"][kind]
        given["anyOf"] = [{"type": "string", "enum": [*names]}, table]
    return found
