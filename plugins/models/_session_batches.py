"""Sessions as batches: tokenised when they are read, masked anew in each epoch of training.

Legend of shapes: N tokens of a session, E its events, B sessions of a batch, T tokens of the
longest with the special ones around them, K passes of an evaluation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, overload

import attrs
import numpy as np
import torch
from numpy.typing import NDArray

from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins._language import IGNORED
from plugins._sessions import sizes
from plugins._surprise import surprise
from plugins.models._masking import Masking
from plugins.models._session_tokens import SessionTokenizer, Tokens

Ints = NDArray[np.int32]
_log = logging.getLogger("framework")
_AROUND = 3
"""Tokens of a session besides its events': the special ones at both ends, and its own end."""
_KEPT = ("label", "meta")
"""What features have of their record."""


@attrs.frozen(eq=False)
class Encoded(Sequence[Features]):
    """Features of sessions, each read and tokenised when it is asked for, and not kept."""

    records: Sequence[Record] = attrs.field(repr=False)
    tokenizer: SessionTokenizer
    room: int
    """Tokens of a session that fit between the special ones."""
    lengths: NDArray[np.int64] = attrs.field(repr=False)
    cut: list[str] = attrs.field(factory=list, repr=False)
    """The first session that has an event of more tokens; it was told."""

    def __len__(self) -> int:
        """Count the sessions."""
        return len(self.lengths)

    @overload
    def __getitem__(self, at: int) -> Features: ...
    @overload
    def __getitem__(self, at: slice) -> list[Features]: ...
    def __getitem__(self, at: int | slice) -> Features | list[Features]:
        """Make the features of one session, or of some."""
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        index = range(len(self))[at]
        record = self.records[index]
        tokens = self._tokens(record)
        made = {"id": record["id"], "length": int(self.lengths[index]), **tokens._asdict()}
        return made | {name: record[name] for name in _KEPT if name in record}

    def _tokens(self, record: Record) -> Tokens:
        """Tokenise; once it is said that an event doesn't fit."""
        tokens = self.tokenizer.encode(record["events"], self.room + 1)
        if np.diff(tokens.starts_E).max() <= self.room:
            return tokens
        if not self.cut:
            self.cut.append(record["id"])
            _log.warning(
                "an event alone has more tokens than model.max_length = %s holds: the end of its"
                " text is never read, and the same goes for others like it",
                self.room + 2,
            )
        return self.tokenizer.encode(record["events"], self.room)


