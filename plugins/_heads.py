"""How parts find one head of a model that has several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framework.errors import RunError, listing, nearest


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
