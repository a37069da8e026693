"""What the decodings share. Legend of shapes: B texts, V tokens of a vocabulary."""

from __future__ import annotations

import math

import attrs
import torch
from torch import Tensor

TEMPERATURE_HELP = "below 1 the likely are more so, above 1 less; 0: the likeliest alone"


def finite(_: object, field: attrs.Attribute[float], value: float) -> None:
    """Refuse an infinite temperature; `ValueError`."""
    if math.isinf(value):
        raise ValueError(f"'{field.name}' must be finite: {value}")


def shares_BV(logits_BV: Tensor, temperature: float) -> Tensor:
    """Return the softmax of logits over a temperature, in float64; safe for any, 0 among them.

    The likeliest has exp(0), however small the temperature is, so no row sums to 0.
    """
    below_BV = logits_BV.double() - logits_BV.double().amax(-1, keepdim=True)
    if temperature == 0:
        return torch.zeros_like(below_BV).scatter(-1, below_BV.argmax(-1, keepdim=True), 1.0)
    return (below_BV / temperature).softmax(-1)


def kept_BV(shares_BV: Tensor, keep_BV: Tensor) -> Tensor:
    """Return the shares of what is kept, scaled to sum to 1 again."""
    left_BV = torch.where(keep_BV, shares_BV, 0.0)
    return left_BV / left_BV.sum(-1, keepdim=True)
