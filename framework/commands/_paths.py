"""What a path of the search's space names, in the experiment or in what a line of it chooses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin

import attrs

from framework.config.positions import Path as Keys
from framework.config.structure import Structurer
from framework.errors import nearest


def around(key: str) -> Iterator[str]:
    """Yield the paths around a path, the nearest first."""
    while "." in key:
        key = key.rpartition(".")[0]
        yield key


def found(structurer: Structurer, key: str, above: str, choices: int) -> dict[int, Any]:
    """Return the kind of the component, or the field of the option, that a path names.

    It is that of each choice of the component around it, by number, which the line `above` varies
    with so many `choices`; that of -1 is the experiment's own. Nothing where it names nothing,
    which is told, or where its component can't be loaded.
    """
    known, at = structurer.classes, ("search", "space", key)
    places: dict[int, Keys] = {-1: ()}
    keys = key.split(".")
    inside = [(*at[:2], above, "choices", index) for index in range(choices)]
    if any(place in known for place in inside):
        places, keys = dict(enumerate(inside)), key.removeprefix(f"{above}.").split(".")
    every = {index: _walked(known, place, keys, above) for index, place in places.items()}
    good = {i: each for i, each in every.items() if each is not None and not _wrong(each)}
    if not good:
        wrong = [each for each in every.values() if _wrong(each)]
        if wrong:
            near = [each for each in wrong if "did you mean" in each[0]]
            structurer.fail(at, (near or wrong)[0][0], at_value=False)
    return good


def _wrong(found: Any) -> bool:
    return isinstance(found, tuple)


def _walked(known: Mapping[Keys, Any], start: Keys, keys: Sequence[str], above: str) -> Any:
    """Follow a path from a place; a kind, a field, None for what can't be loaded, or (message,)."""
    path, field = start, None
    for key in keys:
        if field is not None and get_origin(field.type) is dict:
            # a free table, as `model.config`: any key, and values of its type
            return field.evolve(type=get_args(field.type)[-1], validator=None)
        if path in known and known[path] is None:
            return None
        fields = _inside(known, path)
        if key not in fields:
            near = nearest(key, sorted(fields), "there is")
            outer = above if start else ""
            name = ".".join(filter(None, (outer, *map(str, path[len(start) :]))))
            return (f"no option is named '{key}'" + (f" in '{name}'" if name else "") + near,)
        field, path = fields[key], (*path, key)
    kind, _ = known.get(path) or ("", None)
    if not kind and field is None and known.get(path, "") is not None:
        return (f"'{'.'.join(keys)}' names a table, not an option",)
    return kind or field


def _inside(known: Mapping[Keys, Any], path: Keys) -> dict[str, Any]:
    """Return the fields of the options at a path, or the labels of the parts there."""
    if path in known:
        return dict(attrs.fields_dict(known[path][1]))
    below = (p for p in known if len(p) > len(path) and p[: len(path)] == path)
    return {str(p[len(path)]): None for p in below}
