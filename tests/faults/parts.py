"""Parts of an experiment as small as they can be, and some that fail on demand.

The distribution `fault-parts` offers them (`tests.faults.experiments`). Shapes: B items,
T letters, H hidden units, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from framework.protocols import Features, Info, Labelled, Outputs, Record, option
from plugins.precisions.fp16 import Fp16

LETTERS = "abcdefghijklmnopqrstuvwxyz "
IGNORED = -100


@attrs.frozen
class Texts:
    """Random letters; the label is that of the letter which stands first, or none at all."""

    count: int = option(69, help="records of train")
    checked: int = option(13, help="records of val")
    classes: int = option(3, help="labels")
    tested: int = option(0, help="labels that val and test have; 0: all")
    unlabelled: float = option(0.0, help="share of train without a label")

    def build(self, seed: int) -> LiveTexts:
        """Draw the splits."""
        rng = np.random.default_rng(seed)
        splits: dict[str, list[Record]] = {"train": [], "val": [], "test": []}
        for split, count in (("train", self.count), ("val", self.checked), ("test", 17)):
            classes = self.classes if split == "train" else self.tested or self.classes
            for index in range(count):
                label = int(rng.integers(classes))
                if split == "train" and rng.random() < self.unlabelled:
                    label = IGNORED
                letters = rng.choice(list(LETTERS), size=int(rng.integers(3, 12)))
                text = LETTERS[max(label, 0)] + "".join(letters)
                splits[split].append({"id": f"{split}{index}", "text": text, "label": label})
        labels = [record["label"] for record in splits["train"]]
        info = {
            "labels": [f"class {index}" for index in range(self.classes)],
            "class_counts": [labels.count(index) for index in range(self.classes)],
        }
        return LiveTexts(info, splits)


@attrs.frozen
class LiveTexts:
    """The splits."""

    info: Mapping[str, Any]
    splits: Mapping[str, Sequence[Record]] = attrs.field(repr=False)
    files: Sequence[Path] = ()

    @property
    def manifest(self) -> Mapping[str, Sequence[str]]:
        """Who went where."""
        return {name: [record["id"] for record in split] for name, split in self.splits.items()}

    def keys(self) -> list[str]:
        """Names."""
        return list(self.splits)

    def __getitem__(self, split: str) -> Sequence[Record]:
        """Records."""
        return self.splits[split]


@attrs.frozen
class Net:
    """Embedded letters, their mean, and two layers."""

    dropout: float = option(0.0, help="share of hidden units that training drops")
    noise: float = option(0.0, help="share of letters that training drops")
    leak: str = option("", help="the method of the processor that raises with a record's text")
    width: int = option(16, help="hidden units")
    idle: bool = option(False, help="whether it has parameters that compute nothing")

    def build(self, info: Info, assets: Path | None = None) -> LiveNet:
        """Build it."""
        processor = Letters(info, self.noise, self.leak)
        layers = Layers(len(info["labels"]), self.dropout, self.width)
        if self.idle:
            layers.idle = nn.Linear(2, 2)
        return LiveNet(layers, processor)


@attrs.frozen
class LiveNet:
    """The module with its processor."""

    module: nn.Module
    processor: Letters

    def labelled(self) -> list[Labelled]:
        """Every parameter."""
        return [Labelled(n, p, "base", 0) for n, p in self.module.named_parameters()]

    def save_assets(self, folder: Path) -> None:
        """Nothing is needed beside the weights."""


class Layers(nn.Module):
    """The network."""

    def __init__(self, classes: int, dropout: float, width: int = 16) -> None:
        """Make the layers."""
        super().__init__()
        self.letters = nn.Embedding(len(LETTERS) + 1, 8)
        self.body = nn.Linear(8, width)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, letters: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return `logits` [B, C] of `letters` [B, T], where 0 pads."""
        there_BT1 = (letters > 0).unsqueeze(-1)
        sums_BH = (self.letters(letters) * there_BT1).sum(1)
        mean_BH = sums_BH / there_BT1.sum(1).clamp(min=1)
        return {"logits": self.head(self.dropout(torch.tanh(self.body(mean_BH))))}


