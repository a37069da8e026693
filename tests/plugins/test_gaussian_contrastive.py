"""The contrastive loss, against a plain loop in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from plugins._gaussian import SIMILARITIES, Gaussians, Similarity, distances
from plugins.losses.gaussian_contrastive import GaussianContrastive, allowed

ANSWERS = {"q1": ["a", "b"], "q2": ["c"], "q3": ["a"]}
QUERIES, OWN, WRONG = ["q1", "q2", "q1", "q3"], ["a", "c", "b", "a"], ["c", "x", "", "x"]


def batch() -> dict[str, Any]:
    """Four triples of three queries, one with two answers, and one triple without a negative."""
    return {
        "id": [f"t{at}" for at in range(4)],
        "queries": QUERIES,
        "documents": OWN,
        "negatives": WRONG,
        "relevant": [dict.fromkeys(ANSWERS[name], 1) for name in QUERIES],
    }


def outputs(kind: Similarity = "wasserstein", seed: int = 0) -> dict[str, torch.Tensor]:
    """Gaussians of five dimensions, those of one name the same."""
    generator = torch.Generator().manual_seed(seed)
    names = sorted({*QUERIES, *OWN, *WRONG})
    table = {n: torch.randn(2, 5, generator=generator, dtype=torch.float64) for n in names}
    rows = [[table[name] for name in row] for row in zip(QUERIES, OWN, WRONG, strict=True)]
    found = torch.stack([torch.stack(row) for row in rows])
    number = torch.tensor(SIMILARITIES.index(kind))
    return {"mean": found[:, :, 0], "log_variance": found[:, :, 1], "similarity": number}


def test_no_answer_is_a_negative_and_none_counts_twice() -> None:
    """What is known to answer a query is no negative of it; a document in a batch twice is one.

    It fails where all other documents of the batch are negatives.
    """
    names = [*OWN, *WRONG]
    for row, allow in enumerate(allowed(batch()).tolist()):
        kept = [name for name, yes in zip(names, allow, strict=True) if yes]
        others = sorted({*names} - {*ANSWERS[QUERIES[row]], ""})
        assert allow[row]
        assert sorted(kept) == sorted([OWN[row], *others])


def _one(made: Any, row: int, at: int) -> Gaussians:
    return Gaussians(made["mean"][row, at : at + 1], made["log_variance"][row, at : at + 1])


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_the_parts_are_those_of_a_plain_loop(kind: Similarity) -> None:
    """Cross-entropy over what may be compared, |C - I|^2 / D, and the divergence of variances."""
    options = GaussianContrastive(
        temperature=0.5, alignment=0.7, contrastive=2.0, isotropy=0.3, regularisation=0.2
    )
    made = outputs(kind)
    found = options.build({})(made, batch())
    names = [*OWN, *WRONG]
    places = [*((row, 1) for row in range(4)), *((row, 2) for row in range(4))]
    at_of = dict(zip(names, places, strict=True))
    total = 0.0
    for row, query in enumerate(QUERIES):
        own = _one(made, row, 0)
        compared = [OWN[row], *({*names} - {*ANSWERS[query], ""})]
        near = [-float(distances(kind, own, _one(made, *at_of[name]))) / 0.5 for name in compared]
        total += math.log(sum(map(math.exp, near))) - near[0] - 0.7 * 0.5 * near[0]
    assert float(found["contrastive"]) == pytest.approx(2.0 * total)

    there = [(r, s) for r in range(4) for s in range(3) if [QUERIES, OWN, WRONG][s][r]]
    means = torch.stack([made["mean"][r, s] for r, s in there])
    apart = torch.cov(means.T, correction=0) - torch.eye(5, dtype=torch.float64)
    part = 1 / len(means)
    chance = 5 * (part - part**2) - part + 4 * part**2 - 2 * part**3
    value = float(apart.square().sum() / 5) - chance
    assert float(found["isotropy"]) == pytest.approx(0.3 * 4 * value)
    logs = torch.stack([made["log_variance"][r, s] for r, s in there])
    own_KL = torch.distributions.kl_divergence(
        torch.distributions.Normal(means, (logs / 2).exp()),
        torch.distributions.Normal(means, torch.ones_like(means)),
    )
    assert float(found["regularisation"]) == pytest.approx(0.2 * 4 * float(own_KL.mean()))


def test_single_texts_have_no_loss() -> None:
    """In an evaluation nothing is counted: what the loss gives is a mean of nothing."""
    live = GaussianContrastive().build({})
    texts = {**outputs(), "mean": outputs()["mean"][:, :1]}
    alone = {**batch(), "documents": [""] * 4}
    assert live.counts(alone) == {"contrastive": 0, "isotropy": 0, "regularisation": 0}
    found = live(texts, alone)
    assert [float(value) for value in found.values()] == [0.0]


@pytest.mark.parametrize("count", [1, 4, 40])
def test_isotropic_means_have_none_of_the_isotropy_part(count: int) -> None:
    """Of points spread evenly over a sphere it is 0 on average, in a batch of whatever size.

    It fails where chance alone makes it the larger, the smaller the batch is.
    """
    generator = torch.Generator().manual_seed(count)
    live = GaussianContrastive(contrastive=0.0, isotropy=1.0, regularisation=0.0).build({})
    names = [str(at) for at in range(count)]
    batch = {"id": names, "queries": names, "documents": [f"d{n}" for n in names]}
    batch |= {"negatives": [f"w{n}" for n in names], "relevant": [{}] * count}  # type: ignore[dict-item]
    values = []
    for _ in range(50):
        drawn = torch.randn(count, 3, 48, generator=generator, dtype=torch.float64)
        mean = torch.nn.functional.normalize(drawn, dim=-1) * 48**0.5
        made = {"mean": mean, "log_variance": 0 * mean, "similarity": torch.tensor(0)}
        values.append(float(live(made, batch)["isotropy"]) / count)
    floor = 48 / (3 * count)
    assert abs(sum(values) / len(values)) < 0.02 * floor
