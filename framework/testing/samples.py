"""What the checks run plugins on where their author gives nothing: a tiny classification task.

All of it is synthetic. Legend of shapes: B items, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from framework.protocols import Batch, Info, Outputs, Record

CLASSES = 3
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
