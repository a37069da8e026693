"""Names of metrics that options give, as far as they can be known without data."""

from __future__ import annotations

from typing import Any

import attrs

from framework.config.positions import Path as Keys
from framework.config.structure import Structurer
from framework.errors import nearest


def check(structurer: Structurer) -> None:
    """Tell every component's option that names a metric which nobody computes."""
    for path in structurer.classes:
        check_one(structurer, path)


def check_one(structurer: Structurer, path: Keys) -> None:
    """Tell those of one table."""
    labels = structurer.draft.tree["metrics"]
    table: Any = structurer.draft.tree
    for key in path:
        table = table.get(key) if isinstance(table, dict) else None
    known_class = structurer.classes[path]
    if not (isinstance(labels, dict) and isinstance(table, dict) and known_class):
        return
    known = ["val/loss", *(f"val/{k}" for k, v in labels.items() if v is not False)]
    for field in attrs.fields(known_class[1]):
        names = table.get(field.name) if field.metadata.get("metric") else []
        listed = [names] if isinstance(names, str) else names
        # what is of a wrong type has been told as that
        for index, name in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(name, str) and "/".join(name.split("/")[:2]) not in known:
                at = (*path, field.name) + (() if isinstance(names, str) else (index,))
                structurer.lacks(
                    at, f"nothing computes '{name}'{nearest(name, known, 'there are')}"
                )
