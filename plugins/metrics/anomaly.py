"""The metric anomaly."""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs
import torch
from torch import Tensor

from framework.errors import UserError
from framework.protocols import Batch, Info, Outputs, option
from plugins._sessions import abnormal
from plugins._surprise import surprise


@attrs.frozen
class Anomaly:
    """How well abnormal items are told by the mean loss of their tokens.

    `auroc` is the area under the ROC curve, `average_precision` that under precision and recall,
    both scikit-learn's. Neither needs a threshold: the command `anomalies` chooses one on the
    validation split and applies it to the test split. NaN where only one kind of items is there.
    """

    positive: str = option(
        "", help="label of what is abnormal; empty: the one not trained on, or 1 of 0 and 1"
    )

    def build(self, info: Info) -> LiveAnomaly:
        """Build it; `UserError` where there is no such label, or no other."""
        try:
            return LiveAnomaly(abnormal(info, self.positive))
        except UserError as error:
            raise UserError(f"metric 'anomaly': {error}") from None


@attrs.define(eq=False)
class LiveAnomaly:
    """Scores and labels of every item that has both."""

    positive: int
    scores: list[Tensor] = attrs.field(factory=list)
    labels: list[Tensor] = attrs.field(factory=list)

    def names(self) -> Sequence[str]:
        """Two areas."""
        return ["auroc", "average_precision"]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Score a batch: `logits` [B, T, V], `labels` [B, T], `item_labels` [B]."""
        scores_B = surprise(outputs, batch).double().cpu()
        kept_B = (batch["labels"] >= 0).any(1).cpu()
        self.scores.append(scores_B[kept_B])
        self.labels.append(batch["item_labels"].cpu()[kept_B])

    def merge(self, others: Sequence[LiveAnomaly]) -> None:
        """Take in what other ranks kept."""
        for other in others:
            self.scores += other.scores
            self.labels += other.labels

    def compute(self) -> dict[str, float]:
        """Both areas; NaN also where a score is not finite."""
        from sklearn.metrics import average_precision_score, roc_auc_score

        curves = dict(zip(self.names(), (roc_auc_score, average_precision_score), strict=True))
        none = torch.zeros(0)
        scores_N = torch.cat([none, *self.scores])
        targets_N = torch.cat([none, *self.labels]) == self.positive
        if targets_N.all() or not targets_N.any() or not scores_N.isfinite().all():
            return dict.fromkeys(curves, math.nan)
        given = targets_N.numpy(), scores_N.numpy()
        return {name: float(curve(*given)) for name, curve in curves.items()}
