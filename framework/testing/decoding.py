"""The suite of kind decoding. Legend of shapes: B texts, V tokens of a vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.testing.suite import Report, Suite, require
from framework.testing.values import equal, seeded

TOKENS = 9
EXACT = 1e-9
ROUNDED = 1e-5
"""Of rows that were computed beside others."""


@attrs.frozen(kw_only=True)
class DecodingCase:
    """A decoding."""

    options: Any

    def build(self) -> Any:
        """Build the live decoding."""
        return self.options.build()

    def logits(self) -> Iterator[tuple[str, Tensor]]:
        """Give logits [B, V] that a model may have, ordinary and extreme, by a name."""
        generator = torch.Generator().manual_seed(3)
        usual = 3 * torch.randn(4, TOKENS, generator=generator)
        yield "usual logits", usual
        yield "logits in bf16", usual.bfloat16()
        yield "logits in float64", usual.double()
        yield "huge logits", 1e4 * usual
        yield "tiny logits", 1e-30 * usual
        yield "equal logits", torch.zeros(2, TOKENS)
        yield "logits of one token", usual[:, :1]
        yield "logits that leave one token", _barred(usual, TOKENS - 1)


def _barred(logits: Tensor, count: int) -> Tensor:
    barred = logits.clone()
    barred[:, :count] = -math.inf
    return barred


def has_the_protocol(case: DecodingCase) -> None:
    """It can be called with logits [B, V], and returns float64 of that shape."""
    live = case.build()
    require(callable(live), f"build returns a {type(live).__name__}, which can't be called")
    for name, logits in case.logits():
        found = live(logits)
        kind = f"of {name} it returns a {type(found).__name__}"
        require(isinstance(found, Tensor), f"{kind}, no tensor")
        shown = f"{found.dtype} of shape {tuple(found.shape)}"
        fits = found.dtype == torch.float64 and found.shape == logits.shape
        require(fits, f"of {name} it returns {shown}; float64 [B, V] is wanted")


def rows_are_distributions(case: DecodingCase) -> None:
    """Every row is finite, nowhere below 0, and sums to 1, whatever the logits are."""
    live = case.build()
    for name, logits in case.logits():
        found = live(logits)
        require(found.isfinite().all(), f"of {name} some probability is not finite")
        require(found.min() >= 0, f"of {name} some probability is {float(found.min()):.3g}")
        off = float((found.sum(-1) - 1).abs().max())
        require(off <= EXACT, f"of {name} a row sums to 1 but for {off:.3g}")


def what_cannot_be_is_not_chosen(case: DecodingCase) -> None:
    """A token whose logit is -inf has the probability 0."""
    live, (_, usual) = case.build(), next(case.logits())
    for count in (1, TOKENS // 2, TOKENS - 1):
        most = float(live(_barred(usual, count))[:, :count].max())
        require(most == 0, f"a token of the logit -inf has the probability {most:.3g}")


def company_does_not_matter(case: DecodingCase) -> None:
    """A row alone has the probabilities that it has among others."""
    live, (_, usual) = case.build(), next(case.logits())
    together = live(usual)
    for at in range(len(usual)):
        off = float((live(usual[at : at + 1]) - together[at : at + 1]).abs().max())
        require(off <= ROUNDED, f"row {at} alone is off by {off:.3g}")


def inputs_stay_as_they_are(case: DecodingCase) -> None:
    """The logits are not changed."""
    live = case.build()
    for name, logits in case.logits():
        before = logits.clone()
        live(logits)
        require(equal(before, logits), f"it changes {name}; copy them first")


def same_again(case: DecodingCase) -> None:
    """The same logits give the same probabilities: what is drawn from them is not its business."""
    live = case.build()
    for name, logits in case.logits():
        found = []
        for seed in (1, 2):
            with seeded(seed):
                found.append(live(logits))
        require(equal(*found), f"of {name} it gives others the second time")


SUITE = Suite(
    "decoding",
    DecodingCase,
    (
        has_the_protocol,
        rows_are_distributions,
        what_cannot_be_is_not_chosen,
        company_does_not_matter,
        inputs_stay_as_they_are,
        same_again,
    ),
)


def check_decoding(options: Any, *, expected_failures: Mapping[str, str] | None = None) -> Report:
    """Hold a decoding against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyDecoding(k=5)`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures)
