"""Distances of Gaussians, against textbook formulas in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from plugins import _gaussian
from plugins._gaussian import SIMILARITIES, Gaussians, Similarity, distances


def drawn(count: int, seed: int) -> Gaussians:
    """Gaussians of six dimensions."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 6)
    return Gaussians(*(torch.randn(shape, generator=generator).double() for _ in range(2)))


def root(matrix: Tensor) -> Tensor:
    """The square root of a symmetric matrix."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ values.clamp(min=0).sqrt().diag() @ vectors.T


def expected(kind: Similarity, one: Gaussians, other: Gaussians) -> Tensor:
    """The distance of two, by whole covariance matrices."""
    if kind == "cosine":
        return 1 - torch.cosine_similarity(one.mean, other.mean, dim=0)
    first, second = (g.log_variance.exp().diag() for g in (one, other))
    if kind == "expected_likelihood":
        density = MultivariateNormal(other.mean, first + second)
        return -density.log_prob(one.mean) / 6  # type: ignore[no-untyped-call]
    middle = root(root(second) @ first @ root(second))
    return ((one.mean - other.mean).square().sum() + (first + second - 2 * middle).trace()) / 6


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_distances_are_those_of_the_definitions(
    kind: Similarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pair has the distance that covariance matrices give, in however many parts."""
    queries, documents = drawn(5, 0), drawn(7, 1)
    found = distances(kind, queries, documents)
    for q, row in enumerate(found):
        for d, value in enumerate(row):
            one, other = (
                Gaussians(*(x[at] for x in g)) for g, at in ((queries, q), (documents, d))
            )
            torch.testing.assert_close(value, expected(kind, one, other))
    monkeypatch.setattr(_gaussian, "_CHUNK", 50)
    torch.testing.assert_close(distances(kind, queries, documents), found)
    none = Gaussians(*(x[:0] for x in queries))
    assert distances(kind, none, documents).shape == (0, 7)


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_a_text_is_nearest_to_itself(kind: Similarity) -> None:
    """Of Gaussians of one size none is nearer to one than that itself, also in 16 bits."""
    mean = torch.nn.functional.normalize(drawn(9, 2).mean, dim=-1)
    same = Gaussians(mean.bfloat16(), torch.zeros(9, 6, dtype=torch.bfloat16))
    found = distances(kind, same, same)
    assert found.dtype == torch.float32
    assert found.argmin(-1).tolist() == [*range(9)]
