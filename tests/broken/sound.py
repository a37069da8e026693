"""Plugins that are right and unusual, each of a sort that the kit has once blamed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from broken import tiny_model
from broken.callback import Buildable
from broken.loss import Live
from broken.optimizer import Options
from broken.tiny_model import Model, Net, Words
from framework.hooks import hookimpl
from framework.protocols import Batch, Features, Labelled, Outputs, Record, Row
from framework.state import State


@attrs.frozen
class Loss:
    """A loss that is right, from its two functions."""

    value: Callable[[Outputs, Batch], Any]
    count: Callable[[Batch], int] = Live().count

    def build(self, _: Any) -> Any:
        """Build it."""
        return Live(self.value, self.count)


def in_float32(outputs: Outputs, batch: Batch) -> Tensor:
    """Sum in float32, whatever the outputs are."""
    logits = outputs["logits"].float()
    return functional.cross_entropy(
        logits.flatten(0, -2), batch["labels"].flatten(), reduction="sum"
    )


def of_two(outputs: Outputs, batch: Batch) -> Tensor:
    """Add two outputs' losses, in float32 or better."""
    logits, score = (
        value.to(torch.promote_types(value.dtype, torch.float32))
        for value in (outputs["logits"], outputs["score"])
    )
    kept = batch["labels"] != -100
    right = functional.cross_entropy(logits, batch["labels"], reduction="sum")
    return right + (score.square() * kept).sum()


def decisions(outputs: Outputs, batch: Batch) -> Tensor:
    """Decide for each class by itself: the labels are no class indexes."""
    logits = outputs["logits"]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    labels = batch["labels"].to(logits)
    return functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")


def to_targets(outputs: Outputs, batch: Batch) -> Tensor:
    """Take the distance to targets that are not called labels."""
    value = outputs["value"]
    value = value.to(torch.promote_types(value.dtype, torch.float32))
    return (value - batch["target"].to(value)).square().sum()


def drawn(*shape: int) -> Tensor:
    """Draw numbers, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


FOUR = list("abcd")
CLASSES = torch.tensor([0, 2, 1, 2])
TOKENS = torch.tensor([[1, -100, 4], [2, 3, -100], [0, 0, 9], [-100, -100, 5]])
LOSSES = [
    (Loss(in_float32), {}),
    (
        Loss(in_float32),
        {"outputs": {"logits": drawn(4, 3, 11)}, "batch": {"id": FOUR, "labels": TOKENS}},
    ),
    (
        Loss(of_two),
        {
            "outputs": {"logits": drawn(4, 3), "score": drawn(4)},
            "batch": {"id": FOUR, "labels": CLASSES},
        },
    ),
    (
        Loss(decisions, lambda batch: len(batch["id"])),
        {
            "outputs": {"logits": drawn(4, 3)},
            "batch": {"id": FOUR, "labels": functional.one_hot(CLASSES)},
        },
    ),
    (
        Loss(to_targets, lambda batch: len(batch["id"])),
        {"outputs": {"value": drawn(4)}, "batch": {"id": FOUR, "target": drawn(4)}},
    ),
]


class Unfrozen(tiny_model.Live):
    """It labels what is trained."""

    def labelled(self) -> list[Labelled]:
        """Leave out what is frozen."""
        return [item for item in super().labelled() if item.parameter.requires_grad]


class LoRA(Net):
    """A low-rank update that begins at zero, over a frozen base."""

    def __init__(self) -> None:
        """Freeze the head, and add the update."""
        super().__init__()
        self.head.requires_grad_(requires_grad=False)
        self.down = nn.Parameter(torch.randn(2, 8))
        self.up = nn.Parameter(torch.zeros(3, 2))

    def forward(self, tokens: Tensor, mask: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return logits [B, 3]."""
        mean = self.mean(self.embed(tokens), mask.unsqueeze(-1))
        return {"logits": self.head(mean) + mean @ self.down.T @ self.up.T}


class ZeroHead(Net):
    """A head that begins at zero, and so says nothing to what is below it."""

    def __init__(self) -> None:
        """Set it to zero."""
        super().__init__()
        nn.init.zeros_(self.head.weight)


