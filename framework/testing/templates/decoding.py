"""Sampling above a share of the likeliest token's probability."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor

from framework.protocols import option


@attrs.frozen
class Template:
    """Tokens at least `share` times as likely as the likeliest (min-p, Nguyen et al., 2024)."""

    share: float = option(
        0.1,
        help="of the likeliest token's probability; less likely tokens are left out",
        validator=[attrs.validators.ge(0.0), attrs.validators.le(1.0)],
    )

    def build(self) -> LiveTemplate:
        """Build it."""
        return LiveTemplate(self.share)


@attrs.frozen
class LiveTemplate:
    """Makes probabilities of logits; who generates draws from them."""

    share: float

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return probabilities [B, V], float64, of logits [B, V], -inf where a token can't be."""
        shares_BV = logits_BV.double().softmax(-1)
        keep_BV = shares_BV >= self.share * shares_BV.amax(-1, keepdim=True)
        left_BV = torch.where(keep_BV, shares_BV, 0.0)
        return left_BV / left_BV.sum(-1, keepdim=True)
