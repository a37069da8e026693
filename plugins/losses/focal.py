"""Focal loss."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, option
from plugins._fitting import check_classes
from plugins.losses._classes import (
    IGNORED,
    Weights,
    check_weights,
    count,
    log_probabilities_BC,
    weights_C,
)


@attrs.frozen
class Focal:
    """Focal loss for any number of classes: hard items count, easy ones fade.

    FL(p_t) = -alpha_t (1 - p_t)^gamma log p_t, equation 5 of Lin et al., "Focal Loss for Dense
    Object Detection" (ICCV 2017), p_t being the softmax probability of the item's class.
    """

    gamma: float = option(
        2.0, help="how fast easy items fade; 0 is cross-entropy", validator=attrs.validators.ge(0.0)
    )
    alpha: Weights = option(
        "balanced",
        help='weight per class: "balanced", "none", or numbers in the order of the labels',
        validator=check_weights,
    )

    def build(self, info: Info) -> LiveFocal:
        """Build it with the class weights of the training split."""
        return LiveFocal(self.gamma, weights_C(self.alpha, info, "alpha"))


@attrs.define(eq=False)
class LiveFocal:
    """Sums over the items with a label; the part is `focal`."""

    gamma: float
    alpha_C: Tensor
    coupled: bool = False

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's record says of it: the class weights in use."""
        return {"alpha": self.alpha_C.tolist()}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Items with a label."""
        return {"focal": count(batch)}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum of FL over the items, float32 or better; `logits` [B, C], `labels` [B]."""
        labels_B = batch["labels"]
        check_classes(labels_B, outputs["logits"], len(self.alpha_C), "loss 'focal'")
        log_BC = log_probabilities_BC(outputs["logits"])
        kept_B = labels_B != IGNORED
        index_B = labels_B.where(kept_B, torch.zeros_like(labels_B))
        log_B = log_BC.gather(-1, index_B.unsqueeze(-1)).squeeze(-1)
        alpha_B = self.alpha_C.to(log_BC)[index_B]
        # 1 - p_t from log p_t keeps its digits near 1; the floor keeps x^gamma's slope finite
        miss_B = (-torch.expm1(log_B)).clamp(min=torch.finfo(log_B.dtype).tiny)
        fade_B = miss_B**self.gamma if self.gamma else torch.ones_like(miss_B)
        loss_B = -alpha_B * fade_B * log_B
        return {"focal": loss_B.where(kept_B, torch.zeros_like(loss_B)).sum()}
