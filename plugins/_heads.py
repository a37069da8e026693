"""How parts find one head of a model that has several."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from framework.errors import RunError, UserError, listing, nearest
from framework.protocols import Info


def info_of(name: str, info: Info, owner: str) -> Info:
    """Return what a dataset says of a head: all but what it says of others.

    Under `heads` it may say which heads its targets are for, each with the keys of `info` that are
    that head's alone. Raises `UserError` for a head that isn't among them.
    """
    heads: Mapping[str, Collection[str]] = info.get("heads", {name: ()})
    if name not in heads:
        raise UserError(f"{owner}: there is no head '{name}'{nearest(name, heads, 'there are')}")
    others = {key for keys in heads.values() for key in keys} - {*heads[name]}
    return {key: value for key, value in info.items() if key not in others}


def head_of(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return outputs or a batch as a head's own: `NAME_logits` as `logits`, and all the rest.

    Raises `RunError` where nothing belongs to the head.
    """
    prefix = f"{name}_"
    own = {key.removeprefix(prefix): item for key, item in values.items() if key.startswith(prefix)}
    if not own:
        heads = {key.rpartition("_")[0] for key in values if "_" in key}
        raise RunError(
            f"there is no head '{name}': nothing begins with '{prefix}' among"
            f" {listing(values)}{nearest(name, heads)}"
        )
    return {**values, **own}
