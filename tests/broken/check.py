"""Checks that are wrong on purpose."""

from __future__ import annotations

from typing import Any

from broken import Defect


class Right:
    """A right check; subclasses break a piece each."""

    area: Any = "data"

    def observe(self, probe: Any) -> None:
        """Look at nothing."""


class Nowhere(Right):
    """It is of no area."""

    area = None


class Wide(Right):
    """Its area is no word."""

    area = "data and labels"


class Blind(Right):
    """It is given nothing to look at."""

    def observe(self) -> None:  # type: ignore[override]
        """Look at nothing."""


class Maybe(Right):
    """Whether it costs something is a matter of taste."""

    free = "often"


class Needs(Right):
    """It can't be made without somebody who names it."""

    def __init__(self, share: float) -> None:
        """Keep a number."""
        self.share = share


DEFECTS = [
    Defect("has_the_protocol", Nowhere(), "its 'area' is not one word"),
    Defect("has_the_protocol", Wide(), "its 'area' is not one word"),
    Defect("has_the_protocol", Blind(), "can't be called as observe(probe)"),
    Defect("has_the_protocol", Maybe(), "its 'free' is not True or False"),
    Defect("it_needs_no_options", Needs(0.5), "can't be made without options"),
]
