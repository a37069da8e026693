"""Names of metrics that options give, as far as they can be known without data."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
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
    exact, open_ = _known(structurer, [k for k, v in labels.items() if v is not False])
    known = [*exact, *open_]
    for field in attrs.fields(known_class[1]):
        names = table.get(field.name) if field.metadata.get("metric") else []
        listed = [names] if isinstance(names, str) else names
        # what is of a wrong type has been told as that
        for index, name in enumerate(listed if isinstance(listed, (list, dict)) else ()):
            if isinstance(name, str) and name not in exact and not _begins(name, open_):
                inside = name if isinstance(names, dict) else index
                at = (*path, field.name) + (() if isinstance(names, str) else (inside,))
                if not structurer.draft.partial:  # what does may stand in what can't be read
                    message = f"nothing computes '{name}'{nearest(name, known, 'there are')}"
                    structurer.fail(at, message, at_value=not isinstance(names, dict))


def inner(options: Any) -> list[str]:
    """Return the names under a part's own label, where its options have `names`; else none.

    Of a loss these are all that there will be, of a metric what all begin with.
    """
    return list(getattr(options, "names", ()))


def losses(names: Sequence[str]) -> list[str]:
    """Return what an evaluation calls a loss of such parts: a single one is just the loss."""
    return ["val/loss", *(f"val/loss/{name}" for name in names if len(names) > 1)]


def _known(structurer: Structurer, labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of losses, and what those of metrics are or begin with."""
    part = {path: inner(part.options) for path, part in structurer.used.items()}
    parts = [[f"val/{k}/{n}" for n in part.get(("metrics", k), ())] or [f"val/{k}"] for k in labels]
    # of a loss that is wrong itself nothing is known
    begin = [*itertools.chain.from_iterable(parts), *(() if ("loss",) in part else ["val/loss"])]
    return losses(part.get(("loss",), [])), begin


def _begins(name: str, known: Sequence[str]) -> bool:
    return any(f"{name}/".startswith(f"{other}/") for other in known)
