"""A bag of hashed words: the smallest model that learns."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from framework.protocols import Batch, Features, Info, Labelled, Outputs, Record, Row, option


@attrs.frozen
class Template:
    """The mean of word vectors and a linear layer; words share vectors by their hash.

    The hashing of Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (ICML
    2009), so that no vocabulary is kept.
    """

    buckets: int = option(4096, help="word vectors", validator=attrs.validators.ge(1))
    width: int = option(32, help="numbers of a word vector", validator=attrs.validators.ge(1))

    def build(self, info: Info, assets: Path | None = None) -> LiveTemplate:  # noqa: ARG002
        """Build it for a dataset's labels; it has no assets, so they change nothing."""
        labels = tuple(info["labels"])
        return LiveTemplate(Bag(self.buckets, self.width, len(labels)), Words(self.buckets, labels))


class Bag(nn.Module):
    """Mean and linear layer; B items, T words, C classes."""

    def __init__(self, buckets: int, width: int, classes: int) -> None:
        """Make the layers; bucket 0 is padding."""
        super().__init__()
        self.words = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        self.head = nn.Linear(width, classes)

    def forward(self, words: Tensor, **_: object) -> dict[str, Tensor]:
        """Return `logits` [B, C] of `words` [B, T]; the rest of the batch is not its concern."""
        return {"logits": self.head(self.words(words))}


@attrs.frozen
class Words:
    """Turns texts into buckets, and outputs into rows."""

    buckets: int
    labels: Sequence[str]

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Hash the words of each record; a text without any is padding alone."""
        return [self._features(record) for record in records]

    def _features(self, record: Record) -> Features:
        texts = [record["text"], record.get("text_pair", "")]
        words = " ".join(texts).lower().split()
        # crc32, as Python's own hash of a text changes with every process
        found = [1 + zlib.crc32(word.encode()) % self.buckets for word in words] or [0]
        kept = {key: record[key] for key in ("label", "meta") if key in record}
        return {"id": record["id"], "length": len(found), "words": found, **kept}

    def augment(self, features: Features, rng: np.random.Generator) -> Features:  # noqa: ARG002
        """Nothing is changed."""
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad to the longest: `words` [B, T], and `labels` [B] where there are any."""
        longest = max(item["length"] for item in features)
        rows = [item["words"] + [0] * (longest - item["length"]) for item in features]
        batch: Batch = {"id": [item["id"] for item in features], "words": torch.tensor(rows)}
        if "label" in features[0]:
            batch["labels"] = torch.tensor([item["label"] for item in features])
        if "meta" in features[0]:
            batch["meta"] = [item["meta"] for item in features]
        return batch

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per item its id, label where known, prediction and probabilities."""
        rows: list[Row] = []
        probabilities_BC = outputs["logits"].double().softmax(-1)
        for index, values in enumerate(probabilities_BC.tolist()):
            row: Row = {"id": batch["id"][index]}
            if "labels" in batch:
                row["label"] = self.labels[int(batch["labels"][index])]
            row["prediction"] = self.labels[values.index(max(values))]
            scores = zip(self.labels, values, strict=True)
            rows.append(row | {f"probability_{label}": value for label, value in scores})
        return rows


@attrs.frozen
class LiveTemplate:
    """The model with the processor of its texts."""

    module: Bag
    processor: Words

    def labelled(self) -> list[Labelled]:
        """Every parameter: the word vectors at depth 0, the head above them."""
        return [
            Labelled(name, parameter, "head", 1)
            if name.startswith("head")
            else Labelled(name, parameter, "base", 0)
            for name, parameter in self.module.named_parameters()
        ]

    def save_assets(self, folder: Path) -> None:
        """Write nothing: options and labels are all that building it again needs."""
