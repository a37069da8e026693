"""Commands that are wrong on purpose."""

from __future__ import annotations

import argparse
from typing import Any

from broken import Defect


class Right:
    """A right command; subclasses break a piece each."""

    example: Any = "example: python -m framework greet runs/x/1 --loud"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("run", help="a run folder")
        parser.add_argument("--loud", action="store_true", help="in capitals")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Do nothing."""
        return 0


class NoExample(Right):
    """It shows no example."""

    example = None


class Alone(Right):
    """It wants no tools."""

    def execute(self, options: argparse.Namespace) -> int:  # type: ignore[override]
        """Do nothing."""
        return 0


class Needs(Right):
    """It can't be made from the command line."""

    def __init__(self, name: str) -> None:
        """Keep a name."""
        self.name = name


class Mute(Right):
    """It doesn't say what an argument is."""

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the arguments."""
        super().arguments(parser)
        parser.add_argument("--often")


class Outdated(Right):
    """Its example has an argument that is no more."""

    example = "example: python -m framework greet runs/x/1 --louder"


class Elsewhere(Right):
    """Its example is another program's."""

    example = "greet runs/x/1"


DEFECTS = [
    Defect("has_the_protocol", NoExample(), "no text 'example'"),
    Defect("has_the_protocol", Alone(), "can't be called as execute(options, tools)"),
    Defect("it_needs_no_options", Needs("x"), "can't be made without options"),
    Defect("every_argument_has_help", Mute(), "'--often' has no help"),
    Defect("the_example_can_be_parsed", Outdated(), "don't fit its own example"),
    Defect("the_example_can_be_parsed", Elsewhere(), "does not begin with"),
]
