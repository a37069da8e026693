"""Cross-entropy."""

from __future__ import annotations

from typing import Any

import attrs
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from framework.protocols import Batch, Info, Outputs, option
from plugins._fitting import check_classes
from plugins.losses._classes import IGNORED, Weights, check_weights, count, weights_C


@attrs.frozen
class CrossEntropy:
    """Cross-entropy for any number of classes, with class weights and label smoothing.

    Smoothing moves a share of the target to all classes alike (Szegedy et al., "Rethinking the
    Inception Architecture", CVPR 2016, section 7). It is normalised by the number of items,
    not by the sum of their weights as torch's own weighted mean is.
    """

    weights: Weights = option(
        "none",
        help='weight per class: "balanced", "none", or numbers in the order of the labels',
        validator=check_weights,
    )
    label_smoothing: float = option(
        0.0,
        help="share of the target spread over all classes, below 1",
        validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)],
    )

    def build(self, info: Info) -> LiveCrossEntropy:
        """Build it with the class weights of the training split."""
        return LiveCrossEntropy(weights_C(self.weights, info, "weights"), self.label_smoothing)


@attrs.define(eq=False)
class LiveCrossEntropy:
    """Sums over the items with a label; the part is `cross_entropy`."""

    weights_C: Tensor
    label_smoothing: float
    coupled: bool = False
    weighted: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look whether the weights weigh at all."""
        self.weighted = bool((self.weights_C != 1).any())

    @property
    def facts(self) -> dict[str, Any]:
        """What the run's record says of it: the class weights in use."""
        return {"weights": self.weights_C.tolist()}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Items with a label."""
        return {"cross_entropy": count(batch)}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum over the items, float32 or better; `logits` [B, C], `labels` [B]."""
        logits_BC = outputs["logits"]
        check_classes(batch["labels"], logits_BC, len(self.weights_C), "loss 'cross_entropy'")
        logits_BC = logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))
        value = cross_entropy(
            logits_BC,
            batch["labels"],
            weight=self.weights_C.to(logits_BC) if self.weighted else None,
            ignore_index=IGNORED,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return {"cross_entropy": value}
