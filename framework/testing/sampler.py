"""The suite of kind sampler."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from framework.protocols import LiveSampler
from framework.testing.clock import clocked
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require, require_takes
from framework.testing.values import equal, seeded
from framework.testing.watching import randomness

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEEDS = range(5)
"""Of the generators that must not all give one order."""
PIECE = 7
"""Records of a step that leaves some over."""


@attrs.frozen
class Epoch:
    """What a sampler is asked for: an order of so many records in steps of so many."""

    lengths: NDArray[np.int64] = attrs.field(eq=False)
    size: int

    def __str__(self) -> str:
        """Return it in words."""
        records = f"{len(self.lengths)} record{'s' * (len(self.lengths) > 1)}"
        return f"{records} in steps of {self.size}"

    def of(self, live: LiveSampler, seed: int = 0) -> Sequence[NDArray[np.int64]]:
        """Ask a sampler for it."""
        return live(self.lengths.copy(), self.size, np.random.default_rng(seed))

    def orders(self, live: LiveSampler, seed: int = 0) -> list[list[int]]:
        """Ask a sampler for the records of each of its steps."""
        return _read(self.of(live, seed))


def _read(steps: Sequence[NDArray[np.int64]]) -> list[list[int]]:
    return [_listed(steps[at]) for at in range(len(steps))]


def _listed(step: Any) -> list[int]:
    found: list[int] = np.asarray(step).tolist()
    return found


@attrs.frozen(kw_only=True)
class SamplerCase:
    """A sampler, and the lengths of a split's records in tokens."""

    options: Any
    lengths: Sequence[int] = tuple(3 + 37 * at % 101 for at in range(120))

    def build(self) -> LiveSampler:
        """Build the live sampler."""
        live: LiveSampler = self.options.build()
        return live

    @property
    def many(self) -> Epoch:
        """An epoch of all records, in steps that leave some over."""
        return Epoch(np.asarray(self.lengths, dtype=np.int64), PIECE)

    def epochs(self) -> Iterator[Epoch]:
        """Give epochs of all records and of one, in steps of one, several, all and more."""
        for count in dict.fromkeys((len(self.lengths), 1)):
            for size in sorted({1, PIECE, count, count + PIECE}):
                yield attrs.evolve(self.many, lengths=self.many.lengths[:count], size=size)


def has_the_protocol(case: SamplerCase) -> None:
    """It has a `budget`, and gives a sequence of steps for lengths, a batch size, a generator."""
    live = case.build()
    require(callable(live), f"build returns a {type(live).__name__}, which can't be called")
    lacking = missing(live, "budget")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require_takes(live, "sampler", "lengths", "batch_size", "rng")
    for epoch in case.epochs():
        steps = epoch.of(live)
        lacking = missing(steps, "__len__", "__getitem__")
        kind = f"of {epoch} it returns a {type(steps).__name__}"
        require(not lacking, f"{kind}, no sequence: it lacks {', '.join(lacking)}")


def budget_is_a_number_of_tokens(case: SamplerCase) -> None:
    """`budget` is a whole number of at least 0, and two builds agree on it."""
    live, again = case.build(), case.build()
    require(
        type(live.budget) is int and live.budget >= 0,
        f"'budget' is {live.budget!r}, no whole number of at least 0 (0: steps aren't cut by it)",
    )
    require(
        live.budget == again.budget, f"'budget' is {live.budget}, and {again.budget} built again"
    )


def steps_hold_numbers_of_records(case: SamplerCase) -> None:
    """A step is an array of whole numbers in one dimension, each from 0 to below the records."""
    for epoch in case.epochs():
        steps = epoch.of(case.build())
        for at in range(len(steps)):
            step, where = steps[at], f"step {at} of {epoch}"
            require(isinstance(step, np.ndarray), f"{where} is a {type(step).__name__}, no array")
            right = step.dtype.kind in "iu" and step.ndim == 1
            shown = f"an array of {step.dtype} with {step.ndim} dimensions"
            require(right, f"{where} is {shown}, not of whole numbers with one")
            odd = [number for number in step.tolist() if not 0 <= number < len(epoch.lengths)]
            require(not odd, f"{where} has the records {odd[:3]}, which are not there")


def each_record_once(case: SamplerCase) -> None:
    """An epoch holds every record once."""
    for epoch in case.epochs():
        found = [number for step in epoch.orders(case.build()) for number in step]
        lost = sorted(set(range(len(epoch.lengths))) - set(found))
        require(not lost, f"an epoch of {epoch} leaves {len(lost)} out, as record {lost[:1]}")
        again = len(found) - len(set(found))
        require(not again, f"an epoch of {epoch} has {again} more than once")


def steps_are_full(case: SamplerCase) -> None:
    """Steps hold `batch_size` records; the last holds what is left over."""
    for epoch in case.epochs():
        sizes = [len(step) for step in epoch.orders(case.build())]
        count = math.ceil(len(epoch.lengths) / epoch.size)
        require(len(sizes) == count, f"{epoch} are {len(sizes)} steps, not {count}")
        left = len(epoch.lengths) - epoch.size * (count - 1)
        require(
            sizes == [epoch.size] * (count - 1) + [left],
            f"steps of {epoch} hold {sizes[:-1][:3]} and at last {sizes[-1]}; only the last may"
            f" be short, and holds {left}",
        )


