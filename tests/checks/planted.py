"""Parts with one fault each, for `check` to find. Shapes: B items, C classes, H hidden units."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from framework.protocols import Info, Labelled, Outputs, option
from plugins.precisions._amp import Amp
from tests.faults.parts import IGNORED, Layers, Letters, LiveNet

OFFERS = {
    "framework.model": {"planted_net": "tests.checks.planted:Net"},
    "framework.loss": {"planted_loss": "tests.checks.planted:Loss"},
    "framework.optimizer": {"planted_momentum": "tests.checks.planted:Momentum"},
    "framework.scheduler": {"planted_half": "tests.checks.planted:Half"},
    "framework.precision": {"planted_precision": "tests.checks.planted:Precision"},
    "framework.metric": {"planted_metric": "tests.checks.planted:Blind"},
}


@attrs.frozen
class Net:
    """The small network with a fault."""

    fault: str = option(help="which")

    def build(self, info: Info, assets: Path | None = None) -> LiveNet:
        """Build it."""
        layers = Faulty(len(info["labels"]), self.fault)
        processor = Deaf(info) if self.fault == "deaf" else Letters(info)
        return LiveNet(layers, processor)


class Deaf(Letters):
    """Gives every item the same label."""

    def collate(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate, and forget the labels."""
        batch = super().collate(features)
        return batch | {"labels": torch.zeros_like(batch["labels"])}


class Faulty(Layers):
    """The layers."""

    def __init__(self, classes: int, fault: str) -> None:
        """Make the layers."""
        super().__init__(classes, 0.0)
        self.fault, self.count = fault, 0
        self.peek = nn.Embedding(classes, classes) if fault == "sees labels" else None
        with torch.no_grad():
            if self.peek:
                self.peek.weight.zero_()
            if fault == "loud":
                self.head.weight.mul_(60)

    def forward(self, letters: Tensor, labels: Tensor | None = None, **_: Any) -> dict[str, Tensor]:
        """Return `logits` [B, C]."""
        there_BT1 = (letters > 0).unsqueeze(-1)
        mean_BH = (self.letters(letters) * there_BT1).sum(1) / there_BT1.sum(1).clamp(min=1)
        body_BH = torch.tanh(self.body(mean_BH))
        if self.fault == "dead":
            body_BH = body_BH * 0
        if self.fault == "rounds" and torch.is_autocast_enabled("cpu"):
            body_BH = body_BH + (4 * body_BH.sign() - body_BH).detach()
        logits_BC = self.head(body_BH)
        if self.peek and labels is not None:
            logits_BC = logits_BC + 10 * self.peek(labels.clamp(min=0))
        if self.fault == "keeps a count":
            self.count += self.training
            logits_BC = logits_BC * (1 + 0.1 * min(self.count, 3))
        return {"logits": logits_BC}


@attrs.frozen
class Loss:
    """Cross-entropy with a fault."""

    fault: str = option(help="which")

    def build(self, info: Info) -> LiveLoss:
        """Build it."""
        return LiveLoss(self.fault)


@attrs.define
class LiveLoss:
    """The loss."""

    fault: str
    coupled: bool = False
    kept: list[Any] = attrs.field(factory=list)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Labelled items."""
        return {"ce": int((batch["labels"] != IGNORED).sum())}

    def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sum, or what the fault makes of it."""
        logits_BC, labels_B = outputs["logits"].float(), batch["labels"]
        given: dict[str, Any] = {"reduction": "sum", "ignore_index": IGNORED}
        total, count = cross_entropy(logits_BC, labels_B, **given), self.counts(batch)["ce"]
        wrong: dict[str, Callable[[], Tensor]] = {
            "nan": lambda: total * math.nan,
            "mean": lambda: total / max(count, 1),
            "nobody": lambda: total * torch.tensor(float(count)) / count,
            "own labels": lambda: cross_entropy(
                logits_BC, logits_BC.argmax(-1).where(labels_B != IGNORED, labels_B), **given
            ),
        }
        if self.fault == "keeps outputs":
            self.kept.append(outputs)
        return {"ce": wrong.get(self.fault, lambda: total)()}


@attrs.frozen
class Momentum:
    """Descent with a momentum that no checkpoint holds."""

    lr: float = option(0.1, help="learning rate")

    def build(self, parameters: Sequence[Labelled]) -> torch.optim.Optimizer:
        """Build it."""
        return LiveMomentum([item.parameter for item in parameters], lr=self.lr)


class LiveMomentum(torch.optim.SGD):
    """The optimizer."""

    def __init__(self, parameters: Any, lr: float) -> None:
        """Begin without any."""
        super().__init__(parameters, lr=lr)
        self.moved: dict[int, Tensor] = {}

    def step(self, closure: Any = None) -> None:
        """Step along what was and what is."""
        for group in self.param_groups:
            for parameter in group["params"]:
                before = self.moved.get(id(parameter), torch.zeros_like(parameter))
                self.moved[id(parameter)] = 0.5 * before + parameter.grad
                parameter.grad = self.moved[id(parameter)].clone()
        super().step(closure)


@attrs.frozen
class Half:
    """A schedule that never rises above a half."""

    def build(self, total_steps: int) -> Callable[[int], float]:
        """Build it."""
        return lambda step: 0.5 * (1 - step / total_steps)


@attrs.frozen
class Precision:
    """Mixed precision with a fault."""

    fault: str = option(help="which")

    def build(self, device: torch.device) -> Amp:
        """Build it."""
        kinds = {"in name only": Named, "clips first": ClipsFirst, "stuck": Stuck}
        half = torch.bfloat16 if self.fault == "in name only" else torch.float16
        return kinds[self.fault]("bf16" if half is torch.bfloat16 else "fp16", device, half)


class Named(Amp):
    """Never enters autocast."""

    def autocast(self) -> Any:
        """Do nothing."""
        return nullcontext()


class ClipsFirst(Amp):
    """Clips gradients while they are scaled."""

    def step(self, optimizer: Any, parameters: Sequence[Tensor], max_norm: float) -> Any:
        """Clip, unscale, step."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
        self.scaler.step(optimizer)
        self.scaler.update()
        for parameter in parameters:
            parameter.grad = None
        return norm, bool(norm.isfinite())


class Stuck(Amp):
    """Never updates its scale."""

    def __attrs_post_init__(self) -> None:
        """Have a scaler that stays."""
        super().__attrs_post_init__()
        self.scaler.update = lambda new_scale=None: self.scaler._per_optimizer_states.clear()


@attrs.frozen
class Blind:
    """A metric that looks at nothing."""

    def build(self, info: Info) -> LiveBlind:
        """Build it."""
        return LiveBlind()


class LiveBlind:
    """Says 0.5."""

    def names(self) -> list[str]:
        """One."""
        return [""]

    def update(self, outputs: Any, batch: Any) -> None:
        """Look at nothing."""

    def merge(self, others: Sequence[Any]) -> None:
        """Take nothing in."""

    def compute(self) -> dict[str, float]:
        """Say it."""
        return {"": 0.5}
