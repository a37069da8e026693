"""What a person sees: the run's messages as they come, and mistakes."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TextIO

import attrs

from framework.errors import Problem, RunError, UserError

_logger = logging.getLogger("framework")


class _Terminal(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is now, so that a live line can move it aside."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the stream of this moment."""
        self.stream = sys.stderr
        super().emit(record)


def show_log() -> None:
    """Send the project's messages to the terminal; called once, by the command line."""
    handler = _Terminal()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    _logger.addHandler(handler)
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
        print(problem.text(colour=sys.stderr.isatty() and not plain), file=sys.stderr)
