"""Cohen's kappa: agreement beyond what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, option


@attrs.frozen
class Template:
    """Cohen's kappa of labels and predictions (Cohen 1960; weighted, Cohen 1968).

    1 is perfect, 0 is chance; undefined (NaN) where labels and predictions are all of one class.
    """

    weights: Literal["none", "linear", "quadratic"] = option(
        "none", help="what a confusion costs, by the distance of the labels in their order"
    )

    def build(self, info: Info) -> LiveTemplate:
        """Build it for a dataset's labels."""
        classes = torch.arange(len(info["labels"]), dtype=torch.float64)
        distance_CC = (classes.unsqueeze(0) - classes.unsqueeze(1)).abs()
        power = {"none": 0, "linear": 1, "quadratic": 2}[self.weights]
        cost_CC = distance_CC**power if power else (distance_CC > 0).double()
        return LiveTemplate(cost_CC, torch.zeros_like(cost_CC, dtype=torch.int64))


@attrs.define(eq=False)
class LiveTemplate:
    """Counts labels (rows) against predictions (columns); B items, C classes."""

    cost_CC: Tensor
    seen_CC: Tensor

    def names(self) -> Sequence[str]:
        """One value, under the metric's own label."""
        return [""]

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch: `logits` [B, C], `labels` [B], those below 0 being no label."""
        labels_B = batch["labels"]
        kept_B = labels_B >= 0
        count = len(self.cost_CC)
        cell_B = labels_B[kept_B] * count + outputs["logits"].argmax(-1)[kept_B]
        cells = torch.bincount(cell_B.cpu(), minlength=count**2)
        self.seen_CC += cells.view(count, count)

    def merge(self, others: Sequence[LiveTemplate]) -> None:
        """Take in what the other ranks' metrics saw."""
        for other in others:
            self.seen_CC += other.seen_CC

    def compute(self) -> dict[str, float]:
        """One minus the cost of what was seen, over that of chance with the same frequencies."""
        seen_CC = self.seen_CC.double()
        chance_CC = seen_CC.sum(1, keepdim=True) * seen_CC.sum(0, keepdim=True) / seen_CC.sum()
        return {"": float(1 - (self.cost_CC * seen_CC).sum() / (self.cost_CC * chance_CC).sum())}
