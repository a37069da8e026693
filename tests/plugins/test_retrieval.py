"""The metrics of rankings, against trec_eval."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import pytrec_eval
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins._gaussian import SIMILARITIES
from plugins.metrics._ranks import mrr, ndcg, parsed, recall
from plugins.metrics.gaussian_space import GaussianSpace
from plugins.metrics.retrieval import Retrieval

DEPTHS = (1, 3, 10, 100)
NAMES = {
    **{f"recall@{k}": f"recall_{k}" for k in DEPTHS},
    **{f"ndcg@{k}": f"ndcg_cut_{k}" for k in DEPTHS},
    "ndcg": "ndcg",
    "mrr": "recip_rank",
}
WANTED = {"ndcg", "recip_rank", "recall.1,3,10,100", "ndcg_cut.1,3,10,100"}
COSINE = torch.tensor(SIMILARITIES.index("cosine"))


def seen(points: Any, relevant: Any, queries: Any, metric: Any) -> Any:
    """A metric that has seen documents and queries, each at its angle from the first axis."""
    rows = [("", name, {}, at) for name, at in points.items()]
    rows += [(name, "", relevant.get(name, {}), at) for name, at in queries.items()]
    angles = torch.tensor([row[3] for row in rows], dtype=torch.float64)
    mean = torch.stack([angles.cos(), angles.sin()], -1).unsqueeze(1)
    live = metric.build({})
    batch = {
        "queries": [row[0] for row in rows],
        "documents": [row[1] for row in rows],
        "relevant": [row[2] for row in rows],
    }
    outputs = {"mean": mean, "log_variance": torch.zeros_like(mean), "similarity": COSINE}
    live.update(outputs, batch)
    return live


def values(points: Any, relevant: Any, queries: Any) -> dict[str, float]:
    """All measures."""
    return dict(seen(points, relevant, queries, Retrieval(measures=[*NAMES])).compute())


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    documents=st.integers(1, 30),
    queries=st.integers(1, 5),
    judged=st.integers(1, 12),
)
def test_measures_are_those_of_trec_eval(
    seed: int, documents: int, queries: int, judged: int
) -> None:
    """Over random rankings, with ties, grades, and answers that aren't in the corpus."""
    rng = np.random.default_rng(seed)
    # few different angles: many documents are equally near
    points = {f"d{at}": 0.1 * int(rng.integers(0, 8)) for at in range(documents)}
    asked = {f"q{at}": 0.0 for at in range(queries)}
    relevant = {
        name: {f"d{int(at)}": int(rng.integers(1, 4)) for at in rng.integers(0, 40, judged)}
        for name in asked
    }
    scores = {name: {d: math.cos(angle) for d, angle in points.items()} for name in asked}
    rows = pytrec_eval.RelevanceEvaluator(relevant, WANTED).evaluate(scores).values()
    found = values(points, relevant, asked)
    for ours, theirs in NAMES.items():
        assert found[ours] == pytest.approx(np.mean([row[theirs] for row in rows]), abs=1e-9), ours


def test_names_keep_the_k_that_was_asked_for() -> None:
    """With two documents there is still a recall@10 and an ndcg@100, and not one of 2.

    It fails where a measure is named after what was retrieved.
    """
    found = values({"a": 0.1, "b": 0.2}, {"q": {"b": 1}}, {"q": 0.0})
    assert set(found) == {*NAMES}
    assert found["recall@10"] == found["recall@100"] == 1.0
    assert found["ndcg@100"] == pytest.approx(1 / math.log2(3))
    assert found["recall@1"] == found["ndcg@1"] == 0.0
    assert found["mrr"] == 0.5


def test_what_nothing_answers_is_left_out() -> None:
    """A query without an answer is in no mean; of such alone there is none.

    It fails where one counts as 0, or as a perfect ranking, or divides by nothing.
    """
    points, answered = {"a": 0.1, "b": 0.2}, {"q": {"a": 1}}
    both = values(points, answered, {"q": 0.0, "nobody": 0.1})
    assert both == values(points, answered, {"q": 0.0})
    assert both["ndcg@10"] == 1.0
    assert all(map(math.isnan, values(points, {}, {"nobody": 0.1}).values()))


def test_an_empty_retrieval_scores_nothing() -> None:
    """Where no document is there, or none of the answers, every measure is 0."""
    assert set(values({}, {"q": {"a": 1}}, {"q": 0.0}).values()) == {0.0}
    assert set(values({"b": 0.1}, {"q": {"a": 1}}, {"q": 0.0}).values()) == {0.0}
    for measure in (recall, mrr, ndcg):
        assert measure({}, {"a": 2}, 10) == 0.0


def test_embeddings_that_are_no_numbers_are_no_ranking() -> None:
    """A model that has diverged has no value, and never a perfect one."""
    found = values({"a": math.nan, "b": 0.2}, {"q": {"a": 1}}, {"q": 0.0})
    assert all(map(math.isnan, found.values()))


@pytest.mark.parametrize("name", ["recall", "recall@0", "ndcg@", "mrr@-1", "map@10", "Recall@5"])
def test_names_that_are_no_measure(name: str) -> None:
    """They are refused when the experiment is read, and so are none at all, and one twice."""
    with pytest.raises(ValueError, match="is no measure"):
        parsed(name)
    for measures in ([name], [], ["mrr", "mrr"]):
        with pytest.raises(ValueError, match="measure"):
            Retrieval(measures=measures)


def test_the_space_is_measured_in_plain_numbers() -> None:
    """Mean distances to answers and to all, the spread of means, the mean variance."""
    points = {"a": 0.0, "b": 0.5, "c": 1.0}
    found = seen(points, {"q": {"a": 1, "c": 1}}, {"q": 0.2}, GaussianSpace()).compute()
    apart = [1 - math.cos(0.2 - at) for at in points.values()]
    assert found["positive_distance"] == pytest.approx((apart[0] + apart[2]) / 2)
    assert found["corpus_distance"] == pytest.approx(sum(apart) / 3)
    axes = [[f(at) for at in points.values()] for f in (math.cos, math.sin)]
    assert found["standard_deviation"] == pytest.approx(np.mean([np.std(axis) for axis in axes]))
    assert found["variance"] == 1.0