@attrs.frozen
class Letters:
    """Letters as numbers from 1."""

    info: Info
    noise: float = 0.0
    leak: str = ""

    def _reach(self, method: str) -> None:
        if method == self.leak:
            raise KeyError(self.info["train"][0]["text"])

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Number them."""
        self._reach("encode")
        return [
            {
                "id": record["id"],
                "length": len(record["text"]),
                "letters": [1 + LETTERS.find(sign) for sign in record["text"]],
                "label": record.get("label", IGNORED),
            }
            for record in records
        ]

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Drop letters."""
        self._reach("augment")
        if not self.noise:
            return features
        kept = [sign for sign in features["letters"] if rng.random() >= self.noise]
        return {**features, "letters": kept, "length": len(kept)}

    def collate(self, features: Sequence[Features]) -> dict[str, Any]:
        """Pad."""
        self._reach("collate")
        longest = max(1, *(len(item["letters"]) for item in features))
        rows = [item["letters"] + [0] * (longest - len(item["letters"])) for item in features]
        return {
            "id": [item["id"] for item in features],
            "letters": torch.tensor(rows),
            "labels": torch.tensor([item["label"] for item in features]),
        }

    def decode(self, outputs: Outputs, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Label and prediction as indices."""
        self._reach("decode")
        found = outputs["logits"].argmax(-1).tolist()
        triples = zip(batch["id"], batch["labels"].tolist(), found, strict=True)
        return [{"id": i, "label": label, "prediction": p} for i, label, p in triples]


@attrs.frozen
class Sgd:
    """Plain descent."""

    lr: float = option(0.1, help="learning rate")

    def build(self, parameters: Sequence[Labelled]) -> torch.optim.SGD:
        """Build it."""
        return torch.optim.SGD([item.parameter for item in parameters], lr=self.lr)


@attrs.frozen
class Leak:
    """Cross-entropy that raises with a record's text."""

    step: int = option(3, help="at which batch; 0: when it is built")

    def build(self, info: Info) -> LiveLeak:
        """Build it, if it is to be built."""
        if not self.step:
            raise ValueError(info["train"][0]["text"])
        return LiveLeak(self.step, info)


@attrs.define
class LiveLeak:
    """Counts batches."""

    left: int
    info: Info
    coupled: bool = False

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """All of them."""
        return {"ce": len(batch["labels"])}

    def __call__(self, outputs: Outputs, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sum, or raise."""
        self.left -= 1
        if not self.left:
            raise ValueError("in " + self.info["train"][0]["text"])
        loss = nn.functional.cross_entropy(outputs["logits"], batch["labels"], reduction="sum")
        return {"ce": loss}


class Scaler(torch.amp.GradScaler):
    """The scaler of torch, which notes each unscaling; its scale jumps after some of them."""

    calls: list[int] = []  # noqa: RUF012 - of the process, for `Watch` to tell
    jumps: Sequence[int] = ()

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Unscale, and note it."""
        self.calls.append(len(self.calls))
        super().unscale_(optimizer)

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Update the scale; after a window that is asked for, to one which must overflow."""
        super().update(new_scale)
        if len(self.calls) in self.jumps:
            super().update(2.0**28)


@attrs.frozen
class Jumping:
    """Float16 whose scale jumps up after some windows, so that the next ones overflow."""

    jumps: list[int] = option([], help="after which windows")
    growth: int = option(2000, help="windows after which the scale doubles")

    def build(self, device: torch.device) -> Any:
        """Build the project's own float16 with another scaler."""
        live = Fp16().build(device)
        live.scaler = Scaler(device.type, growth_interval=self.growth)
        live.scaler.jumps = self.jumps
        return live
