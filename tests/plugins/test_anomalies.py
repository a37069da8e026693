"""Telling abnormal items: the metrics, thresholds, and the simple answers beside them."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from torch.nn.functional import cross_entropy

from framework.errors import UserError
from plugins._surprise import surprise
from plugins.commands._detection import Counts, Orders, reached, threshold
from plugins.metrics.anomaly import Anomaly
from plugins.metrics.token_accuracy import TokenAccuracy

INFO = {"labels": ["normal", "anomaly"], "train_on": "normal"}


def outputs() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Forty items of up to six tokens, some of them no target, of a vocabulary of nine."""
    draw = torch.Generator().manual_seed(2)
    labels_BT = torch.randint(0, 9, (40, 6), generator=draw)
    labels_BT[torch.rand(40, 6, generator=draw) < 0.4] = -100
    labels_BT[:, 0] = 3
    logits_BTV = torch.randn(40, 6, 9, generator=draw, dtype=torch.float64)
    items_B = torch.randint(0, 2, (40,), generator=draw)
    return {"logits": logits_BTV}, {"labels": labels_BT, "item_labels": items_B}


def test_surprise_is_the_mean_loss_of_an_item() -> None:
    """Each item's own targets alone count, whatever stands beside it; without any it is NaN."""
    found, batch = outputs()
    batch["labels"][7] = -100
    means = surprise(found, batch)
    for at in range(40):
        expected = cross_entropy(found["logits"][at], batch["labels"][at])
        torch.testing.assert_close(means[at], expected, equal_nan=True)
    assert means[7].isnan()


def test_the_areas_are_scikit_learns() -> None:
    """`auroc` and `average_precision` of mean losses; an item without targets is left out."""
    found, batch = outputs()
    batch["labels"][7] = -100
    metric = Anomaly().build(INFO)
    for part in (slice(0, 11), slice(11, 40)):
        metric.update(
            {"logits": found["logits"][part]}, {key: value[part] for key, value in batch.items()}
        )
    kept = [at for at in range(40) if at != 7]
    targets, scores = batch["item_labels"][kept].numpy(), surprise(found, batch)[kept].numpy()
    assert metric.compute() == {
        "auroc": pytest.approx(roc_auc_score(targets, scores), abs=1e-12),
        "average_precision": pytest.approx(average_precision_score(targets, scores), abs=1e-12),
    }
    other = Anomaly(positive="normal").build(INFO)
    other.update(found, batch)
    assert other.compute()["auroc"] == pytest.approx(1 - metric.compute()["auroc"], abs=1e-12)


def test_without_two_kinds_of_items_there_is_no_area() -> None:
    """Over normal items alone it is NaN; without such labels at all it is refused."""
    found, batch = outputs()
    metric = Anomaly().build(INFO)
    metric.update(found, {**batch, "item_labels": torch.zeros(40, dtype=torch.int64)})
    assert all(math.isnan(value) for value in metric.compute().values())
    for options, info in ((Anomaly(), {}), (Anomaly(positive="odd"), INFO)):
        with pytest.raises(UserError, match="metric 'anomaly': sessions are labelled"):
            options.build(info)


@pytest.mark.parametrize(
    ("labels", "given", "expected"),
    [
        (["anomaly", "normal"], {"train_on": "normal"}, 0),
        (["0", "1"], {"train_on": "1"}, 0),
        (["0", "1"], {}, 1),
    ],
)
def test_abnormal_is_what_was_not_trained_on(
    labels: list[str], given: dict[str, str], expected: int
) -> None:
    """Or of 0 and 1 the 1; it fails where the label that is sorted last is taken for abnormal."""
    assert Anomaly().build({"labels": labels, **given}).positive == expected


@pytest.mark.parametrize("labels", [["anomaly", "normal"], ["0", "1", "2"], ["0"]])
def test_which_is_abnormal_is_never_guessed(labels: list[str]) -> None:
    """Of labels that don't say it, an option must; one label alone is none to tell from."""
    with pytest.raises(UserError, match="abnormal as positive, and another"):
        Anomaly().build({"labels": labels})


