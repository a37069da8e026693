"""Metrics that are wrong about their names, or about labels that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from broken import Defect
from broken.metric import Live
from framework.protocols import Batch, Outputs


class NamesOnTheWay(Live):
    """It knows its names once it has seen a batch."""

    def names(self) -> Sequence[str]:
        """Return what was seen."""
        return ["x"] if self.count else ["unknown"]


class NamesTwice(Live):
    """It says a name twice."""

    def names(self) -> Sequence[str]:
        """Return a name, twice."""
        return ["x", "x"]


class NoNames(Live):
    """It reports nothing."""

    def names(self) -> Sequence[str]:
        """Return nothing."""
        return []


class NumberedNames(Live):
    """Its names are numbers."""

    def names(self) -> Sequence[Any]:
        """Return a number."""
        return [1]


class GrowingNames(Live):
    """It says another name once it has seen items."""

    def names(self) -> Sequence[str]:
        """Return the names."""
        return ["x", "y"] if self.count else ["x"]


class NamesByBatch(Live):
    """Large batches have a value of their own."""

    large = False

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch."""
        super().update(outputs, batch)
        self.large |= len(batch["id"]) > 3

    def compute(self) -> dict[str, float]:
        """Return the mean, twice for large batches."""
        return {**super().compute(), **({"large": 1.0} if self.large else {})}


class IgnoredAreWrong(Live):
    """An item without a label counts as wrong."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch."""
        self.total += int((outputs["logits"].argmax(-1) == batch["labels"]).sum())
        self.count += len(batch["id"])


class IgnoredIsNoClass(Live):
    """It looks a label up that is none."""

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item."""
        chances = outputs["logits"].detach().double().softmax(-1)
        return chances.gather(1, batch["labels"].unsqueeze(1)).squeeze(1)


DEFECTS = [
    Defect("names_are_known_before", NamesOnTheWay(), "'unknown' before any update"),
    Defect("names_are_known_before", NamesTwice(), "one of them more than once"),
    Defect("has_the_protocol", Live(), "the batch has no 'id'", {"outputs": {}, "batch": {}}),
    Defect("names_are_known_before", NoNames(), "names() is empty"),
    Defect("names_are_known_before", NumberedNames(), "names() are [1], not all texts"),
    Defect("names_are_known_before", GrowingNames(), "names() changes with what is seen"),
    Defect("batches_do_not_matter", NamesByBatch(), "it reports ['x'], not ['large', 'x']"),
    Defect("ignored_items_count_for_nothing", IgnoredAreWrong(), "labels of items [0, 3] at -100"),
    Defect("ignored_items_count_for_nothing", IgnoredIsNoClass(), "index -100 is out of bounds"),
]
