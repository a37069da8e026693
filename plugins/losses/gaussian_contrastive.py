"""A contrastive loss of Gaussians. Legend: B triples, C candidates, N texts, D dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from attrs.validators import ge, gt
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, option
from plugins._gaussian import Gaussians, Similarity, distances, similarity

_weight = ge(0.0)


@attrs.frozen
class GaussianContrastive:
    """A weighted sum of three parts, each logged by its name.

    `contrastive`: cross-entropy of a query's own document among the positives and negatives of the
    batch, by their distances (InfoNCE: van den Oord et al., "Representation Learning with
    Contrastive Predictive Coding", 2018, equation 4), which knows only who is nearer, and
    `alignment` times its own distance (Wang and Isola, "Understanding Contrastive Representation
    Learning through Alignment and Uniformity", ICML 2020). `isotropy`: squared distance of the
    means' covariance over the batch from the identity, |C - I|^2 / D (after VICReg: Bardes et al.,
    ICLR 2022), less what chance alone makes of it, about D / N for N texts, so that batches of any
    size can be compared. `regularisation`: Kullback-Leibler divergence of each Gaussian from one of
    its mean with variances 1, per dimension. In an evaluation, whose records are single texts,
    nothing counts, and so the loss is undefined: the metrics tell the best.
    """

    temperature: float = option(
        0.1, help="of distances; smaller: the nearest negatives count more", validator=gt(0.0)
    )
    alignment: float = option(
        0.2, help="weight of a positive's distance in the contrastive part", validator=_weight
    )
    contrastive: float = option(1.0, help="weight of the contrastive part", validator=_weight)
    isotropy: float = option(0.01, help="weight of the isotropy part", validator=_weight)
    regularisation: float = option(0.01, help="weight of the regularisation", validator=_weight)

    def build(self, info: Info) -> LiveGaussianContrastive:  # noqa: ARG002 - not needed here
        """Build it."""
        weights = (self.contrastive, self.isotropy, self.regularisation)
        parts = dict(zip(PARTS, weights, strict=True))
        return LiveGaussianContrastive(self.temperature, self.alignment, parts)


PARTS = ("contrastive", "isotropy", "regularisation")


@attrs.frozen
class LiveGaussianContrastive:
    """Sums over the triples of a batch; means are compared within it."""

    temperature: float
    alignment: float
    weights: Mapping[str, float]
    coupled: bool = True

    def counts(self, batch: Batch) -> dict[str, int]:
        """Triples, of whatever else there is in the batch."""
        return dict.fromkeys(PARTS, sum(map(bool, _own(batch))))

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum over the triples; `mean` and `log_variance` [B, 3, D]: query, positive, negative."""
        if outputs["mean"].shape[1] == 1:
            return {PARTS[0]: outputs["mean"].new_zeros(())}
        # under autocast products would be rounded
        with torch.autocast(outputs["mean"].device.type, enabled=False):
            found = Gaussians(outputs["mean"], outputs["log_variance"]).wide()
            there_BS = _there(batch).to(found.mean.device)
            count = int(there_BS[:, 1].sum())
            texts = Gaussians(*(x[there_BS] for x in found))
            values = {
                "contrastive": self._contrastive(similarity(outputs), found, batch),
                "isotropy": count * _isotropy(texts.mean),
                "regularisation": count * _divergence(texts.log_variance),
            }
            return {part: self.weights[part] * value for part, value in values.items()}

    def _contrastive(self, kind: Similarity, found: Gaussians, batch: Batch) -> Tensor:
        queries, positives, negatives = (Gaussians(*(x[:, s] for x in found)) for s in range(3))
        both = zip(positives, negatives, strict=True)
        candidates = Gaussians(*(torch.cat(pair) for pair in both))
        allowed_BC = allowed(batch).to(found.mean.device)
        apart_BC = distances(kind, queries, candidates)
        logits_BC = (-apart_BC / self.temperature).masked_fill(~allowed_BC, -torch.inf)
        own = [at for at, name in enumerate(_own(batch)) if name]
        target = torch.tensor(own, dtype=torch.int64, device=logits_BC.device)
        surprise = torch.nn.functional.cross_entropy(logits_BC[target], target, reduction="sum")
        return surprise + self.alignment * apart_BC[target, target].sum()


def _own(batch: Batch) -> Sequence[str]:
    """Return the id of each triple's positive; nothing for a record that is none."""
    both = zip(batch["queries"], batch["documents"], strict=True)
    return [document if query else "" for query, document in both]


def _there(batch: Batch) -> Tensor:
    """Return which texts there are [B, 3], of triples alone."""
    own = [bool(name) for name in _own(batch)]
    wrong = [here and bool(name) for here, name in zip(own, batch["negatives"], strict=True)]
    return torch.tensor([own, own, wrong], dtype=torch.bool).T


def allowed(batch: Batch) -> Tensor:
    """Return which candidates each query is compared with [B, C], C being twice B.

    Its own document, and of the others, each once, those that are not known to answer it too.
    """
    own = _own(batch)
    names = [*own, *batch["negatives"]]
    first = {name: at for at, name in reversed([*enumerate(names)]) if name}
    rows = []
    for row, known in enumerate(batch["relevant"]):
        wrong = {name: at for name, at in first.items() if name != own[row] and name not in known}
        rows.append([at == row or wrong.get(name) == at for at, name in enumerate(names)])
    return torch.tensor(rows, dtype=torch.bool).view(len(own), len(names))


def _isotropy(means_ND: Tensor) -> Tensor:
    """Return the squared distance of the covariance from the identity, per dimension.

    What is expected of it where means are drawn evenly from a sphere, whose covariance is the
    identity, is subtracted: D (1/N - 1/N^2) - 1/N + 4/N^2 - 2/N^3, by counting the pairs among
    which products of different texts are 0 on average.
    """
    if len(means_ND) < 2:  # noqa: PLR2004 - of one text there is none
        return means_ND.sum() * 0
    centred_ND = means_ND - means_ND.mean(0)
    covariance_DD = centred_ND.T @ centred_ND / len(means_ND)
    apart_DD = covariance_DD - torch.eye(len(covariance_DD)).to(covariance_DD)
    size, part = len(apart_DD), 1 / len(means_ND)
    chance = size * (part - part**2) - part + 4 * part**2 - 2 * part**3
    return apart_DD.square().sum() / size - chance


def _divergence(logs_ND: Tensor) -> Tensor:
    """Return the mean over texts and dimensions of (v - 1 - log v) / 2."""
    if not len(logs_ND):
        return logs_ND.sum()
    return (logs_ND.exp() - 1 - logs_ND).mean() / 2
