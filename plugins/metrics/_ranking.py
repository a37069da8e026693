"""Probabilities kept over a whole split, for the metrics of a ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Outputs
from plugins._fitting import check_classes, taken
from plugins.metrics._confusion import IGNORED

Curve = Callable[[Any, Any], float]


@attrs.define(eq=False)
class Ranking:
    """A score of how one class is ranked above the rest, from every item's probability.

    With two classes it is that of the last, the positive one; with more, the mean over classes
    of each against the rest. NaN where a class has no items, or there are no others, or where
    a probability is not finite.
    """

    curve: Callable[[], Curve]
    """Imports the reference's function: (targets, probabilities) -> score."""
    classes: int
    probabilities: list[Tensor] = attrs.field(factory=list, init=False)
    labels: list[Tensor] = attrs.field(factory=list, init=False)

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Keep a batch: `logits` [B, C], `labels` [B]."""
        owner = "a metric of ranking"
        labels_B, logits_BC = taken(batch, "labels", owner), taken(outputs, "logits", owner)
        check_classes(labels_B, logits_BC, self.classes, owner)
        kept_B = labels_B != IGNORED
        self.probabilities.append(logits_BC.detach()[kept_B].double().softmax(-1).cpu())
        self.labels.append(labels_B[kept_B].cpu())

    def merge(self, others: Sequence[Ranking]) -> None:
        """Take in what other ranks kept."""
        for other in others:
            self.probabilities += other.probabilities
            self.labels += other.labels

    def compute(self) -> dict[str, float]:
        """The score."""
        if not sum(map(len, self.labels)):
            return {"": float("nan")}
        labels_N = torch.cat(self.labels)
        probabilities_NC = torch.cat(self.probabilities)
        if not probabilities_NC.isfinite().all():
            return {"": float("nan")}
        two = 2
        positives = [1] if self.classes == two else range(self.classes)
        curve = self.curve()
        values = []
        for index in positives:
            targets_N = labels_N == index
            if targets_N.all() or not targets_N.any():
                return {"": float("nan")}
            values.append(curve(targets_N.numpy(), probabilities_NC[:, index].numpy()))
        return {"": sum(values) / len(values)}