def steps_can_be_asked_for_at_will(case: SamplerCase) -> None:
    """A step is the same in whatever order they are asked for, again, or when they are walked."""
    for epoch in case.epochs():
        live, rng = case.build(), np.random.default_rng(0)
        expected = epoch.orders(live)
        steps = live(epoch.lengths.copy(), epoch.size, rng)
        rng.random(9)  # whoever gave the generator may draw on
        places = range(len(steps))
        for order in (places[::-1], places, [*places[::2], *places[1::2]]):
            for at in order:
                same = _listed(steps[at]) == expected[at]
                require(
                    same,
                    f"step {at} of {epoch} is another in another order or a second time; draw"
                    " before you return the steps",
                )
        walked = [_listed(step) for step in itertools.islice(iter(steps), len(steps) + 1)]
        require(
            walked == expected,
            f"walked, {epoch} are {len(walked)} steps, other than those by number: after the last"
            " comes IndexError",
        )


def pure_in_its_arguments(case: SamplerCase) -> None:
    """The same lengths, batch size and seed give the same steps, whatever else was drawn."""
    live, epochs = case.build(), list(case.epochs())
    expected = [epoch.orders(live) for epoch in epochs]
    for other in (1, 2):
        with seeded(other):
            for epoch, steps in reversed(list(zip(epochs, expected, strict=True))):
                require(
                    epoch.orders(live) == steps,
                    f"asked again for {epoch}, it gives others; a run that is resumed asks again:"
                    " keep nothing between calls, and draw from the given generator alone",
                )


def lengths_stay_as_they_are(case: SamplerCase) -> None:
    """The given lengths are not changed: every epoch is made of them."""
    live = case.build()
    for epoch in case.epochs():
        given = epoch.lengths.copy()
        _read(live(given, epoch.size, np.random.default_rng(0)))
        same = equal(given, epoch.lengths)
        require(same, f"the lengths of {epoch} are others afterwards; copy them first")


def another_generator_another_order(case: SamplerCase) -> None:
    """Of many records, generators of other seeds don't all give one order."""
    live, epoch = case.build(), case.many
    if len(epoch.lengths) <= PIECE:
        raise Skip(f"{len(epoch.lengths)} records are too few to tell")
    orders = [epoch.orders(live, seed) for seed in SEEDS]
    require(
        any(order != orders[0] for order in orders),
        f"generators of {len(SEEDS)} seeds give one order of {epoch}: every epoch is the same",
    )


def builds_agree(case: SamplerCase) -> None:
    """Samplers built from the same options agree, and those of other records don't touch them."""
    built = [case.build(), case.build()]
    epochs = list(case.epochs())
    asked = [[epoch.of(live) for epoch in epochs] for live in built]
    for epoch, one, other in zip(epochs, *asked, strict=True):
        require(_read(one) == _read(other), f"built again, it gives other steps of {epoch}")
        require(_read(one) == epoch.orders(case.build()), f"beside others, {epoch} are others")


def draws_from_no_global_generator(case: SamplerCase) -> None:
    """It leaves the global generators alone: training draws from them."""
    for epoch in case.epochs():
        before = randomness()
        epoch.orders(case.build())
        after = randomness()
        moved = [name for name in before if not equal(before[name], after[name])]
        words = "which others draw from; use the one that is given"
        require(not moved, f"it moves the global generator of {' and '.join(moved)}, {words}")


def the_clock_does_not_matter(case: SamplerCase) -> None:
    """Years later the steps are the same."""
    for epoch in case.epochs():
        expected = epoch.orders(case.build())
        with clocked(case.options):
            found = epoch.orders(case.build())
        require(found == expected, f"years later it gives other steps of {epoch}")


def steps_travel_to_workers(case: SamplerCase) -> None:
    """The sampler and its steps can be pickled, and are the same in a worker process."""
    live = case.build()
    for epoch in case.epochs():
        steps = epoch.of(live)
        try:
            _, taken = pickle.loads(pickle.dumps((live, steps)))  # noqa: S301 - our own
        except Exception as error:
            kind = type(error).__name__
            raise Failure(f"the sampler or its steps can't be pickled ({kind})") from error
        require(_read(taken) == _read(steps), f"pickled and read back, steps of {epoch} are others")


SUITE = Suite(
    "sampler",
    SamplerCase,
    (
        has_the_protocol,
        budget_is_a_number_of_tokens,
        steps_hold_numbers_of_records,
        each_record_once,
        steps_are_full,
        steps_can_be_asked_for_at_will,
        pure_in_its_arguments,
        lengths_stay_as_they_are,
        another_generator_another_order,
        builds_agree,
        draws_from_no_global_generator,
        the_clock_does_not_matter,
        steps_travel_to_workers,
    ),
)


def check_sampler(
    options: Any,
    *,
    lengths: Sequence[int] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a sampler against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MySampler(budget=4096)`.
        lengths: Of the records of a split, in tokens; a split of the first alone is tried too.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, lengths=lengths)
