"""What the callbacks that watch a metric share."""

from __future__ import annotations

import attrs


def check_monitor(_: object, field: attrs.Attribute[str], value: str) -> None:
    """Refuse metrics of the training split: it is never evaluated, so they would wait for ever."""
    if value.startswith("train/"):
        raise ValueError(
            f"'{field.name}' must be a metric of val, the split that is evaluated while training;"
            f" found '{value}'"
        )
