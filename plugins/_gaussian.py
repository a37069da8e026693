"""Texts as Gaussians with diagonal covariances, and how far two of them are apart.

Legend of shapes: Q queries, N documents, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from torch import Tensor

Similarity = Literal["wasserstein", "expected_likelihood", "cosine"]
SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
"""Outputs name one by its number here, under `similarity`."""
_CHUNK = 2**25
"""Numbers that are held at once where every pair needs D of them."""


class Gaussians(NamedTuple):
    """Means and logarithms of variances, [N, D] each."""

    mean: Tensor
    log_variance: Tensor

    def wide(self) -> Gaussians:
        """Return them in float32 or better, for sums that keep their digits."""
        import torch

        return Gaussians(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in self))


def similarity(outputs: Mapping[str, Tensor]) -> Similarity:
    """Return the similarity that a model's outputs are meant for."""
    return SIMILARITIES[int(outputs["similarity"])]


def distances(kind: Similarity, queries: Gaussians, documents: Gaussians) -> Tensor:
    """Return distances [Q, N], in float32 or better; the smaller, the more alike.

    `wasserstein`: the squared 2-Wasserstein distance, per dimension. Between Gaussians with
    diagonal covariances it is |m - m'|^2 + |s - s'|^2 with standard deviations s (Givens and
    Shortt, "A class of Wasserstein metrics for probability distributions", 1984).
    `expected_likelihood`: minus the logarithm of the integral of the product of the densities,
    which is N(m - m'; 0, S + S'), per dimension (Jebara, Kondor and Howard, "Probability product
    kernels", JMLR 2004; Vilnis and McCallum, "Word representations via Gaussian embedding", ICLR
    2015). `cosine`: 1 - cosine of the means; variances do not count.
    """
    import torch
    from torch.nn.functional import normalize

    queries, documents = queries.wide(), documents.wide()
    if kind == "cosine":
        unit_QD, unit_ND = (normalize(g.mean, dim=-1) for g in (queries, documents))
        return 1 - unit_QD @ unit_ND.T
    if kind == "wasserstein":
        points_QE, points_NE = (
            torch.cat([g.mean, (g.log_variance / 2).exp()], -1) for g in (queries, documents)
        )
        return _squares(points_QE, points_NE) / queries.mean.shape[-1]
    step = max(1, _CHUNK // max(1, documents.mean.numel()))
    parts = [
        _surprise(Gaussians(*(x[at : at + step] for x in queries)), documents)
        for at in range(0, len(queries.mean), step)
    ]
    return torch.cat(parts) if parts else queries.mean @ documents.mean.T


def _squares(points_QE: Tensor, points_NE: Tensor) -> Tensor:
    """Return squared distances [Q, N]; rounding must not make one negative."""
    squares_Q1, squares_N = points_QE.square().sum(-1, keepdim=True), points_NE.square().sum(-1)
    return (squares_Q1 + squares_N - 2 * points_QE @ points_NE.T).clamp(min=0)


def _surprise(queries: Gaussians, documents: Gaussians) -> Tensor:
    """Return minus the log of the expected likelihood per dimension [Q, N]."""
    variance_QND = queries.log_variance.exp().unsqueeze(1) + documents.log_variance.exp()
    apart_QND = queries.mean.unsqueeze(1) - documents.mean
    terms_QND = apart_QND.square() / variance_QND + (2 * math.pi * variance_QND).log()
    return terms_QND.mean(-1) / 2
