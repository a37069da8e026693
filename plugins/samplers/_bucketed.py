"""Steps of records of about one length, in an order that is still random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 16
"""Steps of a sorting window: wide enough to save padding, narrow enough to stay random."""

BLUR = 0.2
"""By how much of itself a length may be overstated where records are sorted by it."""


@attrs.frozen
class LiveBucketed:
    """Shuffles, then sorts by length inside windows of `WINDOW` steps, then shuffles the steps.

    Lengths are blurred for it by up to `BLUR`, so that a record's company changes in a small split
    too. The last step takes those that chance leaves over.
    """

    budget: int = 0

    def __call__(
        self, lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
    ) -> Sequence[NDArray[np.int64]]:
        """Return the steps of an epoch; a window is sorted when one of its steps is asked for."""
        order = rng.permutation(len(lengths))
        blurred = lengths * rng.uniform(1, 1 + BLUR, len(lengths))
        shuffled = rng.permutation(len(order) // batch_size)
        return _Steps(order, blurred, batch_size, shuffled, [False] * (len(shuffled) // WINDOW + 1))


@attrs.frozen(eq=False)
class _Steps(Sequence["NDArray[np.int64]"]):
    order: NDArray[np.int64]
    lengths: NDArray[np.float64]
    size: int
    shuffled: NDArray[np.int64]
    sorted: list[bool]
    """Which windows of the order are, each since one of its steps was asked for."""

    def __len__(self) -> int:
        return len(self.shuffled) + (len(self.shuffled) * self.size < len(self.order))

    @overload
    def __getitem__(self, at: int) -> NDArray[np.int64]: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[NDArray[np.int64]]: ...
    def __getitem__(self, at: int | slice) -> NDArray[np.int64] | Sequence[NDArray[np.int64]]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        at, whole = range(len(self))[at], len(self.shuffled)
        if at == whole:
            return self.order[whole * self.size :]
        window, place = divmod(int(self.shuffled[at]), WINDOW)
        begin = window * WINDOW * self.size
        records = self.order[begin : min(begin + WINDOW * self.size, whole * self.size)]
        if not self.sorted[window]:
            records[:] = records[np.argsort(self.lengths[records])]
            self.sorted[window] = True
        return records[place * self.size : (place + 1) * self.size]
