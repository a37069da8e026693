"""A model as it should be, and the means of breaking one part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from broken import Defect
from framework.protocols import Batch, Features, Info, Labelled, Outputs, Record, Row

START = 31


class Words:
    """A right processor: words are numbers from 1 to 30, behind a start."""

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Number the words."""
        return [self.one(record) for record in records]

    def one(self, record: Record) -> dict[str, Any]:
        """Number the words of one record."""
        numbers = [1 + sum(map(ord, word)) % 30 for word in record["text"].split()]
        tokens = np.array([START, *numbers])
        label = {"label": record["label"]} if "label" in record else {}
        return {"id": record["id"], "length": len(tokens), "tokens": tokens, **label}

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Put another word in the place of one."""
        tokens = features["tokens"].copy()
        tokens[rng.integers(len(tokens))] = 7
        return {**features, "tokens": tokens}

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad."""
        tokens = [torch.from_numpy(item["tokens"]) for item in features]
        padded = nn.utils.rnn.pad_sequence(tokens, batch_first=True)
        batch = {"id": [item["id"] for item in features], "tokens": padded, "mask": padded > 0}
        if "label" in features[0]:
            batch["labels"] = torch.tensor([item["label"] for item in features])
        return batch

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Name the best class."""
        best = outputs["logits"].argmax(-1).tolist()
        return [{"id": i, "prediction": p} for i, p in zip(batch["id"], best, strict=True)]


class Net(nn.Module):
    """A right module: the mean of what the words mean."""

    def __init__(self) -> None:
        """Make the layers."""
        super().__init__()
        self.embed = nn.Embedding(START + 1, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor, mask: Tensor, **rest: Any) -> dict[str, Tensor]:
        """Return logits [B, 3] of token ids and mask [B, T]."""
        return {"logits": self.head(self.mean(self.embed(tokens), mask.unsqueeze(-1)))}

    def mean(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Take the mean over the words."""
        return (embedded * mask).sum(1) / mask.sum(1)


class Live:
    """A right live model."""

    def __init__(self, module: nn.Module, processor: Any) -> None:
        """Keep both."""
        self.module, self.processor = module, processor

    def labelled(self) -> list[Labelled]:
        """Every parameter, the embeddings at depth 0."""
        return [self.label(name, value) for name, value in self.module.named_parameters()]

    def label(self, name: str, value: nn.Parameter) -> Labelled:
        """Label one."""
        head = name.startswith("head")
        part: Literal["base", "head"] = "head" if head else "base"
        return Labelled(name, value, part, int(head))

    def save_assets(self, folder: Path) -> None:
        """Write nothing: it needs nothing."""


@attrs.frozen
class Model:
    """The options of a model whose parts are given; without any it is right."""

    net: type = Net
    words: type = Words
    live: type = Live

    def build(self, info: Info, assets: Path | None = None) -> Any:
        """Build it."""
        return self.live(self.net(), self.words())


def one(check: str, name: str, said: str, part: type, **methods: Any) -> Defect:
    """Return a model that is right but for some methods of one part; its class has a name."""
    broken = type(name, (part,), methods)
    options = type(name, (Model,), {})
    return Defect(check, options(**{part.__name__.lower(): broken}), said)


def each(change: Callable[[dict[str, Any]], Any]) -> Callable[..., list[Any]]:
    """Return an `encode` that changes the features of each record."""
    return lambda _, records: [change(Words().one(record)) for record in records]


def then(part: Any, method: str, change: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that changes what the right one returns."""
    usual = getattr(part, method)
    return lambda self, *given, **named: change(usual(self, *given, **named))


def labels(change: Callable[[list[Labelled]], list[Labelled]]) -> Callable[..., Any]:
    """Return a `labelled` that is changed."""
    return then(Live, "labelled", change)


def forward(change: Callable[[dict[str, Tensor], Net], Any]) -> Callable[..., Any]:
    """Return a `forward` whose outputs are changed."""
    return lambda self, **batch: change(Net.forward(self, **batch), self)


def scaled(by: Callable[[dict[str, Any]], Any]) -> Callable[..., Any]:
    """Return a `forward` whose logits are multiplied by something of the batch."""
    return lambda self, **batch: {"logits": Net.forward(self, **batch)["logits"] * by(batch)}
