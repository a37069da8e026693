"""Keys and values in TOML, as they read back to the same."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    if isinstance(item, (str, pathlib.Path)):
        return _text(str(item))
    if isinstance(item, Mapping):
        pairs = ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items() if v is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(item, Sequence):
        return "[" + ", ".join(map(value, item)) + "]"
    return str(item)
