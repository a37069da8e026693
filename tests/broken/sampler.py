"""Samplers that are wrong on purpose."""

from __future__ import annotations

import random
import secrets
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from broken import Defect


class Right:
    """A right sampler, and its own options; subclasses break a piece each."""

    budget: Any = 0

    def build(self) -> Any:
        """Build another."""
        return type(self)()

    def __call__(self, lengths: Any, batch_size: int, rng: np.random.Generator) -> Any:
        """Return the steps."""
        return self.cut(self.order(lengths, rng), batch_size)

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records in their order."""
        return rng.permutation(len(lengths))

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return [order[at : at + size] for at in range(0, len(order), size)]


class NoBudget:
    """Its live object is a function."""

    def build(self) -> Any:
        """Build it."""
        return Right().__call__


class NotCallable:
    """Its live object can't be called."""

    def build(self) -> Any:
        """Build it."""
        return SimpleNamespace(budget=0)


class OwnGenerator(Right):
    """It wants no generator."""

    def __call__(self, lengths: Any, batch_size: int) -> Any:  # type: ignore[override]
        """Return the steps."""
        return self.cut(range(len(lengths)), batch_size)


class Generates(Right):
    """Its steps can be walked once."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it, step by step."""
        yield from super().cut(order, size)


class FloatBudget(Right):
    """Its budget is a float."""

    budget = 4096.0


class NoLimit(Right):
    """Its budget says that there is none by a number below 0."""

    budget = -1


class NarrowingBudget(Right):
    """Its budget shrinks with every build."""

    last = 9000

    def build(self) -> Any:
        """Build it."""
        type(self).last -= 1
        made = type(self)()
        made.budget = self.last
        return made


class Lists(Right):
    """Its steps are lists."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return [step.tolist() for step in super().cut(order, size)]


class FloatIndices(Right):
    """Its numbers are floats."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        return super().order(lengths, rng) / 1.0


class Columns(Right):
    """Its steps are tables of one column."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return [step[:, None] for step in super().cut(order, size)]


class CountsFromOne(Right):
    """Its first record is 1."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        return super().order(lengths, rng) + 1


class DropsTheRest(Right):
    """It leaves out what doesn't fill a step."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        whole = super().cut(order, size)
        return [step for step in whole if len(step) == size] or whole


class Resamples(Right):
    """It draws with replacement, but has every record at least once."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        found = super().order(lengths, rng)
        return np.concatenate([found, found[:1]])


