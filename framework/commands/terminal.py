"""What a person sees: the run's messages as they come, and mistakes."""

from __future__ import annotations

import json
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import attrs

from framework.errors import Problem, RunError, UserError, printable

_logger = logging.getLogger("framework")


class _Terminal(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is now, so that a live line can move it aside."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the stream of this moment."""
        self.stream = sys.stderr
        super().emit(record)


def show_log(*, quiet: bool = False) -> None:
    """Send the project's messages to the terminal; called once, by the command line.

    `quiet` leaves out what is neither a warning nor worse.
    """
    handler = next((h for h in _logger.handlers if isinstance(h, _Terminal)), None)
    if handler is None:
        handler = _Terminal()
        handler.setFormatter(logging.Formatter("%(message)s"))
        _logger.addHandler(handler)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    _logger.setLevel(logging.DEBUG)
    _logger.propagate = False


def tell(error: UserError | RunError, *, as_json: bool) -> None:
    """Print what went wrong: to people on stderr, in colour on a terminal, to programs as JSON."""
    problems = getattr(error, "problems", None) or [Problem(str(error))]
    if as_json:
        objects = [{"where": problem.where, **attrs.asdict(problem)} for problem in problems]
        print(json.dumps({"problems": objects}, indent=1))
        return
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    for problem in problems:
        print(text(problem, colour=sys.stderr.isatty() and not plain), file=sys.stderr)


def text(problem: Problem, *, colour: bool = False) -> str:
    """Render as one line, followed by the source line and its caret where there is one."""
    bold, red, plain = ("\x1b[1m", "\x1b[1;31m", "\x1b[0m") if colour else ("", "", "")
    message, source = printable(problem.message), printable(problem.source)
    where = printable(problem.where)
    lines = [f"{bold}{where}:{plain} {message}" if where else message]
    if problem.line:
        # a wide character takes two cells of a terminal, and so must what stands below it
        wide = (unicodedata.east_asian_width(c) in "WF" for c in source[: problem.column - 1])
        indent = "".join("\u3000" if two else " " for two in wide)
        lines += [f"    {source}", f"    {indent}{red}^{plain}"]
    return "\n".join([*lines, *(f"    extended by {printable(place)}" for place in problem.via)])


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Go on where whoever reads the output has left."""
    try:
        yield
    except BrokenPipeError:
        # at exit Python must not try to tell it more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
