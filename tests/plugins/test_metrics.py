"""The metrics, against scikit-learn, however the split is batched and sharded."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
import sklearn.metrics as reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import UserError
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.bits_per_character import BitsPerCharacter
from plugins.metrics.by_group import ByGroup
from plugins.metrics.f1 import F1
from plugins.metrics.perplexity import Perplexity
from plugins.metrics.pr_auc import PrAuc
from plugins.metrics.precision import Precision
from plugins.metrics.recall import Recall
from plugins.metrics.roc_auc import RocAuc

IGNORED = -100
SCORES: dict[Any, Callable[..., Any]] = {
    Precision: reference.precision_score,
    Recall: reference.recall_score,
    F1: reference.f1_score,
}
AREAS: dict[Any, Callable[..., Any]] = {
    RocAuc: reference.roc_auc_score,
    PrAuc: reference.average_precision_score,
}
Item = tuple[list[float], int, str]
"""Logits, label and group of a record."""


def info(classes: int, **meta: Sequence[str]) -> dict[str, Any]:
    """What a dataset with so many labels, and such metadata, says of itself."""
    return {"labels": [f"label {index}" for index in range(classes)], "meta": meta}


def batch(items: Sequence[Item]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and batch of some items."""
    logits = torch.tensor([logits for logits, _, _ in items])
    labels = torch.tensor([label for _, label, _ in items], dtype=torch.int64)
    meta = [{"symptom": group} for _, _, group in items]
    return {"logits": logits}, {"id": list(range(len(items))), "labels": labels, "meta": meta}


def measure(build: Callable[[], Any], shards: Iterable[Iterable[Sequence[Item]]]) -> dict[str, Any]:
    """The values of a metric over shards of batches, each shard on a rank of its own."""
    ranks = []
    for shard in shards:
        live = build()
        for items in shard:
            live.update(*batch(items))
        ranks.append(live)
    first, *others = ranks
    first.merge(others)
    values = first.compute()
    assert list(values) == list(first.names())
    return values


def score(options: Any, classes: int, items: Sequence[Item]) -> float:
    """The value of a metric over one batch."""
    return measure(lambda: options.build(info(classes)), [[items]])[""]


def predicted(items: Sequence[Item]) -> tuple[list[int], list[int]]:
    """Labels and predictions of the items that have a target."""
    kept = [(label, logits.index(max(logits))) for logits, label, _ in items if label != IGNORED]
    return [label for label, _ in kept], [prediction for _, prediction in kept]


def expected(score: Callable[..., Any], average: str, classes: int, items: Sequence[Item]) -> float:
    """What scikit-learn gives with all labels and 0 for a division by 0; NaN without items."""
    labels, predictions = predicted(items)
    if not labels:
        return math.nan
    every = list(range(classes))
    if average == "binary":
        one = score(labels, predictions, labels=every, average=None, zero_division=0)
        return float(one[1])
    return float(score(labels, predictions, labels=every, average=average, zero_division=0))


@st.composite
def splits(draw: st.DrawFn, most: int = 5) -> tuple[int, list[Item]]:
    """A number of classes and items of some or all of them, with ties and ignored labels."""
    count = draw(st.integers(2, most))
    logit = st.sampled_from([-30.0, -1.5, 0.0, 0.25, 2.0, 30.0])
    label = st.integers(0, count - 1) | st.just(IGNORED)
    row = st.lists(logit, min_size=count, max_size=count)
    group = st.sampled_from(["sleep", "mood", "weight"])
    return count, draw(st.lists(st.tuples(row, label, group), min_size=1, max_size=25))


@st.composite
def sharded(draw: st.DrawFn, items: Sequence[Item]) -> list[list[Sequence[Item]]]:
    """The items in order, cut into batches, which are dealt to ranks."""
    cuts = sorted(draw(st.sets(st.integers(1, max(len(items) - 1, 1)), max_size=6)))
    edges = [0, *(cut for cut in cuts if cut < len(items)), len(items)]
    batches = [items[a:b] for a, b in itertools.pairwise(edges)]
    ranks = draw(st.integers(1, 3))
    owners = [draw(st.integers(0, ranks - 1)) for _ in batches]
    return [
        [one for one, owner in zip(batches, owners, strict=True) if owner == rank]
        for rank in range(ranks)
    ]


