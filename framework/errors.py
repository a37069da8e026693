"""What a person is told when something goes wrong: what, where, and what to do, one line each."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs


class UserError(Exception):
    """A mistake in an experiment, an argument or the data. Exit code 2, nothing was written."""

    exit_code = 2


class RunError(Exception):
    """A run that had begun could not go on. Exit code 1; the message says what to do."""

    exit_code = 1


@attrs.frozen
class Problem:
    """One mistake in an experiment, with the place it was made.

    `line` and `column` (code points) count from 1, and are 0 where there is no text to point at;
    `file` is then a file's name, or empty. `via` says how the file was come by.
    """

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    source: str = ""
    """The line that holds the mistake."""
    via: Sequence[str] = ()
    """Where each file was extended, the nearest first: `FILE:LINE:COLUMN`."""

    @property
    def where(self) -> str:
        """The place as `file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def __str__(self) -> str:
        """Return the place and the mistake."""
        return printable(f"{self.where}: {self.message}" if self.where else self.message)


def printable(words: str) -> str:
    """Return a text with a blank in place of whatever could move the cursor or end a line."""
    return "".join(c if c.isprintable() else " " for c in words)


class ExperimentError(UserError):
    """Every mistake found in one experiment, together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems; the message is all of them, in the order they were found."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def nearest(word: str, choices: Iterable[str], otherwise: str = "") -> str:
    """Return `; did you mean 'x'?` for the nearest choice.

    Where none is near, `; `, the words of `otherwise` and all choices, or nothing without words.
    """
    match = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; {otherwise} {listing(choices)}" if otherwise else ""


def listing(words: Iterable[str]) -> str:
    """Return the words quoted, in order, with commas: `'a', 'b'`; `none` when there is none."""
    return ", ".join(f"'{word}'" for word in words) or "none"


def located(cls: type[object]) -> str:
    """Return a class's full name and the file that defines it, as errors of plugins name it."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    return f"{cls.__module__}.{cls.__qualname__}" + (f" in {file}" if file else "")


def fault(error: BaseException) -> str:
    """Return the words of our own errors; of others type and place: they may quote a record."""
    if isinstance(error, (UserError, RunError)):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return type(error).__name__ + "".join(f" at {Path(f.filename).name}:{f.lineno}" for f in last)
