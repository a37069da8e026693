"""The metric token_accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from framework.protocols import Batch, Info, Outputs
from plugins._fitting import taken
from plugins.metrics._confusion import IGNORED


@attrs.frozen
class TokenAccuracy:
    """The share of target tokens whose highest logit is their label's.

    Of a masked-token model that is its masked accuracy.
    """

    def build(self, info: Info) -> LiveTokenAccuracy:  # noqa: ARG002 - not needed here
        """Build it."""
        return LiveTokenAccuracy()


@attrs.define(eq=False)
class LiveTokenAccuracy:
    """Counts of target tokens, and of those that were predicted; NaN over nothing."""

    hits: int = 0
    tokens: int = 0

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Count a batch: `logits` [..., V], `labels` [...]."""
        owner = "metric 'token_accuracy'"
        labels, logits = taken(batch, "labels", owner), taken(outputs, "logits", owner)
        kept = labels != IGNORED
        self.hits += int((logits.argmax(-1) == labels)[kept].sum())
        self.tokens += int(kept.sum())

    def merge(self, others: Sequence[LiveTokenAccuracy]) -> None:
        """Add the counts of other ranks."""
        for other in others:
            self.hits += other.hits
            self.tokens += other.tokens

    def compute(self) -> dict[str, float]:
        """The share."""
        return {"": self.hits / self.tokens if self.tokens else math.nan}
