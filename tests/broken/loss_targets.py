"""Losses that are wrong about what they are given: targets that are missing, types, keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor

from broken import Defect
from broken.loss import Live, LogOfSoftmax, right
from framework.protocols import Batch, Info, Outputs


class CountsIgnored:
    """It counts and punishes items that have no target, as class 0."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(
            lambda o, b: right(o, {**b, "labels": b["labels"].clamp(min=0)}),
            count=lambda batch: int((batch["labels"] != -100).sum()),
        )


class MeanOfNothing:
    """An empty batch gives NaN: the sum is a mean times the number of items."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            kept = (batch["labels"] != -100).sum()
            return torch.nn.functional.cross_entropy(logits, batch["labels"]) * kept

        return Live(value)


@attrs.frozen
class Other:
    """It is right, but for what it is given."""

    value: Callable[[Outputs, Batch], Any] = right
    count: Callable[[Batch], Any] = Live().count
    coupled: Any = False
    part: str | None = "x"

    def build(self, _: Info) -> Any:
        """Build it."""
        live = Live(self.value, self.count, coupled=self.coupled)
        return live if self.part else type("Nothing", (Live,), {"__call__": lambda *_: {}})()


def half(convert: Callable[[Tensor], Tensor]) -> Callable[[Outputs, Batch], Tensor]:
    """Return a loss of converted outputs, with half its gradient."""

    def value(outputs: Outputs, batch: Batch) -> Tensor:
        loss = right({"logits": convert(outputs["logits"])}, batch)
        return 0.5 * (loss + loss.detach())

    return value


def mean(convert: Callable[[Tensor], Tensor]) -> Callable[[Outputs, Batch], Tensor]:
    """Return a loss of converted outputs, averaged."""
    return lambda o, b: right({"logits": convert(o["logits"])}, b) / max(1, len(b["id"]))


class FloatWeights:
    """Its class weights are float32, whatever the outputs are."""

    def build(self, _: Info) -> Any:
        """Build it."""
        weights = torch.tensor([1.0, 2.0, 0.5])
        loss = torch.nn.functional.cross_entropy
        return Live(lambda o, b: loss(o["logits"], b["labels"], weight=weights, reduction="sum"))


class FirstClassOnly:
    """Its gradient reaches the first class and no other."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            logits = torch.cat([logits[..., :1], logits[..., 1:].detach()], -1)
            return right({"logits": logits.flatten(0, 1)}, {"labels": batch["labels"].flatten()})

        return Live(value)


class WhereOfLog:
    """Its gradient divides by the probabilities that it leaves out."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            chances = outputs["logits"].double().softmax(-1)
            return -torch.where(chances > 0, chances * chances.log(), 0.0).sum()

        return Live(value)


class Products:
    """It multiplies matrices, which autocast rounds."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            return right({"logits": logits @ (1.7 * torch.eye(3)).to(logits)}, batch)

        return Live(value)


class RootOfNothing:
    """The root of a sum of no items has no gradient."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            log = logits.log_softmax(-1).gather(1, batch["labels"].clamp(min=0).unsqueeze(1))
            return -(log.squeeze(1) * (batch["labels"] != -100)).sum().neg().sqrt()

        return Live(value, coupled=True)


class AllOrNothing:
    """It knows batches without any label, and takes a label that is missing for class 0."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            if (batch["labels"] == -100).all():
                return right(outputs, batch)
            return right(outputs, {**batch, "labels": batch["labels"].clamp(min=0)})

        return Live(value)


class WritesLabels:
    """It writes the class that stands for none into the labels, when it counts."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def count(batch: Batch) -> int:
            kept = batch["labels"] != -100
            batch["labels"] = batch["labels"].where(kept, 0).add(1)
            return int(kept.sum())

        return Live(lambda o, b: right(o, {"labels": b["labels"].clamp(max=2)}), count=count)


ITEMS: Callable[[Batch], int] = lambda batch: len(batch["id"])  # noqa: E731 - a typed count
TASK: dict[str, Any] = {
    "outputs": {"logits": 100 * torch.eye(4)},
    "batch": {"id": list("abcd"), "labels": torch.tensor([1, 2, 3, 0])},
}
GIVEN: dict[str, Any] = {"info": {"labels": list("abcd")}}
TOKENS: dict[str, Any] = {
    "outputs": {"logits": torch.randn(8, 8, 10, generator=torch.Generator().manual_seed(1))},
    "batch": {"id": list("abcdefgh"), "labels": torch.arange(64).view(8, 8) % 10},
}

DEFECTS = [
    Defect("has_the_protocol", Other(coupled="no"), "must be True or False, not 'no'"),
    Defect("has_the_protocol", Other(part=None), "it returns no part at all"),
    Defect("has_the_protocol", Other(lambda o, b: float(right(o, b))), "is a float, not a tensor"),
    Defect("has_the_protocol", FloatWeights(), "use weight.to(logits)"),
    Defect("has_the_protocol", Other(), "the batch has no 'id'", {**TASK, "batch": {}}),
    Defect("has_the_protocol", Other(), "without outputs=; give both", {"batch": TASK["batch"]}),
    Defect("has_the_protocol", Other(), "give batch=, too", {"outputs": TASK["outputs"]}),
    Defect("has_the_protocol", Other, "an instance of the options, as in Other(…)"),
    Defect("has_the_protocol", Live(), "Live lacks build"),
    Defect("sums_are_scalars", Other(lambda o, b: right(o, b) / 0), "'x' is inf"),
    Defect("gradients_are_right", FirstClassOnly(), "finite differences give", TOKENS),
    Defect("gradients_are_right", Other(half(Tensor.float)), "finite differences give"),
    Defect("sums_and_counts_add_up", Other(mean(Tensor.float)), "return the sum, not the mean"),
    Defect("low_precision_is_safe", Products(), "leave it by torch.autocast(device_type"),
    Defect("large_outputs_are_safe", LogOfSoftmax(), "10 times as large is inf", {**GIVEN, **TASK}),
    Defect("large_outputs_are_safe", WhereOfLog(), "the gradient of 'logits' of outputs 1000"),
    Defect("no_items_are_zero", CountsIgnored(), "of a batch without targets"),
    Defect("no_items_are_zero", Other(count=ITEMS), "counts 7 items of 'x'"),
    Defect(
        "no_items_are_zero",
        Other(lambda o, b: right(o, {**b, "labels": b["labels"].clamp(min=0)}), count=ITEMS),
        "a batch without targets counts 7 items",
        {"ignored": {"id": [""] * 7, "labels": torch.full((7,), -100)}},
    ),
    Defect("no_items_are_zero", RootOfNothing(), "the gradient of 'logits' is not finite for a"),
    Defect("ignored_items_are_left_out", Other(count=ITEMS), "counts 7 items, the others alone 5"),
    Defect("ignored_items_are_left_out", AllOrNothing(), "leave out what has no target"),
    Defect("no_items_are_zero", MeanOfNothing(), "an empty batch is nan"),
    Defect("inputs_stay_as_they_are", WritesLabels(), "it changes batch['labels']"),
]
