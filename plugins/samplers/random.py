"""Records in any order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@attrs.frozen
class Random:
    """Steps of records in a random order, whatever their lengths."""

    def build(self) -> LiveRandom:
        """Build it."""
        return LiveRandom()


@attrs.frozen
class LiveRandom:
    """Cuts a permutation into steps."""

    budget: int = 0

    def __call__(
        self, lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
    ) -> Sequence[NDArray[np.int64]]:
        """Return the steps of an epoch."""
        order = rng.permutation(len(lengths))
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
