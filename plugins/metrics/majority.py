"""The metric majority."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from framework.errors import UserError
from framework.protocols import Batch, Info, Outputs
from plugins._fitting import needed, taken
from plugins.metrics._confusion import IGNORED


@attrs.frozen
class Majority:
    """The accuracy of always answering with the most frequent label of the training split.

    What a model is to be compared with: it looks at no output. The first of several such labels.
    """

    def build(self, info: Info) -> LiveMajority:
        """Build it for a dataset's counts of classes."""
        counts: Sequence[int] = needed(info, "class_counts", "metric 'majority'")
        return LiveMajority(max(range(len(counts)), key=counts.__getitem__))


@attrs.define(eq=False)
class LiveMajority:
    """Counts items with that label."""

    answer: int
    hits: int = 0
    items: int = 0

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:  # noqa: ARG002 - only labels count
        """Count a batch: `labels` [B]."""
        labels_B = taken(batch, "labels", "metric 'majority'")
        if labels_B.ndim != 1:
            raise UserError(
                f"metric 'majority' needs labels [B], and the model gives {[*labels_B.shape]};"
                " it is for classes: use another"
            )
        self.hits += int((labels_B == self.answer).sum())
        self.items += int((labels_B != IGNORED).sum())

    def merge(self, others: Sequence[LiveMajority]) -> None:
        """Add the counts of other ranks."""
        for other in others:
            self.hits += other.hits
            self.items += other.items

    def compute(self) -> dict[str, float]:
        """Give the share; NaN over no items."""
        return {"": self.hits / self.items if self.items else math.nan}
