"""Sampling with a temperature."""

from __future__ import annotations

import attrs
from attrs.validators import ge
from torch import Tensor

from framework.protocols import option
from plugins.decodings._shares import TEMPERATURE_HELP, finite, shares_BV


@attrs.frozen
class Temperature:
    """Any token, by the softmax of its logit over a temperature."""

    temperature: float = option(1.0, help=TEMPERATURE_HELP, validator=[ge(0.0), finite])

    def build(self) -> LiveTemperature:
        """Build it."""
        return LiveTemperature(self.temperature)


@attrs.frozen
class LiveTemperature:
    """A softmax."""

    temperature: float

    def __call__(self, logits_BV: Tensor) -> Tensor:
        """Return probabilities [B, V]."""
        return shares_BV(logits_BV, self.temperature)
