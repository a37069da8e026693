"""A confusion matrix kept over a whole split, and the scores that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from framework.errors import UserError
from framework.protocols import Batch, Info, Outputs
from plugins._fitting import check_classes, needed, taken

IGNORED = -100
Average = Literal["binary", "macro", "micro", "weighted"]
Score = Literal["accuracy", "precision", "recall", "f1"]


@attrs.define(eq=False)
class Confusion:
    """Counts of (label, prediction) pairs; exact however the split is batched.

    Scores are scikit-learn's with `labels` all classes and `zero_division=0`: a class without
    labels or predictions scores 0 and is averaged in. Binary takes the last class as positive.
    Over no items at all every score is NaN.
    """

    score: Score
    average: Average
    classes: int
    counts_CC: Tensor = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Start from no items."""
        self.counts_CC = torch.zeros(self.classes, self.classes, dtype=torch.int64)

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Count a batch: `logits` [B, C], `labels` [B]."""
        owner = f"metric '{self.score}'"
        labels_B, logits_BC = taken(batch, "labels", owner), taken(outputs, "logits", owner)
        check_classes(labels_B, logits_BC, self.classes, owner)
        kept_B = labels_B != IGNORED
        pairs_B = labels_B * self.classes + logits_BC.argmax(-1)
        counts = torch.bincount(pairs_B[kept_B].cpu(), minlength=self.classes**2)
        self.counts_CC += counts.view(self.classes, self.classes)

    def merge(self, others: Sequence[Confusion]) -> None:
        """Add the counts of other ranks."""
        for other in others:
            self.counts_CC += other.counts_CC

    def compute(self) -> dict[str, float]:
        """The score."""
        return {"": self._value()}

    def _value(self) -> float:
        counts_CC = self.counts_CC.double()
        total = counts_CC.sum()
        if not total:
            return float("nan")
        hits_C = counts_CC.diagonal()
        if self.score == "accuracy" or self.average == "micro":
            return float(hits_C.sum() / total)  # micro scores of one label an item are accuracy
        values_C = _scores(self.score, hits_C, counts_CC.sum(1), counts_CC.sum(0))
        if self.average == "binary":
            return float(values_C[-1])
        if self.average == "macro":
            return float(values_C.mean())
        return float((values_C * counts_CC.sum(1)).sum() / total)


def _scores(score: Score, hits_C: Tensor, labels_C: Tensor, predictions_C: Tensor) -> Tensor:
    """Return the score of each class; 0 where it would divide by nothing."""
    if score == "precision":
        above_C, below_C = hits_C, predictions_C
    elif score == "recall":
        above_C, below_C = hits_C, labels_C
    else:
        above_C, below_C = 2 * hits_C, labels_C + predictions_C
    return torch.where(below_C > 0, above_C / below_C.clamp(min=1), torch.zeros_like(above_C))


def confusion(score: Score, average: Average, info: Info) -> Confusion:
    """Build a score; `UserError` for a binary average over other than two classes."""
    labels = needed(info, "labels", f"metric '{score}'")
    two = 2
    if average == "binary" and score != "accuracy" and len(labels) != two:
        raise UserError(
            f"metric '{score}': average = \"binary\" needs two labels and there are"
            f' {len(labels)}; write average = "macro", "micro" or "weighted"'
        )
    return Confusion(score, average, len(labels))