@pytest.mark.parametrize("average", ["binary", "macro", "micro", "weighted"])
@pytest.mark.parametrize("kind", SCORES)
@given(data=st.data())
def test_scores_are_scikit_learns(kind: Any, average: str, data: st.DataObject) -> None:
    """Precision, recall and F1 are scikit-learn's to 1e-12, absent classes and all averages."""
    count, items = data.draw(splits(2 if average == "binary" else 5))
    shards = data.draw(sharded(items))
    (found,) = measure(lambda: kind(average=average).build(info(count)), shards).values()
    wanted = expected(SCORES[kind], average, count, items)
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@given(data=st.data())
def test_accuracy_is_scikit_learns(data: st.DataObject) -> None:
    """Accuracy is scikit-learn's to 1e-12, for any number of classes."""
    count, items = data.draw(splits())
    (found,) = measure(lambda: Accuracy().build(info(count)), data.draw(sharded(items))).values()
    labels, predictions = predicted(items)
    wanted = reference.accuracy_score(labels, predictions) if labels else math.nan
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


def test_an_absent_class_is_averaged_in() -> None:
    """A class with neither labels nor predictions scores 0 in the macro average."""
    items: list[Item] = [([1.0, 0.0, 0.0], 0, ""), ([0.0, 1.0, 0.0], 1, "")]
    assert score(F1(average="macro"), 3, items) == pytest.approx(2 / 3)


def areas(area: Callable[..., Any], classes: int, items: Sequence[Item]) -> float:
    """Scikit-learn's area of each class against the rest, averaged; the second's for two."""
    kept = [item for item in items if item[1] != IGNORED]
    targets = torch.tensor([label for _, label, _ in kept])
    if set(targets.tolist()) != set(range(classes)):
        return math.nan
    chances = torch.tensor([logits for logits, _, _ in kept]).double().softmax(-1)
    chosen = [1] if classes == 2 else range(classes)
    values = [area((targets == index).numpy(), chances[:, index].numpy()) for index in chosen]
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", AREAS)
@given(data=st.data())
def test_areas_are_scikit_learns(kind: Any, data: st.DataObject) -> None:
    """ROC AUC and average precision are scikit-learn's to 1e-12, with ties and many classes."""
    count, items = data.draw(splits(3))
    (found,) = measure(lambda: kind().build(info(count)), data.draw(sharded(items))).values()
    assert found == pytest.approx(areas(AREAS[kind], count, items), abs=1e-12, nan_ok=True)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2))
def test_roc_auc_is_the_chance_of_the_right_order(rows: list[tuple[int, bool]]) -> None:
    """ROC AUC is the share of (positive, negative) pairs in the right order, ties by half."""
    pairs = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high, positive in rows
        for low, other in rows
        if positive and not other
    ]
    found = score(RocAuc(), 2, [([0.0, float(x)], int(label), "") for x, label in rows])
    wanted = sum(pairs) / len(pairs) if pairs else math.nan
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("kind", AREAS)
@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [], [IGNORED]], ids=str)
def test_no_ranking_without_two_classes(kind: Any, labels: list[int]) -> None:
    """An area is NaN where one class alone, or nothing, has items."""
    live = kind().build(info(2))
    if labels:
        live.update(
            *batch([([0.0, float(index)], label, "") for index, label in enumerate(labels)])
        )
    assert math.isnan(live.compute()[""])


@pytest.mark.parametrize("kind", AREAS)
def test_a_model_that_gives_nan(kind: Any) -> None:
    """An area over logits that are no numbers is NaN, and no crash."""
    assert math.isnan(score(kind(), 2, [([math.nan, 0.0], 0, ""), ([0.0, 1.0], 1, "")]))


@given(data=st.data())
def test_by_group_is_scikit_learn_per_group(data: st.DataObject) -> None:
    """Each group's row is scikit-learn's over its own items; a group without any has NaN."""
    count, items = data.draw(splits(2))
    inner = {"f1": F1(), "macro": F1(average="macro"), "accuracy": Accuracy(), "auc": RocAuc()}
    options = ByGroup(key="symptom", metrics=inner)
    meta = info(count, symptom=["mood", "sleep", "weight", "never"])
    found = measure(lambda: options.build(meta), data.draw(sharded(items)))
    wanted = {}
    for group in meta["meta"]["symptom"]:
        own = [item for item in items if item[2] == group]
        labels, predictions = predicted(own)
        right = sum(map(int.__eq__, labels, predictions))
        wanted |= {
            f"{group}/f1": expected(reference.f1_score, "binary", count, own),
            f"{group}/macro": expected(reference.f1_score, "macro", count, own),
            f"{group}/accuracy": right / len(labels) if labels else math.nan,
            f"{group}/auc": areas(reference.roc_auc_score, count, own),
            f"{group}/count": len(own),
        }
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    assert found["never/count"] == 0
    assert math.isnan(found["never/f1"])


