"""Schedulers that are wrong on purpose."""

from __future__ import annotations

import itertools
import math
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

from broken import Defect


class ListOfFactors:
    """It returns a list of factors."""

    def build(self, total_steps: int) -> Any:
        """Build it."""
        return [1.0] * total_steps


class TextFactor:
    """Its factors are text."""

    def build(self, _: int) -> Any:
        """Build it."""
        return lambda step: f"1/{step}"


class OneStepDividesByNothing:
    """It interpolates between the first step and the last, which are one in a run of one step."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: max(0.0, 1 - step / (total_steps - 1))


class FullCosine:
    """It goes down to -1."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: math.cos(math.pi * step / total_steps)


class InfiniteStart:
    """Its first factor is infinite."""

    def build(self, _: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: 1 / step if step else math.inf


class BelowZeroAfterTheEnd:
    """It goes on falling after the last step."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: 1 - step / total_steps


class TableOfFactors:
    """It looks factors up in a table that ends with the run."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return [1.0 - step / total_steps for step in range(total_steps)].__getitem__


class RisesFromNothing:
    """Its warm-up begins at 0, and in a run of one step there is nothing else."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: min(step, total_steps) / total_steps


class CountsItsCalls:
    """Its factor depends on how often it was asked."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        calls = itertools.count()
        return lambda _: max(0.0, 1 - next(calls) / total_steps)


class LastTotalWins:
    """It keeps the length of the run in the class, so that the last build decides for all."""

    total = 1

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        type(self).total = total_steps
        return lambda step: max(0.0, 1 - step / self.total)


class OtherEachTime:
    """It draws a phase for each build."""

    def build(self, _: int) -> Callable[[int], float]:
        """Build it."""
        phase = secrets.randbelow(10**9) / 10**9
        return lambda _: phase


class Jitter:
    """It adds chance to a factor."""

    def build(self, _: int) -> Callable[[int], float]:
        """Build it."""
        return lambda _: 1 + random.random()  # noqa: S311 - no secret


class ByTheClock:
    """It falls with the hours that the run takes."""

    def build(self, _: int) -> Callable[[int], float]:
        """Build it."""
        return lambda _: 1.0 / (1 + time.monotonic() // 1e6)


DEFECTS = [
    Defect("gives_numbers", ListOfFactors(), "returns a list, not a function"),
    Defect("gives_numbers", TextFactor(), "is a str, not a number"),
    Defect("gives_numbers", OneStepDividesByNothing(), "factor(0) of 1 steps: ZeroDivisionError"),
    Defect("factors_are_finite", FullCosine(), "not a finite number of at least 0"),
    Defect("factors_are_finite", InfiniteStart(), "factor(0) of 1 steps is inf"),
    Defect("beyond_the_end_is_safe", BelowZeroAfterTheEnd(), "clamp the progress to 1"),
    Defect("beyond_the_end_is_safe", TableOfFactors(), "IndexError"),
    Defect("something_trains", RisesFromNothing(), "every factor of a run of 1 steps is 0"),
    Defect("pure_in_the_step", CountsItsCalls(), "asked for again"),
    Defect("builds_agree", LastTotalWins(), "built beside others"),
    Defect("builds_agree", OtherEachTime(), "built beside others"),
    Defect("draws_no_random_number", Jitter(), "draws from a global generator"),
    Defect("the_clock_does_not_matter", ByTheClock(), "years later"),
]
