"""Nucleus sampling."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt, le
from torch import Tensor

from framework.protocols import option
from plugins.decodings._shares import TEMPERATURE_HELP, finite, kept_BV, shares_BV


@attrs.frozen
class TopP:
    """One of the likeliest tokens that together have the probability p.

    Holtzman et al., "The Curious Case of Neural Text Degeneration" (ICLR 2020). The likeliest
    always stays in, however small p is.
    """

    p: float = option(help="probability to choose from, at most 1", validator=[gt(0.0), le(1.0)])
    temperature: float = option(1.0, help=TEMPERATURE_HELP, validator=[ge(0.0), finite])

    def build(self) -> LiveTopP:
        """Build it."""
        return LiveTopP(self.p, self.temperature)


@attrs.frozen
class LiveTopP:
    """A softmax of the nucleus."""

    p: float
    temperature: float

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return probabilities [B, V]."""
        shares = shares_BV(logits_BV, self.temperature)
        sorted_BV, order_BV = shares.sort(dim=-1, descending=True, stable=True)
        before_BV = sorted_BV.cumsum(-1) - sorted_BV
        keep_BV = (before_BV < self.p).scatter(-1, order_BV, before_BV < self.p)
        return kept_BV(shares, keep_BV)
