"""Decodings that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from broken import Defect


class Right:
    """A decoding from its function; by default a softmax."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        """Keep the function."""
        self.function = function

    def build(self) -> Any:
        """Return it."""
        return self.function


def ids(logits: Tensor) -> Any:
    """Choose by itself, and return a list."""
    return logits.argmax(-1).tolist()


def single(logits: Tensor) -> Tensor:
    """Compute in float32."""
    return logits.float().softmax(-1)


def naive(logits: Tensor) -> Tensor:
    """Take the exponentials as they come."""
    powers = logits.double().exp()
    return powers / powers.sum(-1, keepdim=True)


def tight(logits: Tensor) -> Tensor:
    """Leave out what is below a half, be it everything."""
    shares = logits.double().softmax(-1)
    return torch.where(shares > 0.5, shares, 0.0)


def smooth(logits: Tensor) -> Tensor:
    """Give every token a little."""
    shares = logits.double().softmax(-1) + 0.01
    return shares / shares.sum(-1, keepdim=True)


def over_all(logits: Tensor) -> Tensor:
    """Take the temperature from all rows."""
    values = logits.double()
    heat = values[values.isfinite()].std(correction=0).clamp(1e-3) + values.shape[0]
    return (values / heat).softmax(-1)


def in_place(logits: Tensor) -> Tensor:
    """Subtract the maximum where it stands."""
    logits -= logits.amax(-1, keepdim=True)
    return logits.double().softmax(-1)


def noisy(logits: Tensor) -> Tensor:
    """Draw something itself."""
    return (logits.double() + torch.rand(logits.shape, dtype=torch.float64)).softmax(-1)


DEFECTS = [
    Defect("has_the_protocol", Right(None), "can't be called"),  # type: ignore[arg-type]
    Defect("has_the_protocol", Right(ids), "returns a list, no tensor"),
    Defect("has_the_protocol", Right(single), "float64 [B, V] is wanted"),
    Defect("rows_are_distributions", Right(naive), "of huge logits some probability is not finite"),
    Defect("rows_are_distributions", Right(tight), "of usual logits a row sums to 1 but for"),
    Defect("what_cannot_be_is_not_chosen", Right(smooth), "of the logit -inf has the probability"),
    Defect("company_does_not_matter", Right(over_all), "row 0 alone is off by"),
    Defect("inputs_stay_as_they_are", Right(in_place), "it changes usual logits"),
    Defect("same_again", Right(noisy), "gives others the second time"),
]
