"""The suite of kind scheduler."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch

from framework.testing.clock import clocked
from framework.testing.suite import Failure, Report, Suite, require
from framework.testing.values import equal

BEYOND = (0, 1, 2, 10, 1000)
"""Steps after the last that are asked for: a run may be extended."""


@attrs.frozen(kw_only=True)
class SchedulerCase:
    """A scheduler with lengths of runs, in optimizer steps."""

    options: Any
    total_steps: Sequence[int] = (1, 2, 7, 100)

    def build(self, total: int) -> Callable[[int], float]:
        """Build the schedule of a run of so many steps."""
        factor: Callable[[int], float] = self.options.build(total)
        return factor

    def factors(self, total: int) -> list[float]:
        """Factors of every step of a run, by a schedule built anew."""
        factor = self.build(total)
        return [factor(step) for step in range(total)]


def gives_numbers(case: SchedulerCase) -> None:
    """A built schedule is a function from a step to a number, for runs of one step and of many."""
    for total in case.total_steps:
        factor = case.build(total)
        require(
            callable(factor), f"build({total}) returns a {type(factor).__name__}, not a function"
        )
        try:
            value = factor(0)
        except ArithmeticError as error:
            raise Failure(f"factor(0) of {total} steps: {type(error).__name__}: {error}") from error
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        require(number, f"factor(0) of {total} steps is a {type(value).__name__}, not a number")


def factors_are_finite(case: SchedulerCase) -> None:
    """Every step of a run has a finite factor of at least 0."""
    for total in case.total_steps:
        for step, value in enumerate(case.factors(total)):
            _require_finite(value, step, total)


def beyond_the_end_is_safe(case: SchedulerCase) -> None:
    """At the end of a run and after it, factors are finite and at least 0 too."""
    for total in case.total_steps:
        factor = case.build(total)
        for more in BEYOND:
            _require_finite(factor(total + more), total + more, total)


def _require_finite(value: float, step: int, total: int) -> None:
    hint = "; clamp the progress to 1" if step >= total else ""
    require(
        0.0 <= value < float("inf"),
        f"factor({step}) of {total} steps is {value}, not a finite number of at least 0{hint}",
    )


def something_trains(case: SchedulerCase) -> None:
    """In a run of any length, some step's factor is above 0."""
    for total in case.total_steps:
        require(
            any(value > 0 for value in case.factors(total)),
            f"every factor of a run of {total} steps is 0: nothing trains",
        )


def pure_in_the_step(case: SchedulerCase) -> None:
    """The factor of a step is the same whenever it is asked for, in whatever order."""
    for total in case.total_steps:
        expected, factor = case.factors(total), case.build(total)
        steps = range(total)
        for order in (steps, steps[::-1], [*steps[::2], *steps[1::2]]):
            for step in order:
                _require_same(factor(step), expected[step], step, total, "asked for again")


def builds_agree(case: SchedulerCase) -> None:
    """Schedules built from the same options agree, and those of other lengths don't touch them."""
    lengths = list(dict.fromkeys(case.total_steps))
    expected = [case.factors(total) for total in lengths]
    built = [case.build(total) for total in lengths]
    for total, factor, values in zip(lengths, built, expected, strict=True):
        for step in range(total):
            _require_same(factor(step), values[step], step, total, "built beside others")


def draws_no_random_number(case: SchedulerCase) -> None:
    """It leaves the global generators alone: training draws from them."""
    before = _generators()
    for total in case.total_steps:
        case.factors(total)
    require(_generators() == before, "it draws from a global generator; make it a plain formula")


def _generators() -> bytes:
    legacy = np.random.get_state()  # noqa: NPY002 - the global one is meant
    return pickle.dumps((random.getstate(), legacy, torch.get_rng_state().tolist()))


def the_clock_does_not_matter(case: SchedulerCase) -> None:
    """Years later the factors are the same."""
    for total in case.total_steps:
        expected = case.factors(total)
        with clocked(case.options):
            found = case.factors(total)
        for step, value in enumerate(found):
            _require_same(value, expected[step], step, total, "years later")


def _require_same(found: float, expected: float, step: int, total: int, words: str) -> None:
    require(
        equal(found, expected),
        f"factor({step}) of {total} steps is {expected}, and {found} {words}; it may depend on"
        " the step, the total and the options only",
    )


SUITE = Suite(
    "scheduler",
    SchedulerCase,
    (
        gives_numbers,
        factors_are_finite,
        beyond_the_end_is_safe,
        something_trains,
        pure_in_the_step,
        builds_agree,
        draws_no_random_number,
        the_clock_does_not_matter,
    ),
)


def check_scheduler(
    options: Any,
    *,
    total_steps: Sequence[int] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a scheduler against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyScheduler(warmup=0.1)`.
        total_steps: Lengths of the runs that are tried, in optimizer steps; 1 is among the
            default's.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, total_steps=total_steps)
