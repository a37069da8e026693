"""The cosine schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from framework.protocols import option
from plugins.schedulers._warmup import WARMUP_HELP, check_warmup, with_warmup


@attrs.frozen
class Cosine:
    """A warm-up, then half a cosine from 1 to 0 (Loshchilov and Hutter, SGDR, ICLR 2017)."""

    warmup: int | float = option(0.0, help=WARMUP_HELP, validator=check_warmup)

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Return factor(step) of the learning rate over `total_steps`; step 0 is the first."""
        return with_warmup(self.warmup, total_steps, _curve)


def _curve(progress: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * progress))
