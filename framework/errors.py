"""What a person is told when something goes wrong: what, where, and what to do, one line each."""

from __future__ import annotations

import difflib
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

    `where` is `file:line:column` (or the command-line argument), `excerpt` the source line and
    a caret under the column; both are empty where there is no text to point at.
    """

    message: str
    where: str = ""
    excerpt: str = ""

    def __str__(self) -> str:
        """Render as one line, followed by the source line and its caret where there is one."""
        line = f"{self.where}: {self.message}" if self.where else self.message
        return f"{line}\n{self.excerpt}" if self.excerpt else line


class ExperimentError(UserError):
    """Every mistake found in one experiment, together."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Keep the problems; the message is all of them, in the order they were found."""
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest choice, or nothing when none is near."""
    match = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean '{match[0]}'?" if match else ""


def listing(words: Iterable[str]) -> str:
    """Return the words quoted, in order, with commas: `'a', 'b'`; `none` when there is none."""
    return ", ".join(f"'{word}'" for word in words) or "none"


def fault(error: BaseException) -> str:
    """Return the words of our own errors; of others type and place: they may quote a record."""
    if isinstance(error, (UserError, RunError)):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return type(error).__name__ + "".join(f" at {Path(f.filename).name}:{f.lineno}" for f in last)
