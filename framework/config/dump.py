"""Writing a resolved experiment as TOML that reads back to the same."""

from __future__ import annotations

import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from framework.config.positions import Path

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
    if isinstance(item, (str, pathlib.Path)):
        return _text(str(item))
    if isinstance(item, Mapping):
        pairs = ", ".join(f"{key(k)} = {value(v)}" for k, v in item.items() if v is not None)
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(item, Sequence):
        return "[" + ", ".join(map(value, item)) + "]"
    return repr(item) if isinstance(item, (int, float)) else str(item)


def document(tree: Mapping[str, Any], note: Callable[[Path], str] = lambda _: "") -> str:
    """Return a whole document: of each table its plain keys first, then its tables.

    `note` says what stands behind the value of a path, as a comment. A value of None has no form
    in TOML and is left out: it stands for an option that is not set.
    """
    return "\n".join(_lines(tree, (), note)) + "\n"


def _lines(table: Mapping[str, Any], path: Path, note: Callable[[Path], str]) -> Iterator[str]:
    inner = {k: v for k, v in table.items() if isinstance(v, Mapping)}
    plain = {k: v for k, v in table.items() if k not in inner and v is not None}

    def line(text: str, at: Path) -> str:
        # what isn't printable could end the comment
        said = "".join(c if c.isprintable() else " " for c in note(at))
        return f"{text}  # {said}" if said else text

    if path and (plain or not inner):
        header = f"\n[{'.'.join(key(str(k)) for k in path)}]"
        yield header if plain else line(header, path)
    for k, item in plain.items():
        yield line(f"{key(str(k))} = {value(item)}", (*path, k))
    for k, item in inner.items():
        yield from _lines(item, (*path, k), note)
