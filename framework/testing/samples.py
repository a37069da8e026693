"""What the checks run plugins on where their author gives nothing: a tiny classification task.

All of it is synthetic. Legend of shapes: B items, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.protocols import Batch, Info, Outputs, Record
from framework.testing.suite import require

CLASSES = 3
IGNORED = -100
ITEMS = 7
WORDS = ("amber", "birch", "cloud", "delta", "ember", "flint", "grove", "heron")


def records(count: int = 12, split: str = "train") -> list[Record]:
    """Return records of made-up words, of different lengths, every class among them."""
    return [
        {
            "id": f"{split}{index}",
            "text": " ".join(
                WORDS[(index * step) % len(WORDS)] for step in range(1, 3 + index % 5)
            ),
            "label": index % CLASSES,
            "group": f"{split}{index // 2}",
            "meta": {"source": ("left", "right")[index % 2]},
        }
        for index in range(count)
    ]


def info() -> Info:
    """Return what a dataset of three classes says of itself, with training records."""
    return {
        "labels": ["first", "second", "third"],
        "class_counts": [6, 4, 2],
        "meta": {"source": ["left", "right"]},
        "train": records(),
    }


def classification(info: Mapping[str, Any] | None = None) -> tuple[Outputs, Batch]:
    """Return logits [B, C] in float64 and their batch, every class among its labels."""
    classes = len((info or {"labels": range(CLASSES)})["labels"])
    generator = torch.Generator().manual_seed(1)
    logits_BC = 3 * torch.randn(ITEMS, classes, dtype=torch.float64, generator=generator)
    batch: Batch = {
        "id": [f"item{index}" for index in range(ITEMS)],
        "labels": torch.arange(ITEMS) % classes,
        "meta": [{"source": ("left", "right")[index % 2]} for index in range(ITEMS)],
    }
    return {"logits": logits_BC}, batch


def pieces(count: int) -> list[Sequence[Sequence[int]]]:
    """Return ways to cut so many items: one by one, in halves, unevenly, and with an empty part."""
    every = range(count)
    return [
        [[index] for index in every],
        [every[: count // 2], every[count // 2 :]],
        [every[: count - 1], every[count - 1 :]],
        [every[:0], every, every[:0]],
    ]


def cast(outputs: Outputs, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return outputs without their graph, those of floating point in another type."""
    return {
        k: v.detach().to(dtype) if v.is_floating_point() else v.detach() for k, v in outputs.items()
    }


def mixed(one: Batch, other: Batch, chosen: Sequence[int]) -> Batch | None:
    """Return one batch with the chosen items of another; None where they differ in form."""
    batch: Batch = {}
    for key, value in one.items():
        there = other.get(key)
        if isinstance(value, Tensor) and isinstance(there, Tensor) and value.shape == there.shape:
            batch[key] = value.clone()
            if value.ndim:
                batch[key][list(chosen)] = there[list(chosen)].to(value.dtype)
        elif isinstance(value, list) and isinstance(there, list) and len(value) == len(there):
            batch[key] = [there[i] if i in chosen else item for i, item in enumerate(value)]
        else:
            return None
    return batch


@attrs.frozen(kw_only=True)
class OutputsCase:
    """What losses and metrics are checked on: outputs in float64, and the batch they belong to."""

    options: Any
    info: Info = attrs.field(factory=info)
    given_outputs: Outputs | None = attrs.field(default=None, alias="outputs")
    given_batch: Batch | None = attrs.field(default=None, alias="batch")

    def __attrs_post_init__(self) -> None:
        """Say what is missing of what the author gave, before it fails somewhere else."""
        require(
            self.given_batch is None or self.given_outputs is not None,
            "batch= is given without outputs=; give both, for they belong together",
        )
        require("id" in self.batch, "the batch has no 'id'; give the ids of its items as a list")
        for name, value in self.outputs.items():
            require(
                self.given_batch is not None or value.shape[:1] in ((), (self.count,)),
                f"'{name}' of outputs= is not of the {self.count} items of the kit's own batch;"
                " give batch=, too",
            )

    @functools.cached_property
    def outputs(self) -> Outputs:
        """What the author gave, in float64, or the kit's own."""
        if self.given_outputs is None:
            return classification(self.info)[0]
        return cast(self.given_outputs, torch.float64)

    @functools.cached_property
    def batch(self) -> Batch:
        """What the author gave, or the kit's own."""
        return classification(self.info)[1] if self.given_batch is None else self.given_batch

    @property
    def count(self) -> int:
        """Items of the batch."""
        return len(self.batch["id"])

    def cast(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Return the outputs, those of floating point in another type."""
        return cast(self.outputs, dtype)

    def ignored(self) -> Batch | None:
        """Return the batch with all its labels ignored; None where they are no class indexes.

        They are, if they are whole numbers and some output has one more dimension.
        """
        labels = self.batch.get("labels")
        if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.int32):
            return None
        if all(value.ndim != labels.ndim + 1 for value in self.outputs.values()):
            return None
        return {**self.batch, "labels": torch.full_like(labels, IGNORED)}

    def hidden(self) -> tuple[list[int], list[int]]:
        """Return the items whose targets are taken away, one or two, and the others."""
        hidden = [index for index in (0, 3) if index + 1 < self.count]
        return hidden, [index for index in range(self.count) if index not in hidden]
