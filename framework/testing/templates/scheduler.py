"""The inverse square root schedule."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

from framework.protocols import option


@attrs.frozen
class Template:
    """A linear rise to 1, then a fall with the inverse square root of the step.

    As in Vaswani et al., "Attention Is All You Need" (NeurIPS 2017), equation 3, up to a factor:
    here its highest value is 1.
    """

    warmup: float = option(
        0.1,
        help="share of the steps that the rise takes; at least one step",
        validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)],
    )

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Return factor(step) of the learning rate; step 0 is the first, and its factor above 0."""
        rise = max(1, math.ceil(self.warmup * total_steps))

        def factor(step: int) -> float:
            return min((step + 1) / rise, math.sqrt(rise / (step + 1)))

        return factor
