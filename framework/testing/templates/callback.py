"""Stopping after a number of evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State


@attrs.frozen
class Template:
    """Stops training once the validation split was evaluated so many times."""

    evaluations: int = option(
        5, help="evaluations of the validation split", validator=attrs.validators.ge(1)
    )

    def build(self) -> LiveTemplate:
        """Build it."""
        return LiveTemplate(self.evaluations)


@attrs.define(eq=False)
class LiveTemplate:
    """Counts the evaluations; a hook takes only the arguments that it uses."""

    evaluations: int
    seen: int = 0

    @hookimpl
    def evaluate_end(self, state: State, split: str) -> None:
        """Count, and request the stop."""
        if split != "val":
            return
        self.seen += 1
        if self.seen >= self.evaluations:
            state.stop(f"val was evaluated {self.seen} times")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that a resumed run counts on."""
        return {"seen": self.seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.seen = state["seen"]
