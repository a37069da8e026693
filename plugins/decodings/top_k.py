"""Sampling among the k likeliest."""

from __future__ import annotations

import attrs
from attrs.validators import ge
from torch import Tensor

from framework.protocols import option
from plugins.decodings._shares import TEMPERATURE_HELP, finite, kept_BV, shares_BV


@attrs.frozen
class TopK:
    """One of the k likeliest tokens (Fan et al., "Hierarchical Neural Story Generation", 2018).

    Those as likely as the k-th stay in, too.
    """

    k: int = option(help="tokens to choose from; more than there are: all", validator=ge(1))
    temperature: float = option(1.0, help=TEMPERATURE_HELP, validator=[ge(0.0), finite])

    def build(self) -> LiveTopK:
        """Build it."""
        return LiveTopK(self.k, self.temperature)


@attrs.frozen
class LiveTopK:
    """A softmax of the likeliest."""

    k: int
    temperature: float

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return probabilities [B, V]."""
        shares = shares_BV(logits_BV, self.temperature)
        # by logits: a low temperature makes shares equal that aren't
        last_B1 = logits_BV.topk(min(self.k, logits_BV.shape[-1])).values[:, -1:]
        return kept_BV(shares, logits_BV >= last_B1)
