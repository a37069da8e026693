"""Generalised cross-entropy: a loss that forgives wrong labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, option

IGNORED = -100
"""Label of an item that has no target; it counts for nothing."""


@attrs.frozen
class Template:
    """Generalised cross-entropy, (1 - p^q) / q, p being the probability of the item's class.

    The L_q loss of Zhang and Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural
    Networks with Noisy Labels" (NeurIPS 2018).
    """

    q: float = option(
        0.7,
        help="how far wrong labels are forgiven: 1 the most; towards 0 it is cross-entropy",
        validator=[attrs.validators.gt(0.0), attrs.validators.le(1.0)],
    )

    def build(self, info: Info) -> LiveTemplate:  # noqa: ARG002 - the data changes nothing in it
        """Build it for a dataset."""
        return LiveTemplate(self.q)


@attrs.frozen
class LiveTemplate:
    """Sums over the items with a label; B items, C classes."""

    q: float
    coupled: bool = False
    facts: Mapping[str, Any] = attrs.field(factory=dict)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Items with a label."""
        return {"generalised": int((batch["labels"] != IGNORED).sum())}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum over those items, float32 or better; `logits` [B, C], `labels` [B]."""
        logits_BC = outputs["logits"]
        # the forward pass may have run in half precision: sums in it lose digits
        logits_BC = logits_BC.to(torch.promote_types(logits_BC.dtype, torch.float32))
        labels_B = batch["labels"]
        kept_B = labels_B != IGNORED
        index_B = labels_B.where(kept_B, torch.zeros_like(labels_B))
        log_B = logits_BC.log_softmax(-1).gather(-1, index_B.unsqueeze(-1)).squeeze(-1)
        loss_B = -torch.expm1(self.q * log_B) / self.q
        return {"generalised": loss_B.where(kept_B, torch.zeros_like(loss_B)).sum()}
