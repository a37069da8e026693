"""Texts and pairs of texts as token ids, and class scores as rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from framework.errors import UserError
from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins.models import _packing

if TYPE_CHECKING:
    from numpy.random import Generator

CHUNK = 1024
"""Records that are tokenised at once."""


@attrs.frozen
class TextPairs:
    """The processor of a classifier; special tokens and their ids are the tokenizer's."""

    tokenizer: Any
    max_length: int
    truncation: str
    token_types: bool
    labels: tuple[str, ...]
    packing: bool = False
    """Whether batches are flat, without padding."""
    augments: bool = False

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Tokenise many at once: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` for pairs."""
        starts = range(0, len(records), CHUNK)
        chunks = ([records[i] for i in range(at, min(at + CHUNK, len(records)))] for at in starts)
        return [features for chunk in chunks for features in self._encoded(chunk)]

    def _encoded(self, records: Sequence[Record]) -> list[Features]:
        try:
            encoded = self._tokens(records)
        except Exception:
            for record in records:
                self._check(record)
            raise
        columns = [key for key in ("input_ids", "token_type_ids") if key in encoded]
        return [self._features(record, encoded, columns, i) for i, record in enumerate(records)]

    def _tokens(self, records: Sequence[Record]) -> Any:
        texts = [record["text"] for record in records]
        pairs = [record["text_pair"] for record in records] if "text_pair" in records[0] else None
        return self.tokenizer(
            texts,
            pairs,
            truncation=self.truncation if pairs else "longest_first",
            max_length=self.max_length,
            return_token_type_ids=self.token_types,
            return_attention_mask=False,
        )

    def _check(self, record: Record) -> None:
        """Raise `UserError` for a record that can't be encoded; it never quotes a text."""
        try:
            self._tokens([record])
        except Exception as error:
            texts = [record[key] for key in ("text", "text_pair") if key in record]
            if not all(isinstance(text, str) for text in texts):
                reason = "its text is no text"
            else:
                reason = (
                    "its first text leaves no room for the second in model.max_length ="
                    f' {self.max_length} tokens; raise it, or use truncation = "longest_first"'
                )
            raise UserError(f"record '{record['id']}': {reason}") from error

    def _features(
        self, record: Record, encoded: Any, columns: Sequence[str], index: int
    ) -> Features:
        made: dict[str, Any] = {"id": record["id"], "length": len(encoded["input_ids"][index])}
        made |= {key: np.array(encoded[key][index], dtype=np.int32) for key in columns}
        made |= {key: record[key] for key in ("label", "meta") if key in record}
        return made

    def augment(self, features: Features, rng: Generator) -> Features:  # noqa: ARG002
        """Nothing is changed."""
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Pad to the longest: `input_ids`, `attention_mask`, `token_type_ids` [B, T]; or pack."""
        batch: Batch = {"id": [item["id"] for item in features]}
        batch |= _packing.flat(features) if self.packing else self._padded(features)
        if "label" in features[0]:
            batch["labels"] = torch.tensor([item["label"] for item in features])
        if "meta" in features[0]:
            batch["meta"] = [item["meta"] for item in features]
        return batch

    def _padded(self, features: Sequence[Features]) -> Batch:
        lengths = torch.tensor([item["length"] for item in features])
        longest = int(lengths.max())
        batch: Batch = {}
        for key, fill in (("input_ids", self.tokenizer.pad_token_id), ("token_type_ids", 0)):
            if key in features[0]:
                padded = np.full((len(features), longest), fill, dtype=np.int64)
                for row, item in zip(padded, features, strict=True):
                    row[: item["length"]] = item[key]
                batch[key] = torch.from_numpy(padded)
        mask = torch.arange(longest) < lengths.unsqueeze(1)
        batch["attention_mask"] = mask.long()
        return batch

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per item its id, label where known, prediction and probabilities."""
        probabilities_BC = outputs["logits"].double().softmax(-1).cpu()
        rows = []
        for index, (record, values) in enumerate(
            zip(batch["id"], probabilities_BC.tolist(), strict=True)
        ):
            row: Row = {"id": record}
            if "labels" in batch:
                row["label"] = self.labels[int(batch["labels"][index])]
            row["prediction"] = self.labels[max(range(len(values)), key=values.__getitem__)]
            scores = zip(self.labels, values, strict=True)
            rows.append(row | {f"probability_{label}": value for label, value in scores})
        return rows
