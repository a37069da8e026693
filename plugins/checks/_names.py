"""How rows tell of many things by name."""

from __future__ import annotations

from framework.errors import listing

_SHOWN = 3
"""Names that a row tells; of the others it tells how many there are."""


def shown(names: list[str]) -> str:
    """Return the first few names, and how many there are besides."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{listing(names[:_SHOWN])}{more}"
