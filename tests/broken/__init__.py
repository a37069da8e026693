"""Plugins that are wrong on purpose: for every check of the kit, at least one that it catches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs


@attrs.frozen
class Defect:
    """A broken plugin, the check that must catch it, and words that its message must hold."""

    check: str
    options: Any
    words: str
    given: Mapping[str, Any] = attrs.field(factory=dict)
    """What is given to the suite beside the options."""

    def __str__(self) -> str:
        """Return `check: Class`, for the list that the test prints."""
        return f"{self.check}: {type(self.options).__name__}"
