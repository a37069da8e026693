"""Metrics that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import attrs
import torch

from broken import Defect
from framework.protocols import Batch, Info, Outputs


@attrs.define(eq=False, slots=False)
class Live:
    """A right metric, and its own options: the mean probability of the items' own labels."""

    total: float = 0.0
    count: int = 0

    def build(self, _: Info) -> Any:
        """Build another."""
        return type(self)()

    def names(self) -> Sequence[str]:
        """One name."""
        return ["x"]

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item."""
        chances = outputs["logits"].detach().double().softmax(-1)
        return chances.gather(1, batch["labels"].clamp(min=0).unsqueeze(1)).squeeze(1)

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch."""
        kept = batch["labels"] != -100
        self.total += float(self.score(outputs, batch)[kept].sum())
        self.count += int(kept.sum())

    def merge(self, others: Sequence[Any]) -> None:
        """Add what others saw."""
        for other in others:
            self.total += other.total
            self.count += other.count

    def compute(self) -> dict[str, float]:
        """Return the mean."""
        return {"x": self.total / self.count if self.count else float("nan")}


class NoMerge:
    """Its live object can't be merged."""

    def build(self, _: Info) -> Any:
        """Build it."""
        live = Live()
        return SimpleNamespace(names=live.names, update=live.update, compute=live.compute)


class TensorValues(Live):
    """Its value is a tensor."""

    def compute(self) -> Any:
        """Return a tensor."""
        return {"x": torch.tensor(self.total / max(self.count, 1))}


class AlwaysNan(Live):
    """It finds no value in anything."""

    def compute(self) -> dict[str, float]:
        """Return NaN."""
        return {"x": float("nan")}


class MeanOfBatches(Live):
    """It averages the means of batches, so that a short last batch counts too much."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch's mean."""
        if batch["id"]:
            self.total += float(self.score(outputs, batch).mean())
            self.count += 1


class ForgetsCounts(Live):
    """Merging averages the ranks' values, whatever they saw."""

    def merge(self, others: Sequence[Any]) -> None:
        """Average."""
        values = [rank.total / rank.count for rank in (self, *others) if rank.count]
        self.total, self.count = sum(values), len(values)


class KeepsOneRank(Live):
    """Merging takes in the first of the others only."""

    def merge(self, others: Sequence[Any]) -> None:
        """Add the first."""
        super().merge(others[:1])


class FirstCounts(Live):
    """It weighs the first item of a batch double."""

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item, the first double."""
        scores = super().score(outputs, batch)
        scores[:1] *= 2
        return scores


class DividesByNothing(Live):
    """It divides by the number of items, whatever that is."""

    def compute(self) -> dict[str, float]:
        """Divide."""
        return {"x": self.total / self.count}


class NothingForNothing(Live):
    """Over no items it reports no value at all."""

    def compute(self) -> dict[str, float]:
        """Return nothing, where there was nothing."""
        return super().compute() if self.count else {}


class InPlace(Live):
    """It turns the logits into probabilities in place."""

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item."""
        outputs["logits"].copy_(outputs["logits"].softmax(-1))
        return outputs["logits"].gather(1, batch["labels"].unsqueeze(1)).squeeze(1)


class PopsTheIds(Live):
    """It takes the ids out of the batch."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch."""
        super().update(outputs, batch)
        batch.pop("id")


class OneForAll:
    """Every build returns the same live object."""

    live = Live()

    def build(self, _: Info) -> Any:
        """Return it."""
        return self.live


class TotalOfAll(Live):
    """It keeps its total in the class."""

    sums = 0.0

    @property
    def total(self) -> float:
        """Return the total of all."""
        return TotalOfAll.sums

    @total.setter
    def total(self, value: float) -> None:
        TotalOfAll.sums = value


class Lambda(Live):
    """Its live object holds a lambda."""

    def build(self, _: Info) -> Any:
        """Build it."""
        made = Lambda()
        made.function = lambda value: value
        return made


class ForgottenByPickle(Live):
    """Its pickle leaves out what it saw."""

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return ForgottenByPickle, ()


class EndsWithCompute(Live):
    """It starts over when its values are read."""

    def compute(self) -> dict[str, float]:
        """Return the mean and start over."""
        values = super().compute()
        self.total, self.count = 0.0, 0
        return values


class ClosesWithCompute(Live):
    """It takes in nothing after its values were read once."""

    closed = False

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch, or not."""
        if not self.closed:
            super().update(outputs, batch)

    def compute(self) -> dict[str, float]:
        """Return the mean and close."""
        self.closed = True
        return super().compute()


class OwnType(Live):
    """It computes in the type of the outputs."""

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item."""
        chances = outputs["logits"].detach().softmax(-1)
        return chances.gather(1, batch["labels"].unsqueeze(1)).squeeze(1)


class Numpy(Live):
    """It makes NumPy arrays of what may require gradients."""

    def score(self, outputs: Outputs, batch: Batch) -> torch.Tensor:
        """Score each item."""
        return super().score({"logits": torch.from_numpy(outputs["logits"].numpy())}, batch)


class KeepsOutputs(Live):
    """It keeps the outputs with all that made them."""

    def build(self, _: Info) -> Any:
        """Build it."""
        made = KeepsOutputs()
        made.seen = []
        return made

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Add a batch."""
        super().update(outputs, batch)
        self.seen.append(outputs)


DEFECTS = [
    Defect("has_the_protocol", NoMerge(), "lacks merge"),
    Defect("values_are_floats", TensorValues(), "is a Tensor; return float"),
    Defect("values_are_floats", AlwaysNan(), "every value is NaN"),
    Defect("batches_do_not_matter", MeanOfBatches(), "keep sums, not means of batches"),
    Defect("shards_do_not_matter", ForgetsCounts(), "merged from shards of [3, 4] items"),
    Defect(
        "shards_do_not_matter", KeepsOneRank(), "merged from shards of [1, 1, 1, 1, 1, 1, 1] items"
    ),
    Defect("order_of_items_is_free", FirstCounts(), "with the items in reverse order"),
    Defect("nothing_has_values_too", DividesByNothing(), "ZeroDivisionError"),
    Defect("nothing_has_values_too", NothingForNothing(), "compute() reports none"),
    Defect("inputs_stay_as_they_are", InPlace(), "it changes 'logits' of the outputs"),
    Defect("inputs_stay_as_they_are", PopsTheIds(), "it changes 'id' of the batch"),
    Defect("two_share_nothing", OneForAll(), "two builds return one object"),
    Defect("two_share_nothing", TotalOfAll(), "after another was updated"),
    Defect("pickling_keeps_what_it_saw", Lambda(), "it can't be pickled"),
    Defect("pickling_keeps_what_it_saw", ForgottenByPickle(), "pickled and merged"),
    Defect("computing_ends_nothing", EndsWithCompute(), "and then {'x': nan}"),
    Defect("computing_ends_nothing", ClosesWithCompute(), "called half-way"),
    Defect("low_precision_is_accepted", OwnType(), "compute in float32 or better"),
    Defect("gradients_are_let_go", Numpy(), "requires grad"),
    Defect("gradients_are_let_go", KeepsOutputs(), "keeps the graph of the outputs"),
]
