"""The negative log-likelihood of target tokens, summed over a whole split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
import torch

from framework.protocols import Batch, Outputs
from plugins._fitting import taken
from plugins.metrics._confusion import IGNORED


@attrs.define(eq=False)
class Likelihood:
    """A value of the total in nats, and of how many units (tokens, characters) it is over.

    Exact however the split is batched: totals are divided, never means averaged. NaN over nothing.
    """

    value: Callable[[float], float]
    """Makes the metric of nats per unit."""
    unit: str = ""
    """What of the batch counts the units of each label; empty: each counts once."""
    nats: float = 0.0
    units: int = 0

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch: `logits` [..., V], `labels` and maybe units [...]."""
        owner = "a metric of likelihood"
        logits, labels = taken(outputs, "logits", owner).detach(), taken(batch, "labels", owner)
        kept = labels != IGNORED
        log = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        of_label = log.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        self.nats -= float(of_label[kept].sum(dtype=torch.float64))
        self.units += int(taken(batch, self.unit, owner)[kept].sum() if self.unit else kept.sum())

    def merge(self, others: Sequence[Likelihood]) -> None:
        """Add the totals of other ranks."""
        for other in others:
            self.nats += other.nats
            self.units += other.units

    def compute(self) -> dict[str, float]:
        """The value."""
        return {"": self.value(self.nats / self.units) if self.units else math.nan}


def perplexity(nats: float) -> float:
    """Return e to the nats; infinite where that is too large for a float."""
    try:
        return math.exp(nats)
    except OverflowError:
        return math.inf


def bits(nats: float) -> float:
    """Return nats as bits."""
    return nats / math.log(2)
