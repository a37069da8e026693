"""Greedy decoding."""

from __future__ import annotations

import attrs
from torch import Tensor

from plugins.decodings._shares import shares_BV


@attrs.frozen
class Greedy:
    """The likeliest token, always; of several as likely the first."""

    def build(self) -> LiveGreedy:
        """Build it."""
        return LiveGreedy()


@attrs.frozen
class LiveGreedy:
    """All probability to one token."""

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return probabilities [B, V]."""
        return shares_BV(logits_BV, 0.0)