def test_token_accuracy_counts_targets_alone() -> None:
    """The share of target tokens that the highest logit names, over batches of any size."""
    found, batch = outputs()
    metric = TokenAccuracy().build({})
    assert math.isnan(metric.compute()[""])
    hits = total = 0
    for at in range(40):
        one = {"logits": found["logits"][at : at + 1]}, {"labels": batch["labels"][at : at + 1]}
        metric.update(*one)
        for logits, label in zip(found["logits"][at], batch["labels"][at], strict=True):
            if label != -100:
                hits, total = hits + int(logits.argmax() == label), total + 1
    assert metric.compute() == {"": hits / total}


def test_the_threshold_has_the_best_f1() -> None:
    """No threshold has a better F1 on the items that it was chosen by, ties among scores or not."""
    draw = np.random.default_rng(0)
    for decimals, share in itertools.product((0, 1, 8), (0.05, 0.5)):
        scores = np.round(draw.normal(size=200), decimals)
        abnormal = draw.random(200) < share
        scores[abnormal] += 0.5
        above = threshold(scores, abnormal, 0.9)
        best = max(
            f1_score(abnormal, scores > at, zero_division=0)
            for at in [-math.inf, *np.unique(scores)]
        )
        found = reached(scores, abnormal, above)
        assert found["f1"] == pytest.approx(best, abs=1e-12)
        assert found["f1"] == pytest.approx(f1_score(abnormal, scores > above), abs=1e-12)
        assert found["auroc"] == pytest.approx(roc_auc_score(abnormal, scores), abs=1e-12)
        assert above not in scores


def test_without_abnormal_items_the_threshold_is_a_quantile() -> None:
    """Validation of normal items alone gives the score that so many of them don't exceed."""
    scores = np.arange(101.0)
    assert threshold(scores, np.zeros(101, bool), 0.9) == 90.0
    values = reached(scores, np.zeros(101, bool), 90.0)
    assert (values["precision"], values["f1"]) == (0.0, 0.0)
    assert math.isnan(values["recall"])
    assert math.isnan(values["auroc"])


def test_counts_are_compared_with_the_nearest_known() -> None:
    """0 for counts that training has, in any order; else by how many events they differ."""

    def session(*names: str) -> dict[str, object]:
        return {"events": [{"event": name} for name in names]}

    counts = Counts([session("a", "b"), session("b", "a"), session("a", "a", "c")])
    asked = [session("b", "a"), session("a"), session("a", "c"), session("x", "y", "a", "b")]
    assert counts.score(asked).tolist() == [0.0, 1.0, 1.0, 2.0]


def test_counts_take_no_room_for_what_is_not_there() -> None:
    """Distances are those of whole vectors, in memory that grows with the sessions alone."""
    draw = np.random.default_rng(0)
    sessions = draw.integers(0, 5000, (300, 12))
    records = [{"events": [{"event": str(name)} for name in row]} for row in sessions]
    tracemalloc.start()
    counts = Counts(records[:290])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 290 * len(np.unique(sessions[:290])) * 8 / 2
    vectors = np.stack([np.bincount(row, minlength=5000) for row in sessions])
    for row, found in zip(vectors[290:], counts.score(records[290:]), strict=True):
        assert found == np.abs(vectors[:290] - row).sum(1).min()


def test_orders_are_of_names_alone() -> None:
    """Times, types and texts of an order that training has make no other."""
    train = [{"events": [{"event": "a", "gap": 0.0}, {"event": "b", "gap": 5.0, "text": "x"}]}]
    asked = [
        {"events": [{"event": "a"}, {"event": "b", "gap": 5.001, "type": "t"}]},
        {"events": [{"event": "b"}, {"event": "a"}]},
        {"events": [{"event": "a"}]},
    ]
    assert Orders(train).score(asked).tolist() == [0.0, 1.0, 1.0]