def test_by_group_of_a_packed_batch() -> None:
    """A group takes what a batch holds of its items, and leaves what it holds of tokens."""
    options = ByGroup(key="symptom", metrics={"accuracy": Accuracy()})
    live = options.build({"labels": ["a", "b"], "meta": {"symptom": ["x", "y"]}})
    batch = {
        "id": ["1", "2", "3"],
        "labels": torch.tensor([0, 1, 1]),
        "meta": [{"symptom": name} for name in ("x", "y", "x")],
        "input_ids": torch.arange(14).view(1, 14),
        "starts": torch.tensor([0, 4, 9, 14]),
    }
    live.update({"logits": torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 1.0]])}, batch)
    found = live.compute()
    assert (found["x/accuracy"], found["x/count"]) == (0.5, 2.0)
    assert (found["y/accuracy"], found["y/count"]) == (1.0, 1.0)


def test_by_group_nests() -> None:
    """A group's metric may be of groups itself; its names say both."""
    inner = ByGroup(key="source", metrics={"accuracy": Accuracy()})
    meta = info(2, symptom=["mood"], source=["post", "reply"])
    live = ByGroup(key="symptom", metrics={"by": inner}).build(meta)
    outputs, rows = batch([([0.0, 1.0], 1, "mood"), ([0.0, 1.0], 0, "mood")])
    rows["meta"] = [{"symptom": "mood", "source": "post"}, {"symptom": "mood", "source": "reply"}]
    live.update(outputs, rows)
    assert live.compute() == {
        "mood/by/post/accuracy": 1.0,
        "mood/by/post/count": 1.0,
        "mood/by/reply/accuracy": 0.0,
        "mood/by/reply/count": 1.0,
        "mood/count": 2.0,
    }
    assert list(live.compute()) == list(live.names())


@pytest.mark.parametrize("meta", [{}, {"symptoms": ["mood"]}])
def test_by_group_of_an_unknown_key(meta: Mapping[str, Sequence[str]]) -> None:
    """A key that records don't have is refused, and those they have are named."""
    options = ByGroup(key="symptom", metrics={"accuracy": Accuracy()})
    with pytest.raises(UserError, match="no metadata 'symptom'") as error:
        options.build(info(2, **meta))
    assert all(f"'{key}'" in str(error.value) for key in meta)


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("classes", [1, 3])
def test_binary_needs_two_labels(kind: Any, classes: int) -> None:
    """The binary average over other than two labels is refused, and the others are named."""
    with pytest.raises(UserError, match='"macro", "micro" or "weighted"'):
        kind().build(info(classes))


def test_updates_leave_the_batch_alone() -> None:
    """No metric changes outputs or batch."""
    outputs, rows = batch([([0.0, 1.0], 1, "mood"), ([2.0, 1.0], IGNORED, "mood")])
    logits, labels = outputs["logits"].clone(), rows["labels"].clone()
    inner = {"accuracy": Accuracy(), "auc": RocAuc(), "f1": F1()}
    live = ByGroup(key="symptom", metrics=inner).build(info(2, symptom=["mood"]))
    live.update(outputs, rows)
    live.compute()
    assert torch.equal(outputs["logits"], logits)
    assert torch.equal(rows["labels"], labels)
    assert rows["meta"] == [{"symptom": "mood"}] * 2


def test_perplexity_and_bits_are_over_totals() -> None:
    """Both divide the sum over all batches, by tokens and by characters, as float64 says.

    They fail where the means of batches, here of 1 and of 3 tokens, are averaged.
    """
    generator = torch.Generator().manual_seed(2)
    batches = [([[3]], [[2]]), ([[0, 1], [4, -100]], [[1, 5], [1, 0]])]
    nats, tokens, characters = 0.0, 0, 0
    lives = [Perplexity().build({}), BitsPerCharacter().build({})]
    for labels, counts in batches:
        logits = torch.randn(len(labels), len(labels[0]), 5, generator=generator)
        batch = {"labels": torch.tensor(labels), "characters": torch.tensor(counts)}
        for live in lives:
            live.update({"logits": logits}, batch)
        for row, label, count in zip(
            logits.flatten(0, 1).double().tolist(),
            itertools.chain(*labels),
            itertools.chain(*counts),
            strict=True,
        ):
            if label >= 0:
                nats += math.log(sum(map(math.exp, row))) - row[label]
                tokens, characters = tokens + 1, characters + count
    assert (tokens, characters) == (4, 9)
    assert lives[0].compute()[""] == pytest.approx(math.exp(nats / 4), rel=1e-6)
    assert lives[1].compute()[""] == pytest.approx(nats / math.log(2) / 9, rel=1e-6)
    assert math.isnan(Perplexity().build({}).compute()[""])


def test_a_perplexity_beyond_floats_is_infinite() -> None:
    """A model that is as wrong as can be doesn't end the evaluation."""
    live = Perplexity().build({})
    live.update({"logits": torch.tensor([[[0.0, -1e4]]])}, {"labels": torch.tensor([[1]])})
    assert live.compute() == {"": math.inf}
