"""What every suite shares: checks run one by one, and a report of all that was found."""

from __future__ import annotations

import copy
import io
import pickle
import random
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch

from framework.errors import listing, nearest


class Failure(AssertionError):  # noqa: N818 - pytest's word for it
    """What a check says of a plugin that breaks its contract: one line, with the figures."""


class Skip(Exception):  # noqa: N818 - it is no error
    """What a check says where the contract does not apply, with the reason."""


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

    def __str__(self) -> str:
        """Render as one line."""
        return f"{self.state:<8} {self.check}: {self.reason or self.claim}"


@attrs.frozen
class Report:
    """The outcomes of one suite over one plugin, in the suite's order."""

    kind: str
    plugin: str
    outcomes: Sequence[Outcome]

    @property
    def failures(self) -> list[Outcome]:
        """What broke the contract."""
        return [outcome for outcome in self.outcomes if outcome.state == "failed"]

    def __str__(self) -> str:
        """Render the failures, or, where there is none, everything."""
        counts = {o.state: sum(p.state == o.state for p in self.outcomes) for o in self.outcomes}
        head = f"{self.kind} {self.plugin}: " + ", ".join(f"{n} {s}" for s, n in counts.items())
        return "\n".join([head, *(f"  {outcome}" for outcome in self.failures or self.outcomes)])


Check = Callable[[Any], None]


@attrs.frozen
class Suite:
    """The checks of one kind: functions of a case whose names and docstrings say the claims."""

    kind: str
    case: Callable[..., Any]
    """Makes the case from the plugin's options and what the author gives beside them."""
    checks: Sequence[Check]

    def run(
        self, options: Any, expected_failures: Mapping[str, str] | None = None, **given: Any
    ) -> Report:
        """Run every check over one plugin; `ConformanceError` holds all that failed.

        `expected_failures` maps names of checks to the reason why they are known to fail; one
        that passes all the same is a failure, so that the list stays true. What is given as
        None is left to the case's own default.
        """
        __tracebackhide__ = True
        expected = dict(expected_failures or {})
        names = [check.__name__ for check in self.checks]
        for name in expected:
            if name not in names:
                hint = nearest(name, names) or f"; the checks are {listing(names)}"
                raise ValueError(f"there is no {self.kind} check '{name}'{hint}")
        chosen = {key: value for key, value in given.items() if value is not None}
        outcomes = [
            self.one(check, options, expected.get(check.__name__), chosen) for check in self.checks
        ]
        report = Report(self.kind, described(options), outcomes)
        if report.failures:
            raise ConformanceError(report)
        return report

    def one(
        self, check: Check, options: Any, expected: str | None, given: Mapping[str, Any]
    ) -> Outcome:
        """Run one check over a case of its own, under a seed of its own."""
        name = check.__name__
        claim = (check.__doc__ or "").split("\n")[0]
        with seeded(0):
            try:
                check(self.case(options=options, **given))
            except Skip as skip:
                return Outcome(name, claim, "skipped", str(skip))
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its failure
                reason = said(error)
                if expected is not None:
                    return Outcome(name, claim, "expected", f"{expected} ({reason})")
                return Outcome(name, claim, "failed", reason)
        if expected is not None:
            reason = f"it passes, though declared to fail ({expected}); remove the declaration"
            return Outcome(name, claim, "failed", reason)
        return Outcome(name, claim, "passed")


def described(options: Any) -> str:
    """Return the class of some options and the file that defines it."""
    cls = type(options)
    return f"{cls.__module__}.{cls.__qualname__}"


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


def frozen_copy(value: Any) -> Any:
    """Return a deep copy in which tensors are detached, to compare with later."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: frozen_copy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(frozen_copy(item) for item in value)
    return copy.deepcopy(value)


def equal(one: Any, other: Any) -> bool:
    """Compare values that may hold tensors, bit for bit; NaN equals NaN."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and bool(np.array_equal(one, other, equal_nan=True))
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return (
            isinstance(one, torch.Tensor)
            and isinstance(other, torch.Tensor)
            and one.dtype == other.dtype
            and one.shape == other.shape
            and bool(torch.equal(one.nan_to_num(), other.nan_to_num()))
            and bool(torch.equal(one.isnan(), other.isnan()))
        )
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == other or (one != one and other != other)  # noqa: PLR0124 - NaN
    return bool(one == other)


def close(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    """Compare tensors to a tolerance, relative to the larger of 1 and the values."""
    scale = max(1.0, float(other.detach().abs().max()) if other.numel() else 1.0)
    return bool(torch.allclose(one.double(), other.double(), rtol=0.0, atol=tolerance * scale))


def reloaded(state: Any) -> Any:
    """Return a state as a checkpoint brings it back: saved, and loaded without unpickling code."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    try:
        return torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        words = "its state can't be loaded safely; keep tensors, numbers, texts, lists and dicts"
        raise Failure(words) from error


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global random generators in this context, and put them back as they were."""
    of_python = random.getstate()
    of_numpy: Any = np.random.get_state(legacy=True)  # noqa: NPY002 - what third parties draw from
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - likewise
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)  # noqa: NPY002 - likewise


def items(values: Mapping[str, Any], chosen: Sequence[int]) -> dict[str, Any]:
    """Return the chosen items of a batch or of outputs: of tensors' first dimension, of lists.

    A tensor without dimensions belongs to no item and is left as it is.
    """
    index = torch.tensor(list(chosen), dtype=torch.int64)
    return {
        key: (value[index] if value.ndim else value)
        if isinstance(value, torch.Tensor)
        else [value[i] for i in chosen]
        for key, value in values.items()
    }
