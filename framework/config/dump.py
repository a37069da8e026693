"""Writing a resolved experiment as TOML that reads back to the same."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framework.registry import KINDS

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")


def key(name: str) -> str:
    """Return a key, quoted where TOML wants it."""
    return name if _BARE.match(name) else _text(name)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def value(item: Any) -> str:
    """Return one value in TOML."""
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, float) and not math.isfinite(item):
        return str(item)
    if isinstance(item, (str, Path)):
        return _text(str(item))
    if isinstance(item, Mapping):
        pairs = ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items() if v is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(item, Sequence):
        return "[" + ", ".join(map(value, item)) + "]"
    return repr(item) if isinstance(item, (int, float)) else str(item)


def document(tree: Mapping[str, Any]) -> str:
    """Return a whole document: plain keys first, then each table under its header.

    Tables go two levels deep as headers (`[callbacks.LABEL]`), deeper ones inline. A value of
    None has no form in TOML and is left out: it stands for an option that is not set.
    """
    lines: list[str] = []
    many = [kind.table for kind in KINDS.values() if kind.many]
    for name, item in tree.items():
        if not isinstance(item, Mapping) and item is not None:
            lines.append(f"{key(name)} = {value(item)}")
    for name, item in tree.items():
        if isinstance(item, Mapping):
            lines += _table(key(name), item, nested=name in many)
    return "\n".join(lines) + "\n"


def _table(header: str, table: Mapping[str, Any], *, nested: bool) -> list[str]:
    inner = {k: v for k, v in table.items() if nested and isinstance(v, Mapping)}
    plain = {k: v for k, v in table.items() if k not in inner and v is not None}
    pairs = [f"{key(k)} = {value(v)}" for k, v in plain.items()]
    lines = ["", f"[{header}]", *pairs] if pairs or not inner else []
    tables = (_table(f"{header}.{key(k)}", v, nested=False) for k, v in inner.items())
    return [*lines, *itertools.chain(*tables)]