@attrs.frozen
class SessionBatches:
    """The processor of a model of sessions.

    Long sessions are cut where events begin: in training anywhere, in evaluation after what fits.
    """

    tokenizer: SessionTokenizer
    masking: Masking
    max_length: int
    """Tokens of a session, with the special ones at its ends."""
    keep: float
    """Share of the events that training reads."""
    unfinished: float
    """Share of the sessions that training reads up to some event."""
    turns: int
    """Passes of an evaluation."""
    labels: Sequence[str] = ()

    def encode(self, records: Sequence[Record]) -> Encoded:
        """Return features that are made on access; lengths are the most that there can be."""
        known = getattr(records, "sizes", None)
        if known is None:
            known = [sizes(record["events"]) for record in records]
        bounds = np.asarray(known, np.int64).reshape(-1, 2) + _AROUND
        least, most = bounds[:, 0], bounds[:, 1]
        if hasattr(records, "sizes") and (long := int((least > self.max_length).sum())):
            _log.warning(
                "%s%s of %s sessions have more than model.max_length = %s tokens: training reads"
                " chunks of them, evaluation the beginning",
                *("at least " if (least < most).any() else "", long, len(least), self.max_length),
            )
        lengths = np.minimum(most, self.max_length)
        return Encoded(records, self.tokenizer, self.max_length - 2, lengths)

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Leave events out, cut out a chunk of whole events, and mask tokens of it."""
        tokens = Tokens(*(features[name] for name in Tokens._fields))
        tokens = self._chunk(_picked(tokens, self._sampled(len(tokens.starts_E), rng)), rng)
        inputs_N, labels_N = self.masking.draw(tokens.ids_N, rng)
        types_N = self._hidden(tokens, labels_N != IGNORED)
        made = {"ids_N": inputs_N, "types_N": types_N, "starts_E": tokens.starts_E}
        return {**features, **made, "labels_N": labels_N}

    def _sampled(self, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return which events are read, at least one, and whether the end is, which comes last."""
        kept_E = np.append(rng.random(count - 1) < self.keep, True)
        kept_E[rng.integers(count - 1)] = True
        if rng.random() < self.unfinished:
            kept_E[rng.choice(np.flatnonzero(kept_E[:-1])) + 1 :] = False
        return kept_E

    def _chunk(self, tokens: Tokens, rng: np.random.Generator | None) -> Tokens:
        """Return whole events that fit: from any that has enough behind it, or the first."""
        room, count, starts_E = self.max_length - 2, len(tokens.ids_N), tokens.starts_E
        if count <= room:
            return tokens
        first = 0
        if rng is not None:
            # an event that fills the room has none for the end behind it, which alone says nothing
            last = len(starts_E) - 1 - int(tokens.ids_N[-1] == self.tokenizer.end)
            enough = int(np.searchsorted(starts_E, count - room))
            first = int(rng.integers(min(enough, last) + 1))
        ends_E = np.append(starts_E[1:], count)
        at_E = np.arange(len(starts_E))
        return _picked(tokens, (at_E >= first) & (ends_E <= starts_E[first] + room))

    def _hidden(self, tokens: Tokens, targets_N: NDArray[np.bool_]) -> Ints:
        """Return the types of events, hidden where one is to be predicted."""
        range_ = self.tokenizer.type_ids
        told_N = targets_N & (tokens.ids_N >= range_.start) & (tokens.ids_N < range_.stop)
        owner_N = _owners(tokens)
        return np.where(np.isin(owner_N, owner_N[told_N]), 0, tokens.types_N).astype(np.int32)

    def collate(self, features: Sequence[Features]) -> Batch:
        """Return a batch of training, or of evaluation, where every token is masked once.

        `input_ids` and `event_types` are [B, T], or [B, K, T] with `turns` [B, T], the pass in
        which a token is masked (-1: none). `attention_mask`, `labels` [B, T]; `item_labels` [B].
        """
        training = "labels_N" in features[0]
        made = [self._drawn(f) if training else self._evaluated(f) for f in features]
        longest = 2 + max(row["labels"].shape[-1] for row in made)
        fills = {"input_ids": self.tokenizer.special.padding, "labels": IGNORED, "turns": -1}
        batch: Batch = {"id": [item["id"] for item in features]}
        for key in made[0]:
            rows = [self._framed(row[key], key, longest, fills.get(key, 0)) for row in made]
            batch[key] = torch.from_numpy(np.stack(rows).astype(np.int64))
        if "label" in features[0]:
            batch["item_labels"] = torch.tensor([item["label"] for item in features])
        if "meta" in features[0]:
            batch["meta"] = [item["meta"] for item in features]
        return batch

    def _framed(self, row: Ints, key: str, longest: int, fill: int) -> Ints:
        """Put special tokens, or what belongs to them, around a row [..., N]; [..., T]."""
        ends: tuple[int, int] = (fill, fill)
        if key == "input_ids":
            ends = self.tokenizer.special.first, self.tokenizer.special.last
        elif key == "attention_mask":
            ends = 1, 1
        found = np.full((*row.shape[:-1], longest), fill, np.int32)
        count = row.shape[-1]
        found[..., 0], found[..., count + 1] = ends
        found[..., 1 : count + 1] = row
        return found

    def _drawn(self, features: Features) -> dict[str, Ints]:
        ids_N = features["ids_N"]
        return {
            "input_ids": ids_N,
            "event_types": features["types_N"],
            "attention_mask": np.ones_like(ids_N),
            "labels": features["labels_N"],
        }

    def _evaluated(self, features: Features) -> dict[str, Ints]:
        tokens = self._chunk(Tokens(*(features[name] for name in Tokens._fields)), None)
        turns_N = self.masking.turns(tokens.ids_N, self.turns)
        masked_KN = turns_N == np.arange(self.turns)[:, None]
        return {
            "input_ids": np.where(masked_KN, self.masking.mask, tokens.ids_N),
            "event_types": np.stack([self._hidden(tokens, row) for row in masked_KN]),
            "attention_mask": np.ones_like(tokens.ids_N),
            "labels": np.where(turns_N < 0, IGNORED, tokens.ids_N),
            "turns": turns_N,
        }

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per session its label if known, its tokens and their mean loss in nats."""
        losses = surprise(outputs, batch).tolist()
        counts = (batch["labels"] != IGNORED).sum(1).tolist()
        labels: list[Any] = batch["item_labels"].tolist() if "item_labels" in batch else []
        rows: list[Row] = []
        for at, name in enumerate(batch["id"]):
            told = {"label": self.labels[labels[at]]} if labels else {}
            rows.append({"id": name, **told, "tokens": counts[at], "loss": losses[at]})
        return rows


def _owners(tokens: Tokens) -> NDArray[np.int64]:
    """Return the number of each token's event."""
    return np.searchsorted(tokens.starts_E, np.arange(len(tokens.ids_N)), "right") - 1


def _picked(tokens: Tokens, kept_E: NDArray[np.bool_]) -> Tokens:
    """Return the tokens of some events."""
    kept_N = kept_E[_owners(tokens)]
    lengths_E = np.diff(np.append(tokens.starts_E, len(tokens.ids_N)))[kept_E]
    starts_E = (np.cumsum(lengths_E) - lengths_E).astype(np.int32)
    return Tokens(tokens.ids_N[kept_N], tokens.types_N[kept_N], starts_E)
