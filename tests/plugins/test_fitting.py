"""Parts of a classification where there are no classes: told in words, and never a wrong figure."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from framework.errors import UserError
from plugins.losses.cross_entropy import CrossEntropy
from plugins.losses.focal import Focal
from plugins.losses.token_cross_entropy import TokenCrossEntropy
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.bits_per_character import BitsPerCharacter
from plugins.metrics.f1 import F1
from plugins.metrics.majority import Majority
from plugins.metrics.of_head import OfHead
from plugins.metrics.perplexity import Perplexity
from plugins.metrics.roc_auc import RocAuc
from plugins.metrics.token_accuracy import TokenAccuracy
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


OTHERS = [TokenCrossEntropy(), TokenAccuracy(), Perplexity()]


@pytest.mark.parametrize("part", [*PARTS, *OTHERS], ids=lambda p: type(p).__name__)
def test_what_a_model_of_heads_does_not_give_is_named(part: Any) -> None:
    """Without a head there are neither labels nor logits; the words say what finds them."""
    outputs = {"plan_logits": torch.zeros(2, 4, 3)}
    batch = {"id": ["x", "y"], "plan_labels": torch.zeros(2, 4, dtype=torch.int64)}
    live = part.build(CLASSES)
    with pytest.raises(UserError, match=r"needs '(labels|logits)', and there is .*'of_head'"):
        live.counts(batch) if hasattr(live, "counts") else live.update(outputs, batch)


def test_what_no_batch_counts_is_named() -> None:
    """Bits per character need characters, which only a character model's batches have."""
    outputs = {"logits": torch.zeros(2, 4, 3)}
    batch = {"id": ["x", "y"], "labels": torch.zeros(2, 4, dtype=torch.int64)}
    with pytest.raises(UserError, match="a metric of likelihood needs 'characters'"):
        BitsPerCharacter().build({}).update(outputs, batch)


@pytest.mark.parametrize("metric", [Accuracy(), Majority()])
def test_a_head_of_tokens_has_no_labels(metric: Any) -> None:
    """The labels of another head are not this one's: told before training."""
    info = {**CLASSES, "heads": {"plan": [], "refinement": [*CLASSES]}}
    with pytest.raises(UserError, match=r"needs '(labels|class_counts)'"):
        OfHead(head="plan", metrics={"x": metric}).build(info)
    OfHead(head="refinement", metrics={"x": metric}).build(info)
