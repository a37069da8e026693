"""A curriculum: short records tend to come first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs
import numpy as np

from framework.protocols import option

if TYPE_CHECKING:
    from numpy.typing import NDArray


@attrs.frozen
class Template:
    """Easy records first, where short is easy (Bengio et al., "Curriculum Learning", ICML 2009).

    A record's place in an epoch is a mixture of its rank by length and of chance.
    """

    chance: float = option(
        0.5,
        help="share of chance in a record's place; 1: a random order",
        validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)],
    )

    def build(self) -> LiveTemplate:
        """Build it."""
        return LiveTemplate(self.chance)


@attrs.frozen
class LiveTemplate:
    """Cuts an order into steps; `budget` leaves micro-batches to `trainer.micro_batch`."""

    chance: float
    budget: int = 0

    def __call__(
        self, lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator
    ) -> Sequence[NDArray[np.int64]]:
        """Return the records of each step, drawn from `rng` alone: a resumed run asks again."""
        drawn = rng.random(len(lengths))
        # records of one length are ranked by chance
        ranks = np.lexsort((drawn, lengths)).argsort() / len(lengths)
        order = np.argsort((1 - self.chance) * ranks + self.chance * rng.random(len(lengths)))
        return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
