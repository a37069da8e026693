"""What the schedulers share: the warm-up before their own curve."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs

WARMUP_HELP = "steps of linear rise: a fraction of all (0.1), or a whole number of steps"


def check_warmup(_: object, field: attrs.Attribute[float], value: float) -> None:
    """Refuse a warm-up that is neither a fraction nor a number of steps."""
    if not (value >= 0 and (isinstance(value, int) or value < 1)):
        raise ValueError(f"'{field.name}' must be a fraction from 0 to below 1, or whole steps")


def with_warmup(
    warmup: float, total_steps: int, curve: Callable[[float], float]
) -> Callable[[int], float]:
    """Return factor(step): a rise that reaches 1 on its last step, then curve(progress).

    Step 0 is the first. No step has a factor of 0 in the rise: its first is 1 / its length.
    Progress runs from 0, at the first step after the rise, towards 1, one past the last step.
    """
    rise = math.ceil(warmup * total_steps) if isinstance(warmup, float) else warmup
    rise = min(rise, total_steps)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        # a run that goes on longer stays where the curve ended
        return curve(min(1.0, (step - rise) / max(total_steps - rise, 1)))

    return factor
