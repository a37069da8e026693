"""Windows of text as token ids: a split is encoded once, and mapped from the disk.

Legend of shapes: N tokens of a split, B windows, T tokens of the longest of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import attrs
import numpy as np
import torch
from torch.nn.functional import cross_entropy

from framework.errors import UserError
from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins import _cache
from plugins._language import IGNORED, PADDING, PIECE, LiveTokenizer, width

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VERSION = 1
"""Of the files' form."""


@attrs.frozen(eq=False)
class Tokens:
    """Ids of a text's tokens; a pickle holds the path of what is on disk."""

    ids_N: NDArray[Any]
    folder: Path | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Give the path instead of what is there."""
        return (_mapped, (self.folder,)) if self.folder else (Tokens, (self.ids_N,))


def _mapped(folder: Path) -> Tokens:
    """Open what was encoded before, here or by another process."""
    found = _cache.opened(folder)
    if found is None:
        raise FileNotFoundError(f"{folder}: the cached tokens were removed during the run")
    return Tokens(found.array("ids", found.facts["dtype"]), folder)


@attrs.frozen(eq=False)
class Encoded(Sequence[Features]):
    """Features of windows, each made when it is asked for.

    A window's tokens are those from `begins` to `ends`, the first of which predicts and is not
    predicted; training may move it on, as far as `limits`.
    """

    records: Sequence[Record] = attrs.field(repr=False)
    tokens: Tokens = attrs.field(repr=False)
    begins: NDArray[Any]
    ends: NDArray[Any]
    limits: NDArray[Any]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens that the model reads of each."""
        found: NDArray[np.int64] = self.ends.astype(np.int64)
        found -= self.begins
        found -= 1
        return np.maximum(found, 1, out=found)

    def __len__(self) -> int:
        """Count the windows."""
        return len(self.begins)

    @overload
    def __getitem__(self, at: int) -> Features: ...
    @overload
    def __getitem__(self, at: slice) -> list[Features]: ...
    def __getitem__(self, at: int | slice) -> Features | list[Features]:
        """Make the features of one window, or of some."""
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        begin, end, limit = (int(a[at]) for a in (self.begins, self.ends, self.limits))
        return {
            "id": self.records[at]["id"],
            "length": max(end - begin - 1, 1),
            "size": end - begin,
            "ids": np.asarray(self.tokens.ids_N[begin:limit], np.int64),
        }


@attrs.frozen
class TextWindows:
    """The processor of a language model."""

    tokenizer: LiveTokenizer
    context: int
    cache: Path | None = None
    """Where encoded splits are kept; None: in memory."""

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Encode a split's whole text, and find its windows; or each record's own text.

        Raises `UserError` for a window that comes to more tokens than the model can read.
        """
        if hasattr(records, "whole"):
            found = self._windows(records)
        else:
            texts = [self.tokenizer.encode(record["text"]) for record in records]
            sizes = np.fromiter(map(len, texts), np.int64, len(texts))
            ends = np.cumsum(sizes)
            found = Encoded(records, Tokens(np.concatenate(texts)), ends - sizes, ends, ends)
        if (longest := int(found.lengths.max())) > self.context:
            name = records[int(found.lengths.argmax())]["id"]
            raise UserError(
                f"window '{name}' comes to {longest} tokens and model.context is {self.context};"
                " raise it, or lower dataset.window"
            )
        return found

    def _windows(self, records: Any) -> Encoded:
        """Give every token of a split to the window in which its last character lies."""
        tokens = self._corpus(records)
        first = np.asarray(records.begins, np.int64) + 1
        slack = (0, records.window, records.window + records.slack)
        own, ends, limits = (self._upto(first + by, tokens.ids_N) for by in slack)
        np.maximum(own, 1, out=own)
        own -= 1
        return Encoded(records, tokens, own, ends, limits)

    def _upto(self, places: NDArray[np.int64], ids_N: NDArray[Any]) -> NDArray[Any]:
        """Count the tokens that end at or before each of some places, which ascend, in the text."""
        found = np.full(len(places), len(ids_N), "uint32" if len(ids_N) < 2**32 else "int64")
        done = characters = 0
        for begin in range(0, len(ids_N), PIECE):
            stops = characters + np.cumsum(self.tokenizer.characters[ids_N[begin : begin + PIECE]])
            characters = int(stops[-1])
            upto = int(np.searchsorted(places, characters))
            found[done:upto] = begin + np.searchsorted(stops, places[done:upto], "right")
            done = upto
        return found

    def _corpus(self, records: Any) -> Tokens:
        """Encode a split's text, or find what was encoded before; mapped where a disk keeps it."""
        text, dtype = records.whole, width(len(self.tokenizer.characters))
        if self.cache is None or not records.kept:
            return Tokens(self.tokenizer.encode(text).astype(dtype, copy=False))
        content = hashlib.blake2b(digest_size=32)
        for begin in range(0, len(text), PIECE):
            content.update(text[begin : begin + PIECE].encode("utf-8", "surrogatepass"))

        def build(folder: Path) -> dict[str, Any]:
            with _cache.create(folder / "ids") as stream:
                stream.write(self.tokenizer.encode(text).astype(dtype, copy=False).data)
            return {"dtype": dtype}

        key = _cache.key(_VERSION, "windows", content.hexdigest(), self.tokenizer.key)
        try:
            return _mapped(_cache.entry(self.cache, key, build).folder)
        except _cache.FAILURES as error:
            _cache.warn(self.cache, _cache.reason(error), "tokens are kept in memory")
            return Tokens(self.tokenizer.encode(text).astype(dtype, copy=False))

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Move a window on by any number of tokens that it may be moved by."""
        room = len(features["ids"]) - features["size"]
        at = int(rng.integers(room + 1)) if room > 0 else 0
        return {**features, "ids": features["ids"][at : at + features["size"]]}

    def collate(self, features: Sequence[Features]) -> Batch:
        """Return `input_ids` and, each a token on, `labels` [B, T], padded to the longest.

        `characters` [B, T] are how many of the text each label stands for.
        """
        shape = (len(features), max(item["length"] for item in features))
        inputs_BT, labels_BT = np.full(shape, PADDING), np.full(shape, IGNORED)
        for inputs, labels, item in zip(inputs_BT, labels_BT, features, strict=True):
            ids = item["ids"][: item["size"]]
            inputs[: len(ids[: item["length"]])] = ids[: item["length"]]
            labels[: len(ids[1:])] = ids[1:]
        counts_BT = np.where(labels_BT < 0, 0, self.tokenizer.characters[labels_BT.clip(min=0)])
        return {
            "id": [item["id"] for item in features],
            "input_ids": torch.from_numpy(inputs_BT),
            "labels": torch.from_numpy(labels_BT),
            "characters": torch.from_numpy(counts_BT),
        }

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per window how many tokens and characters it predicts, and its loss per token."""
        labels_BT = batch["labels"].to(outputs["logits"].device)
        losses_BT = cross_entropy(
            outputs["logits"].float().transpose(1, 2),
            labels_BT,
            ignore_index=IGNORED,
            reduction="none",
        )
        sums = losses_BT.sum(1).tolist()
        tokens = (labels_BT != IGNORED).sum(1).tolist()
        characters = batch["characters"].sum(1).tolist()
        return [
            {"id": name, "tokens": n, "characters": c, "loss": total / n if n else None}
            for name, n, c, total in zip(batch["id"], tokens, characters, sums, strict=True)
        ]
