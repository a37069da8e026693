"""The decodings, against sets and shares that are known."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from plugins.decodings.greedy import Greedy
from plugins.decodings.temperature import Temperature
from plugins.decodings.top_k import TopK
from plugins.decodings.top_p import TopP

SHARES = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64)
LOGITS = SHARES.log() + 7.0


def chosen(options: Any, logits: torch.Tensor = LOGITS) -> list[float]:
    """Return the probabilities of the one row."""
    found: list[float] = options.build()(logits)[0].tolist()
    return found


def test_greedy_takes_the_likeliest_and_of_equals_the_first() -> None:
    """All probability goes to one token."""
    assert chosen(Greedy()) == [0, 1, 0, 0]
    assert chosen(Greedy(), torch.tensor([[1.0, 3.0, 3.0]])) == [0, 1, 0]


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.0])
def test_temperature_is_a_softmax(heat: float) -> None:
    """Shares are those of the logits over the temperature."""
    powers = [share ** (1 / heat) for share in SHARES[0].tolist()]
    expected = [power / sum(powers) for power in powers]
    assert chosen(Temperature(temperature=heat)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("heat", [0.0, 5e-324, 1e-300, 1e-30, 1e-5])
@pytest.mark.parametrize(
    "make",
    [
        lambda heat: Temperature(temperature=heat),
        lambda heat: TopK(k=3, temperature=heat),
        lambda heat: TopP(p=0.9, temperature=heat),
    ],
)
def test_a_temperature_near_0_is_greedy(make: Any, heat: float) -> None:
    """It fails where logits are divided as they are: they overflow, and shares are NaN."""
    assert chosen(make(heat), 1e4 * LOGITS.float()) == [0, 1, 0, 0]


def test_top_k_keeps_k_and_their_equals() -> None:
    """The rest has probability 0; more than there are keeps all; a tie at the k-th stays in."""
    assert chosen(TopK(k=2)) == pytest.approx([0, 4 / 7, 0, 3 / 7], abs=1e-12)
    assert chosen(TopK(k=99)) == pytest.approx(SHARES[0].tolist(), abs=1e-12)
    assert chosen(TopK(k=1), torch.tensor([[1.0, 3.0, 3.0]])) == [0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (1e-12, [0, 1, 0, 0]),
        (0.3, [0, 1, 0, 0]),
        (0.5, [0, 4 / 7, 0, 3 / 7]),
        (0.75, [0, 4 / 9, 2 / 9, 3 / 9]),
        (1.0, [0.1, 0.4, 0.2, 0.3]),
    ],
)
def test_top_p_keeps_the_fewest_that_have_p(p: float, expected: list[float]) -> None:
    """The likeliest stays in where it alone has more than p.

    It fails where a token is kept only if the sum up to it is at most p: then none is.
    """
    assert chosen(TopP(p=p)) == pytest.approx(expected, abs=1e-12)


def test_of_what_is_barred_nothing_is_left_over() -> None:
    """Tokens of -inf are never chosen, not even to make up k."""
    barred = torch.tensor([[-math.inf, 1.0, -math.inf]])
    for options in (Greedy(), Temperature(), TopK(k=2), TopP(p=1.0)):
        assert chosen(options, barred) == [0, 1, 0]
