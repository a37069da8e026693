"""Parts that fail by what they are given alone, so that a resumed run fails as the first did.

Shapes: B items, C classes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn

from framework.protocols import Info, Outputs, option
from tests.faults.parts import IGNORED, Layers, Letters, LiveNet


@attrs.frozen
class Hungry:
    """A network that needs more memory than there is for some batches."""

    record: str = option(help="the one whose batch it is; it is a record of train, or of val")
    most: int = option(help="items for which there is memory")
    dropout: float = option(0.0, help="share of hidden units that training drops")

    def build(self, info: Info, assets: Path | None = None) -> LiveNet:
        """Build it."""
        return LiveNet(HungryLayers(len(info["labels"]), self), Letters(info))


class HungryLayers(Layers):
    """The network."""

    def __init__(self, classes: int, options: Hungry) -> None:
        """Make the layers."""
        super().__init__(classes, options.dropout)
        self.options = options

    def forward(self, id: Sequence[str], **batch: Any) -> dict[str, Tensor]:  # noqa: A002
        """Return `logits` [B, C], if there is memory."""
        if self.options.record in id and len(id) > self.options.most:
            torch.empty(2**55)  # bytes times four: more than any machine can address
        return super().forward(**batch)


@attrs.frozen
class Poison:
    """Cross-entropy that isn't finite for one record in training, or whose gradient isn't."""

    record: str = option(help="the one")
    value: float = option(help="what it gives instead")
    where: Literal["loss", "gradient"] = option(help="what isn't finite")

    def build(self, info: Info) -> LivePoison:
        """Build it."""
        return LivePoison(self)


@attrs.frozen
class LivePoison:
    """The loss."""

    options: Poison
    coupled: bool = False

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Labelled items."""
        return {"ce": int((batch["labels"] != IGNORED).sum())}

    def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sum."""
        logits_BC, value = outputs["logits"].float(), self.options.value
        struck = self.options.record in batch["id"] and logits_BC.requires_grad
        if struck and self.options.where == "gradient":
            logits_BC.register_hook(lambda gradient_BC: gradient_BC * value)
        loss = nn.functional.cross_entropy(logits_BC, batch["labels"], reduction="sum")
        return {"ce": loss * value if struck and self.options.where == "loss" else loss}


@attrs.frozen
class Coupled:
    """Cross-entropy that says of itself that it depends on who else is in the batch."""

    def build(self, info: Info) -> LiveCoupled:
        """Build it."""
        return LiveCoupled()


class LiveCoupled:
    """The loss."""

    coupled = True

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """All items."""
        return {"ce": len(batch["id"])}

    def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sum."""
        kwargs: Any = {"reduction": "sum", "ignore_index": IGNORED}
        return {"ce": nn.functional.cross_entropy(outputs["logits"], batch["labels"], **kwargs)}


@attrs.frozen
class Bell:
    """A metric that sends a rank SIGTERM in the middle of an evaluation."""

    rank: int = option(help="which")
    batch: int = option(help="at which of its batches")

    def build(self, info: Info) -> LiveBell:
        """Build it."""
        return LiveBell(self)


@attrs.define
class LiveBell:
    """Counts the batches of one evaluation."""

    options: Bell
    seen: int = 0

    def names(self) -> Sequence[str]:
        """Its own."""
        return [""]

    def update(self, outputs: Outputs, batch: Mapping[str, Any]) -> None:
        """Count, and ring."""
        self.seen += 1
        if self.seen == self.options.batch and self.options.rank == int(os.environ["RANK"]):
            os.kill(os.getpid(), signal.SIGTERM)

    def merge(self, others: Sequence[LiveBell]) -> None:
        """Add up."""
        self.seen += sum(other.seen for other in others)

    def compute(self) -> dict[str, float]:
        """Batches."""
        return {"": float(self.seen)}


@attrs.frozen
class Moody:
    """A metric that jumps about, and is undefined at times: some digits of the mean logit."""

    def build(self, info: Info) -> LiveMoody:
        """Build it."""
        return LiveMoody()


@attrs.define
class LiveMoody:
    """A sum."""

    total: float = 0.0

    def names(self) -> Sequence[str]:
        """Its own."""
        return [""]

    def update(self, outputs: Outputs, batch: Mapping[str, Any]) -> None:
        """Add up."""
        self.total += float(outputs["logits"].double().abs().sum())

    def merge(self, others: Sequence[LiveMoody]) -> None:
        """Add up."""
        self.total += sum(other.total for other in others)

    def compute(self) -> dict[str, float]:
        """One in three is NaN."""
        digits = int(self.total * 1e6)
        return {"": float("nan") if digits % 3 == 0 else digits % 1000 / 1000}
