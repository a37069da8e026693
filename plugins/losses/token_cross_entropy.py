"""Cross-entropy of tokens."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from framework.protocols import Batch, Info, Outputs
from plugins.losses._classes import IGNORED, count


@attrs.frozen
class TokenCrossEntropy:
    """Cross-entropy of every target token, in nats: what a language model is trained by.

    Windows of different lengths weigh by their tokens; a label of -100 is no target.
    """

    def build(self, info: Info) -> LiveTokenCrossEntropy:  # noqa: ARG002 - not needed here
        """Build it."""
        return LiveTokenCrossEntropy()


@attrs.frozen
class LiveTokenCrossEntropy:
    """Sums over target tokens; the part is `token_cross_entropy`."""

    coupled: bool = False

    def counts(self, batch: Batch) -> dict[str, int]:
        """Target tokens."""
        return {"token_cross_entropy": count(batch)}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum over the tokens, float32 or better; `logits` [B, T, V], `labels` [B, T]."""
        logits_NV = outputs["logits"].flatten(0, -2)
        logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
        labels_N = batch["labels"].flatten()
        value = cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum")
        return {"token_cross_entropy": value}