class Experts(Net):
    """A record wakes one expert of eight; a number of the whole batch goes beside the logits."""

    def __init__(self) -> None:
        """Add gate and experts."""
        super().__init__()
        self.gate = nn.Linear(8, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(8))

    def forward(self, tokens: Tensor, mask: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return logits [B, 3] and `balance`."""
        mean = self.mean(self.embed(tokens), mask.unsqueeze(-1))
        gates = self.gate(mean).softmax(-1)
        chosen, outputs = gates.argmax(-1), torch.zeros_like(mean)
        for index, expert in enumerate(self.experts):
            own = chosen == index
            if own.any():
                outputs[own] = expert(mean[own]) * gates[own, index].unsqueeze(-1)
        return {"logits": self.head(outputs), "balance": gates.square().mean()}


class LayerDrop(Net):
    """In training, layers are left out at random."""

    def __init__(self) -> None:
        """Add layers."""
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(6))

    def mean(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Take the mean over the words, through the layers."""
        found = super().mean(embedded, mask)
        for layer in self.layers:
            if not self.training or torch.rand(()) > 0.3:
                found = found + layer(found).tanh()
        return found


class PerToken(Net):
    """Its logits [B, T, 3] are of words."""

    def forward(self, tokens: Tensor, mask: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return them."""
        return {"logits": self.head(self.embed(tokens))}


class LeftWords(Words):
    """It pads to the left."""

    def collate(self, features: Sequence[Features]) -> Batch:
        """Turn what is padded to the right."""
        turned = [{**item, "tokens": item["tokens"][::-1].copy()} for item in features]
        batch = super().collate(turned)
        return {**batch, "tokens": batch["tokens"].flip(1), "mask": batch["mask"].flip(1)}

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Name the best class of the last word."""
        return super().decode({"logits": outputs["logits"][:, -1]}, batch)


class Tokenised(Sequence[Features]):
    """Features that are made when they are asked for; their lengths are known before."""

    def __init__(self, records: Sequence[Record]) -> None:
        """Count the words."""
        self.records = records
        self.lengths = np.array([1 + len(record["text"].split()) for record in records])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, at: Any) -> Any:
        return Words().one(self.records[at])


class LazyWords(Words):
    """It encodes a record when its features are asked for."""

    def encode(self, records: Sequence[Record]) -> Any:
        """Return lazy features."""
        return Tokenised(records)


class Normed(Net):
    """It keeps statistics of training, in buffers that are saved."""

    def __init__(self) -> None:
        """Add the norm."""
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def mean(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Take the mean over the words, normed."""
        normed: Tensor = self.norm(super().mean(embedded, mask))
        return normed


class Pair:
    """Two optimizers behind the face of one: matrices go to one, the rest to the other."""

    def __init__(self, parameters: Sequence[Labelled]) -> None:
        """Build both."""
        every = [item.parameter for item in parameters]
        matrices, rest = [p for p in every if p.ndim == 2], [p for p in every if p.ndim != 2]
        self.parts = {
            "muon": torch.optim.Muon(matrices, lr=0.01),
            "adamw": torch.optim.AdamW(rest, lr=0.01),
        }

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of both."""
        return [group for part in self.parts.values() for group in part.param_groups]

    def step(self) -> None:
        """Step with both."""
        for part in self.parts.values():
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's own
        """Clear the gradients of both."""
        for part in self.parts.values():
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up."""
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class Both(Options):
    """The options of the pair."""

    def build(self, parameters: Sequence[Labelled]) -> Any:
        """Build it."""
        return Pair(parameters)


class HoursLeft(Buildable):
    """It keeps when it began and what it has used of its time, by two clocks."""

    used = 0.0
    begun = 0.0

    @hookimpl
    def run_start(self) -> None:
        """Start the clocks."""
        self.begun, self.last = time.time(), perf_counter()

    @hookimpl
    def step_end(self, state: State) -> None:
        """Stop after an hour."""
        now = perf_counter()
        self.used, self.last = self.used + now - self.last, now
        if self.used > 3600:
            state.stop("an hour is over")

    def state_dict(self) -> dict[str, Any]:
        """Return the times."""
        return {"used": self.used, "begun": [self.begun]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.used, (self.begun,) = state["used"], state["begun"]


class Steps:
    """Steps that are made when they are asked for; they are no `Sequence` by name."""

    def __init__(self, order: Any, size: int) -> None:
        """Keep the order."""
        self.order, self.size = order, size

    def __len__(self) -> int:
        return math.ceil(len(self.order) / self.size)

    def __getitem__(self, at: int) -> Any:
        if not 0 <= at < len(self):
            raise IndexError(at)
        return self.order[at * self.size : (at + 1) * self.size]


class Sampler:
    """A sampler by a method of its options, whose numbers are of 32 bits."""

    budget = 4096

    def build(self) -> Any:
        """Return itself: it keeps nothing."""
        return self

    def __call__(self, *given: Any) -> Any:
        """Return the steps."""
        lengths, size, rng = given
        return Steps(rng.permutation(len(lengths)).astype(np.int32), size)


SOUND: list[tuple[str, Any, Mapping[str, Any]]] = [
    *(("loss", loss, given) for loss, given in LOSSES),
    *(("model", Model(net), {}) for net in (ZeroHead, Experts, LayerDrop, Normed)),
    ("model", Model(LoRA, live=Unfrozen), {}),
    ("model", Model(PerToken, LeftWords), {}),
    ("model", Model(words=LazyWords), {}),
    ("optimizer", Both(), {}),
    ("sampler", Sampler(), {}),
    ("sampler", Sampler(), {"lengths": [5, 3]}),
    ("callback", HoursLeft(), {}),
]