class EvenSteps(Right):
    """It makes all steps about as large."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return np.array_split(order, -(-len(order) // size))


class TokenSteps(Right):
    """It makes steps by their tokens, more than asked for."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it in halves."""
        return super().cut(order, max(1, size // 2))


class ShortFirst(Right):
    """What is left over comes first."""

    def cut(self, order: Any, size: int) -> Any:
        """Cut it from the end."""
        return super().cut(order[::-1], size)[::-1]


class Lazy:
    """Steps that are made when they are asked for."""

    def __init__(self, order: Any, size: int) -> None:
        """Keep them."""
        self.steps = Right().cut(order, size)

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, at: int) -> Any:
        return self.steps[at]


class DrawsLate(Right):
    """It shuffles a step when that is asked for."""

    class Steps(Lazy):
        """Steps with a generator."""

        rng: Any = None

        def __getitem__(self, at: int) -> Any:
            return self.rng.permutation(super().__getitem__(at))

    def __call__(self, lengths: Any, batch_size: int, rng: np.random.Generator) -> Any:
        """Return the steps."""
        made = self.Steps(self.order(lengths, rng), batch_size)
        made.rng = rng
        return made


class Endless(Right):
    """After the last step its first comes again."""

    class Steps(Lazy):
        """Steps that go round."""

        def __getitem__(self, at: int) -> Any:
            return super().__getitem__(at % len(self))

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return self.Steps(order, size)


class CountsEpochs(Right):
    """Its order depends on how often it was asked."""

    calls = 0

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records, shifted."""
        self.calls += 1
        return np.roll(super().order(lengths, rng), self.calls)


class ReadsTheGlobal(Right):
    """It draws from the global generator of NumPy, and puts it back."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        before = np.random.get_state()  # noqa: NPY002 - what is wrong with it
        found = np.random.permutation(len(lengths))  # noqa: NPY002 - likewise
        np.random.set_state(before)  # noqa: NPY002 - likewise
        return found if rng.integers(2) else found[::-1]


class SortsInPlace(Right):
    """It sorts what it is given."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        lengths.sort()
        return super().order(lengths, rng)


class LongestFirst(Right):
    """It leaves nothing to chance."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        return np.argsort(-lengths, kind="stable")


class OtherEachTime(Right):
    """It draws a shift for each build."""

    def __init__(self) -> None:
        """Draw it."""
        self.shift = secrets.randbelow(10**9)

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records, shifted."""
        return np.roll(super().order(lengths, rng), self.shift)


class LastSplitWins(Right):
    """It keeps the order in the class, so that the last to be asked decides for all."""

    latest: Any = None

    class Steps(Lazy):
        """Steps of whoever came last."""

        def __getitem__(self, at: int) -> Any:
            return LastSplitWins.latest[at % len(LastSplitWins.latest)]

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        type(self).latest = super().cut(order, size)
        return self.Steps(order, size)


class Shuffles(Right):
    """It shuffles by Python's own generator."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        found = list(range(len(lengths)))
        random.shuffle(found)
        return np.array(found)


class Reseeds(Right):
    """It seeds the global generator, to be sure."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records."""
        np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002 - what is wrong with it
        return np.random.permutation(len(lengths))  # noqa: NPY002 - likewise


class ByTheClock(Right):
    """Its order changes with the years."""

    def order(self, lengths: Any, rng: np.random.Generator) -> Any:
        """Return the records, shifted by some three years each."""
        return np.roll(super().order(lengths, rng), int(time.time() // 1e8))


class HoldsAFunction(Right):
    """It holds a function without a name."""

    def __init__(self) -> None:
        """Keep it."""
        self.key = lambda length: -length


class Forgets(Right):
    """Its steps travel without their order."""

    class Steps(Lazy):
        """Steps that are read back turned round."""

        def __setstate__(self, state: Any) -> None:
            self.steps = state["steps"][::-1]

    def cut(self, order: Any, size: int) -> Any:
        """Cut it."""
        return self.Steps(order, size)


DEFECTS = [
    Defect("has_the_protocol", NoBudget(), "lacks budget"),
    Defect("has_the_protocol", NotCallable(), "which can't be called"),
    Defect("has_the_protocol", OwnGenerator(), "it can't be called as sampler("),
    Defect("has_the_protocol", Generates(), "returns a generator, no sequence"),
    Defect("budget_is_a_number_of_tokens", FloatBudget(), "'budget' is 4096.0"),
    Defect("budget_is_a_number_of_tokens", NoLimit(), "'budget' is -1"),
    Defect("budget_is_a_number_of_tokens", NarrowingBudget(), "built again"),
    Defect("steps_hold_numbers_of_records", Lists(), "is a list, no array"),
    Defect("steps_hold_numbers_of_records", FloatIndices(), "an array of float64"),
    Defect("steps_hold_numbers_of_records", Columns(), "with 2 dimensions"),
    Defect("steps_hold_numbers_of_records", CountsFromOne(), "[120], which are not there"),
    Defect("each_record_once", DropsTheRest(), "leaves 1 out"),
    Defect("each_record_once", Resamples(), "has 1 more than once"),
    Defect("steps_are_full", EvenSteps(), "only the last may be short"),
    Defect("steps_are_full", TokenSteps(), "120 records in steps of 7 are 40 steps, not 18"),
    Defect("steps_are_full", ShortFirst(), "only the last may be short"),
    Defect("steps_can_be_asked_for_at_will", DrawsLate(), "draw before you return the steps"),
    Defect("steps_can_be_asked_for_at_will", Endless(), "after the last comes IndexError"),
    Defect("pure_in_its_arguments", CountsEpochs(), "keep nothing between calls"),
    Defect("pure_in_its_arguments", ReadsTheGlobal(), "draw from the given generator alone"),
    Defect("lengths_stay_as_they_are", SortsInPlace(), "copy them first"),
    Defect("another_generator_another_order", LongestFirst(), "every epoch is the same"),
    Defect("builds_agree", OtherEachTime(), "built again, it gives other steps"),
    Defect("builds_agree", LastSplitWins(), "beside others"),
    Defect("draws_from_no_global_generator", Shuffles(), "the global generator of Python"),
    Defect("draws_from_no_global_generator", Reseeds(), "the global generator of NumPy"),
    Defect("the_clock_does_not_matter", ByTheClock(), "years later"),
    Defect("steps_travel_to_workers", HoldsAFunction(), "can't be pickled"),
    Defect("steps_travel_to_workers", Forgets(), "pickled and read back"),
]
