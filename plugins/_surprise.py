"""How surprising each item is to a model that predicts tokens.

Legend of shapes: B items, T tokens, V tokens of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from framework.protocols import Batch, Outputs
from plugins._language import IGNORED


def surprise(outputs: Outputs, batch: Batch) -> Tensor:
    """Return the mean loss in nats of each item's target tokens [B], float32 or better.

    Of `logits` [B, T, V] and `labels` [B, T]; NaN for an item without targets.
    """
    logits_BTV = outputs["logits"].detach()
    labels_BT = batch["labels"].to(logits_BTV.device)
    kept_BT = labels_BT != IGNORED
    wide = torch.promote_types(logits_BTV.dtype, torch.float32)
    log_BTV = logits_BTV.to(wide).log_softmax(-1)
    of_label_BT = log_BTV.gather(-1, labels_BT.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    sums_B = -(of_label_BT * kept_BT).sum(1)
    found: Tensor = sums_B / kept_BT.sum(1)
    return found
