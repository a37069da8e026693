"""What every suite shares: checks run one by one, and a report of all that was found."""

from __future__ import annotations

import inspect
import io
import pickle
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch

from framework.errors import UserError, listing, located, nearest
from framework.testing.values import seeded


class Failure(AssertionError):  # noqa: N818 - pytest's word for it
    """What a check says of a plugin that breaks its contract: one line, with the figures."""


class Skip(Exception):  # noqa: N818 - it is no error
    """What a check says where the contract does not apply, with the reason."""


class Absent(Skip):
    """What a check says where a device or other ranks are not there; all checks may say so."""


class ConformanceError(AssertionError):
    """Every check that a plugin failed, together."""

    def __init__(self, report: Report) -> None:
        """Keep the report; the message is its failures."""
        super().__init__(str(report))
        self.report = report


@attrs.frozen
class Outcome:
    """What one check found; `expected` is a failure that was declared, with its reason."""

    check: str
    claim: str
    state: Literal["passed", "failed", "skipped", "expected"]
    reason: str = ""
    absent: bool = False
    """True where it was skipped for want of a device or of ranks."""

    def __str__(self) -> str:
        """Render as one line."""
        return f"{self.state:<8} {self.check}: {self.reason or self.claim}"


@attrs.frozen
class Report:
    """The outcomes of one suite over one plugin, in the suite's order."""

    kind: str
    plugin: str
    """The options' class."""
    file: str
    """The file that defines it; empty where there is none."""
    outcomes: Sequence[Outcome]

    @property
    def failures(self) -> list[Outcome]:
        """What broke the contract."""
        return [outcome for outcome in self.outcomes if outcome.state == "failed"]

    def __str__(self) -> str:
        """Render the failures, or, where there is none, everything; then the file."""
        counts = {o.state: sum(p.state == o.state for p in self.outcomes) for o in self.outcomes}
        head = f"{self.kind} {self.plugin}: " + ", ".join(f"{n} {s}" for s, n in counts.items())
        lines = [f"  {outcome}" for outcome in self.failures or self.outcomes]
        return "\n".join([head, *lines, *([f"  in {self.file}"] if self.file else [])])


Check = Callable[[Any], None]


@attrs.frozen
class Suite:
    """The checks of one kind: functions of a case whose names and docstrings say the claims.

    The first is of the protocol: where it fails, the others are not run, for each would only tell
    the same fault in other words.
    """

    kind: str
    case: Callable[..., Any]
    """Makes the case from the plugin's options and what the author gives beside them."""
    checks: Sequence[Check]
    method: str = "build"
    """What the options have, whatever they are."""

    def run(
        self, options: Any, expected_failures: Mapping[str, str] | None = None, **given: Any
    ) -> Report:
        """Run every check over one plugin; `ConformanceError` holds all that failed.

        `expected_failures` maps names of checks to the reason why they are known to fail; one
        that passes all the same is a failure, so that the list stays true. What is given as
        None is left to the case's own default. That everything was skipped is a failure too,
        unless it was for want of a device or of ranks.
        """
        __tracebackhide__ = True
        expected = dict(expected_failures or {})
        names = [check.__name__ for check in self.checks]
        for name in expected:
            if name not in names:
                hint = nearest(name, names) or f"; the checks are {listing(names)}"
                raise ValueError(f"there is no {self.kind} check '{name}'{hint}")
        chosen = {key: value for key, value in given.items() if value is not None}
        outcomes: list[Outcome] = []
        if fault := self._fault(options):
            outcomes.append(Outcome(names[0], _claim(self.checks[0]), "failed", fault))
        for check in self.checks[len(outcomes) :]:
            if outcomes and outcomes[0].state == "failed" and (fault or names[0] not in expected):
                reason = f"not run: {names[0]} failed first"
                outcomes.append(Outcome(check.__name__, _claim(check), "skipped", reason))
            else:
                outcomes.append(self.one(check, options, expected.get(check.__name__), chosen))
        if all(o.state == "skipped" for o in outcomes) and not all(o.absent for o in outcomes):
            reasons = "; ".join(dict.fromkeys(o.reason for o in outcomes))
            claim = "At least one check applies."
            found = Outcome(
                "something_is_checked", claim, "failed", f"nothing was checked: {reasons}"
            )
            outcomes.append(found)
        cls = options if isinstance(options, type) else type(options)
        plugin, _, file = located(cls).partition(" in ")
        report = Report(self.kind, plugin, file, outcomes)
        if report.failures:
            raise ConformanceError(report)
        return report

    def one(
        self, check: Check, options: Any, expected: str | None, given: Mapping[str, Any]
    ) -> Outcome:
        """Run one check over a case of its own, under a seed of its own."""
        name, claim = check.__name__, _claim(check)
        with seeded(0):
            try:
                check(self.case(options=options, **given))
            except Skip as skip:
                absent = isinstance(skip, Absent)
                return Outcome(name, claim, "skipped", str(skip), absent=absent)
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its failure
                reason = said(error)
                if expected is not None:
                    return Outcome(name, claim, "expected", f"{expected} ({reason})")
                return Outcome(name, claim, "failed", reason)
        if expected is not None:
            reason = f"it passes, though declared to fail ({expected}); remove the declaration"
            return Outcome(name, claim, "failed", reason)
        return Outcome(name, claim, "passed")

    def _fault(self, options: Any) -> str:
        """Return what is wrong with the options as such, or nothing."""
        takes = f"check_{self.kind} takes an instance of the options"
        if isinstance(options, type):
            return f"{takes}, as in {options.__name__}(…), and not the class"
        if isinstance(options, str):
            return f"{takes}, as in MyPlugin(…), and not the text {options!r}"
        if not callable(getattr(options, self.method, None)):
            return f"{type(options).__qualname__} lacks {self.method}"
        return ""


def _claim(check: Check) -> str:
    return (check.__doc__ or "").split("\n")[0]


def said(error: BaseException) -> str:
    """Return a failure's own words; of any other error type, words and place, on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, Failure):
        return text
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}:{last.lineno})"


def require(condition: object, message: str) -> None:
    """Raise `Failure` with the message unless the condition holds."""
    if not condition:
        raise Failure(message)


def missing(live: object, *names: str) -> list[str]:
    """Return those of the names that a live object lacks."""
    return [name for name in names if not hasattr(live, name)]


def require_takes(method: Callable[..., Any], name: str, *arguments: str) -> None:
    """Require that a method can be called with these arguments, in their order."""
    try:
        inspect.signature(method).bind(*arguments)
    except TypeError as error:
        call = f"{name}({', '.join(arguments)})"
        raise Failure(f"it can't be called as {call}: {error}") from error


def not_built(error: UserError) -> Skip:
    """Return why nothing can be checked where building is refused: absent devices, ranks, or else.

    A strategy that joins ranks is not to blame outside torchrun, which starts them.
    """
    words = r"\b(cpu|cuda|gpu|mps|xpu|devices?|ranks?|torchrun)\b"
    absent = re.search(words, str(error), re.IGNORECASE)
    return (Absent if absent else Skip)(f"it can't be built here: {error}")


def reloaded(state: Any) -> Any:
    """Return a state as a checkpoint brings it back: saved, and loaded without unpickling code."""
    file = io.BytesIO()
    try:
        torch.save(state, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError) as error:
        words = "its state can't be loaded safely; keep tensors, numbers, texts, lists and dicts"
        raise Failure(f"{words} ({type(error).__name__})") from error
