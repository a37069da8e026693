"""Texts and pairs of texts as token ids, and class scores as rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from framework.errors import UserError
from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins.models import _packing
from plugins.models._token_cache import FEW, Encoded, Rows, held, kept, width

if TYPE_CHECKING:
    from numpy.random import Generator


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
    cache: Path | None = None
    """Where tokens are kept; None: in memory."""

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Tokenise many at once: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` for pairs."""
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if len(records) < FEW or not hasattr(backend, "encode_batch_fast"):
            return held(records, self._encoded, width(2**32 - 1))
        dtype = width(max(backend.get_vocab(with_added_tokens=True).values()))
        if self.cache is None:
            return held(records, self._encoded, dtype)
        return kept(records, self._encoded, dtype, self._settings(backend), self.cache)

    def _settings(self, backend: Any) -> list[Any]:
        """Return all that token ids depend on, besides the texts."""
        from tokenizers import __version__ as version

        whole = json.loads(backend.to_str())
        # they are what the last call has left there
        whole |= {"truncation": None, "padding": None}
        tokenizer = self.tokenizer
        own = [type(tokenizer).__name__, tokenizer.truncation_side, tokenizer.split_special_tokens]
        return [version, own, self.max_length, self.truncation, self.token_types, whole]

    def _encoded(self, records: Sequence[Record]) -> tuple[Rows, Rows]:
        """Return token ids and types; `UserError` names a record that can't be encoded."""
        try:
            first = self._tokens(records[:1])
            quick = self._quick(records, first)
            if quick is not None:
                return quick
            encoded = self._tokens(records)
        except Exception:
            for record in records:
                self._check(record)
            raise
        return encoded["input_ids"], encoded.get("token_type_ids", [])

    def _quick(self, records: Sequence[Record], first: Any) -> tuple[Rows, Rows] | None:
        """Ask the backend, which the tokenizer's own call has just set up.

        None where the tokenizer itself makes something else of the first record.
        """
        backend: Any = getattr(self.tokenizer, "backend_tokenizer", None)
        if not hasattr(backend, "encode_batch_fast"):
            return None
        texts, pairs = self._texts(records)
        # of a wrong text it would tell the class alone
        if not all(isinstance(text, str) for text in chain(texts, pairs or ())):
            return None
        found = backend.encode_batch_fast(
            texts if pairs is None else [*zip(texts, pairs, strict=True)]
        )
        ids = [encoding.ids for encoding in found]
        types = [encoding.type_ids for encoding in found] if self.token_types else []
        same = first["input_ids"] == ids[:1] and first.get("token_type_ids", []) == types[:1]
        return (ids, types) if same else None

    def _texts(self, records: Sequence[Record]) -> tuple[list[str], list[str] | None]:
        texts = [record["text"] for record in records]
        pairs = "text_pair" in records[0]
        return texts, [record["text_pair"] for record in records] if pairs else None

    def _tokens(self, records: Sequence[Record]) -> Any:
        texts, pairs = self._texts(records)
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
