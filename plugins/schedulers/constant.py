"""The constant schedule."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from framework.protocols import option
from plugins.schedulers._warmup import WARMUP_HELP, check_warmup, with_warmup


@attrs.frozen
class Constant:
    """A warm-up, then 1 throughout."""

    warmup: int | float = option(0.0, help=WARMUP_HELP, validator=check_warmup)

    def build(self, total_steps: int) -> Flat:
        """Return factor(step) of the learning rate over `total_steps`; step 0 is the first."""
        return Flat(with_warmup(self.warmup, total_steps, _curve))


@attrs.frozen
class Flat:
    """A schedule that says that it is not meant to move the rate."""

    factor: Callable[[int], float]
    steady = True

    def __call__(self, step: int, /) -> float:
        """Return the factor at a step."""
        return self.factor(step)


def _curve(_progress: float) -> float:
    return 1.0
