"""Parts of a classification where there are no classes: told in words, and never a wrong figure."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.errors import UserError
from plugins.losses.cross_entropy import CrossEntropy
from plugins.losses.focal import Focal
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.f1 import F1
from plugins.metrics.majority import Majority
from plugins.metrics.of_head import OfHead
from plugins.metrics.roc_auc import RocAuc
from plugins.models.plan_code import PlanCode
from plugins.tokenizers.bpe import Bpe

PARTS: list[Any] = [Accuracy(), F1(average="macro"), Majority(), RocAuc(), CrossEntropy(), Focal()]
CLASSES = {"labels": ["a", "b", "c"], "class_counts": [2, 1, 1]}
TEXT = {"characters": {"train": 90, "val": 10}, "train": []}


@pytest.mark.parametrize(
    "part", [*PARTS, PlanCode(tokenizer=Bpe())], ids=lambda p: type(p).__name__
)
def test_what_the_dataset_does_not_say_is_named(part: Any) -> None:
    """A character model's dataset has no classes: before training, and in words."""
    words = r"needs '(labels|class_counts)' of what it is for, and there is 'characters'; it is for"
    with pytest.raises(UserError, match=words):
        part.build(TEXT)


@pytest.mark.parametrize("part", PARTS, ids=lambda p: type(p).__name__)
def test_tokens_are_no_items(part: Any) -> None:
    """Outputs for each token, of any vocabulary, are refused, though numbers would come of them."""
    live = part.build(CLASSES)
    for vocabulary in (3, 4):
        outputs = {"logits": torch.zeros(2, 4, vocabulary)}
        batch = {"id": ["x", "y"], "labels": torch.zeros(2, 4, dtype=torch.int64)}
        with pytest.raises(UserError, match=r"needs labels \[B\].* the model gives \[2, 4\]"):
            getattr(live, "update", live)(outputs, batch)


@pytest.mark.parametrize("metric", [Accuracy(), Majority()])
def test_a_head_of_tokens_has_no_labels(metric: Any) -> None:
    """The labels of another head are not this one's: told before training."""
    info = {**CLASSES, "heads": {"plan": [], "refinement": [*CLASSES]}}
    with pytest.raises(UserError, match=r"needs '(labels|class_counts)'"):
        OfHead(head="plan", metrics={"x": metric}).build(info)
    OfHead(head="refinement", metrics={"x": metric}).build(info)
