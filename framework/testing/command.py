"""The suite of kind command: what can be known of one before it does anything."""

from __future__ import annotations

import argparse
import contextlib
import io
import shlex
from collections.abc import Mapping
from typing import Any

import attrs

from framework.testing.suite import Failure, Report, Suite, require, require_takes

HEAD = "example: python -m framework "


@attrs.frozen(kw_only=True)
class CommandCase:
    """A command."""

    options: Any

    def parser(self) -> argparse.ArgumentParser:
        """Return a parser with the command's arguments."""
        parser = argparse.ArgumentParser(prog="command")
        self.options.arguments(parser)
        return parser


def has_the_protocol(case: CommandCase) -> None:
    """It has `example`, `arguments(parser)` and `execute(options, tools)`."""
    command = case.options
    require(isinstance(getattr(command, "example", None), str), "it has no text 'example'")
    for name, *takes in (("arguments", "parser"), ("execute", "options", "tools")):
        require(callable(getattr(command, name, None)), f"it lacks {name}({', '.join(takes)})")
        require_takes(getattr(command, name), name, *takes)


def it_needs_no_options(case: CommandCase) -> None:
    """Its class is called without arguments: what it takes stands on the command line."""
    try:
        type(case.options)()
    except (TypeError, ValueError) as error:
        raise Failure(f"it can't be made without options: {error}") from error


def every_argument_has_help(case: CommandCase) -> None:
    """Each argument that it declares says what it is."""
    for action in case.parser()._actions:  # noqa: SLF001 - argparse has no other list of them
        name = "/".join(action.option_strings) or action.dest
        require(action.help, f"the argument '{name}' has no help")


def the_example_can_be_parsed(case: CommandCase) -> None:
    """`example` is a line that the command takes: `example: python -m framework NAME …`."""
    example = case.options.example
    require(example.startswith(HEAD), f"'example' does not begin with '{HEAD}'")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            case.parser().parse_args(shlex.split(example.removeprefix(HEAD))[1:])
    except SystemExit as error:
        words = said.getvalue().strip().splitlines()[-1:]
        raise Failure(f"its arguments don't fit its own example: {' '.join(words)}") from error


SUITE = Suite(
    "command",
    CommandCase,
    (has_the_protocol, it_needs_no_options, every_argument_has_help, the_example_can_be_parsed),
    method="execute",
)


def check_command(options: Any, *, expected_failures: Mapping[str, str] | None = None) -> Report:
    """Hold a command against its contract; `ConformanceError` tells every check that fails.

    Nothing is executed: test what it does by its own tests.

    Args:
        options: The plugin, as in `MyCommand()`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures)
