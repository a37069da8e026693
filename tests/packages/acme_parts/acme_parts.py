"""A dataset, a loss and a callback that the framework has never heard of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch

from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State

COLOURS = ("red", "green", "blue", "amber")
SHAPES = ("circle", "square", "star")
IGNORED = -100


@attrs.frozen
class Words:
    """Sentences of a colour and a shape; the label says whether the colour is red."""

    count: int = option(60, help="records in the training split")

    def build(self, seed: int) -> LiveWords:
        """Make the splits."""
        sizes = {"train": self.count, "val": 12, "test": 12}
        splits = {name: [_record(name, i, seed) for i in range(n)] for name, n in sizes.items()}
        labels = [record["label"] for record in splits["train"]]
        info = {"labels": ["other", "red"], "class_counts": [labels.count(0), labels.count(1)]}
        return LiveWords(info, splits)


def _record(split: str, index: int, seed: int) -> dict[str, Any]:
    colour = COLOURS[(index + seed) % len(COLOURS)]
    text = f"a {colour} {SHAPES[index % len(SHAPES)]} number {index}"
    return {"id": f"{split}{index}", "text": text, "label": int(colour == "red")}


@attrs.frozen
class LiveWords:
    """The splits."""

    info: Mapping[str, Any]
    splits: Mapping[str, Sequence[Mapping[str, Any]]]
    files: Sequence[Path] = ()

    @property
    def manifest(self) -> Mapping[str, Sequence[str]]:
        """Who went where."""
        return {name: [record["id"] for record in split] for name, split in self.splits.items()}

    def keys(self) -> list[str]:
        """Names."""
        return list(self.splits)

    def __getitem__(self, split: str) -> Sequence[Mapping[str, Any]]:
        """Records."""
        return self.splits[split]


@attrs.frozen
class Poly:
    """Cross-entropy plus epsilon (1 - p_t), a first-order polynomial loss."""

    epsilon: float = option(1.0, help="weight of the first term")

    def build(self, info: Mapping[str, Any]) -> LivePoly:
        """Build it."""
        return LivePoly(self.epsilon)


@attrs.frozen
class LivePoly:
    """Sums over the items."""

    epsilon: float
    coupled: bool = False

    def counts(self, batch: Mapping[str, Any]) -> dict[str, int]:
        """Those with a label."""
        return {"poly": int((batch["labels"] != IGNORED).sum())}

    def __call__(self, outputs: Mapping[str, torch.Tensor], batch: Mapping[str, Any]) -> Any:
        """The sum."""
        logits, labels = outputs["logits"], batch["labels"]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        log = logits.log_softmax(-1).gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
        loss = -log + self.epsilon * (1 - log.exp())
        return {"poly": loss.where(labels != IGNORED, 0.0).sum()}


@attrs.frozen
class Diary:
    """Writes the number of steps to a file when the run is over."""

    file: str = option("diary.txt", help="its name in the run folder")

    def build(self) -> LiveDiary:
        """Build it."""
        return LiveDiary(self.file)


@attrs.define
class LiveDiary:
    """Counts steps."""

    file: str
    steps: int = 0

    @hookimpl
    def step_end(self) -> None:
        """One more."""
        self.steps += 1

    @hookimpl
    def run_end(self, state: State) -> None:
        """Write it down."""
        (state.folder / self.file).write_text(f"{self.steps} steps, {state.status}\n")
