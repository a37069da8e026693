"""Losses that are wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import attrs
import torch
from torch import Tensor

from broken import Defect
from framework.protocols import Batch, Info, Outputs


def right(outputs: Outputs, batch: Batch) -> Tensor:
    """Return the sum of cross-entropy over the labelled items, as it should be."""
    logits = outputs["logits"]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="sum")


@attrs.define
class Live:
    """A right loss, but for what it is given."""

    value: Callable[[Outputs, Batch], Any] = right
    count: Callable[[Batch], Any] = lambda batch: int((batch["labels"] != -100).sum())
    part: str = "x"
    coupled: bool = False

    def counts(self, batch: Batch) -> dict[str, int]:
        """Count."""
        return {"x": self.count(batch)}

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sum."""
        return {self.part: self.value(outputs, batch)}


class NoCounts:
    """Its live object has no `counts`."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return SimpleNamespace(coupled=False, __call__=right)


class OtherParts:
    """The names of its counts are not those of its sums."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(part="y")


class FloatCounts:
    """Its counts are no whole numbers."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(count=lambda batch: float(len(batch["id"])))


class PerItem:
    """It returns a loss per item."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(
            lambda o, b: torch.nn.functional.cross_entropy(
                o["logits"], b["labels"], reduction="none"
            )
        )


class Detached:
    """It loses the gradient on the way."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(lambda o, b: right(o, b).detach())


class HalfGradient:
    """Its gradient is half of what its value says."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(lambda o, b: 0.5 * right(o, b) + 0.5 * right(o, b).detach())


class Mean:
    """It returns the mean over the batch, so that accumulation weighs short batches too much."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(lambda o, b: right(o, b) / max(len(b["id"]), 1))


class Batches:
    """It counts batches, not items."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(count=lambda _: 1)


class Neighbours:
    """It weighs an item by its place in the batch; it says that it is coupled, but not why."""

    coupled = True

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"].double()
            each = torch.nn.functional.cross_entropy(logits, batch["labels"], reduction="none")
            return (each * torch.arange(len(each))).sum()

        return Live(value, coupled=True)


class HalfSum:
    """It sums in the type of the outputs."""

    def build(self, _: Info) -> Any:
        """Build it."""
        return Live(
            lambda o, b: torch.nn.functional.cross_entropy(
                o["logits"], b["labels"], reduction="none"
            ).sum(dtype=o["logits"].dtype)
        )


class LogOfSoftmax:
    """It takes the logarithm of a softmax that has underflowed."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            picked = logits.softmax(-1).gather(1, batch["labels"].clamp(min=0).unsqueeze(1))
            kept = batch["labels"] != -100
            return -(picked.squeeze(1).log()[kept]).sum()

        return Live(value)


class InPlace:
    """It scales the logits in place."""

    def build(self, _: Info) -> Any:
        """Build it."""

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            logits = outputs["logits"]
            if logits.requires_grad:
                return right(outputs, batch)
            logits.mul_(0.5)
            return right(outputs, batch)

        return Live(value)


class Growing:
    """It weighs each call more than the one before."""

    def build(self, _: Info) -> Any:
        """Build it."""
        calls: list[int] = []

        def value(outputs: Outputs, batch: Batch) -> Tensor:
            calls.append(1)
            return right(outputs, batch) * len(calls)

        return Live(value)


DEFECTS = [
    Defect("has_the_protocol", NoCounts(), "lacks counts"),
    Defect("parts_have_counts", OtherParts(), "counts of ['x'], but sums of ['y']"),
    Defect("has_the_protocol", "focal", "not the text 'focal'"),
    Defect("parts_have_counts", FloatCounts(), "no whole number"),
    Defect("sums_are_scalars", PerItem(), "has the shape (7,)"),
    Defect("gradients_are_right", Detached(), "no gradient reaches the outputs"),
    Defect("gradients_are_right", HalfGradient(), "finite differences give"),
    Defect("sums_and_counts_add_up", Mean(), "return the sum, not the mean"),
    Defect("sums_and_counts_add_up", Batches(), "it counts"),
    Defect("order_of_items_is_free", Neighbours(), "in reverse order"),
    Defect("low_precision_is_safe", HalfSum(), "use float32"),
    Defect("large_outputs_are_safe", LogOfSoftmax(), "1000 times as large is inf"),
    Defect("inputs_stay_as_they_are", InPlace(), "it changes outputs['logits']"),
    Defect("same_again", Growing(), "keep no state between calls"),
]
