"""One vocabulary for sessions of events: tokens of texts, and behind them those of structure.

Ids below `boundary` are a WordPiece's, special tokens among them; from it on stand the names of
events, the end of a session, types of events, and how much time went by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError
from framework.protocols import Record
from plugins._sessions import Event
from plugins.models import _wordpiece

_TEXT, _STRUCTURE = "tokenizer.json", "sessions.json"
_SHORTEST, _LONGEST = -10, 20
"""Gaps are told apart by powers of two of seconds between these: a millisecond, twelve days."""
_GAPS = _LONGEST - _SHORTEST + 2
"""Kinds of gaps: one is for none at all."""


class Special(NamedTuple):
    """Ids of the tokens that stand for nothing in a session."""

    padding: int
    unknown: int
    first: int
    last: int
    mask: int


class Tokens(NamedTuple):
    """A session as tokens, without the special ones around it; N tokens, E events."""

    ids_N: NDArray[np.int32]
    types_N: NDArray[np.int32]
    """Of each token its event's type, from 1; 0 where that has none or an unknown one."""
    starts_E: NDArray[np.int32]
    """Where each event begins; the last is the session's end, a token of its own."""


@attrs.frozen(eq=False)
class SessionTokenizer:
    """Makes tokens of events: name, type, gap, and then text, whichever an event has."""

    text: Any = attrs.field(repr=False)
    """A `tokenizers.Tokenizer`."""
    events: Mapping[str, int] = attrs.field(repr=False)
    """Where each name stands among the names; 0 is any other."""
    types: Mapping[str, int] = attrs.field(repr=False)
    """Likewise of types."""
    gaps: bool
    boundary: int = attrs.field(init=False)
    """The first id that isn't of text."""
    special: Special = attrs.field(init=False)

    @boundary.default
    def _boundary(self) -> int:
        return int(self.text.get_vocab_size())

    @special.default
    def _special(self) -> Special:
        found = [self.text.token_to_id(token) for token in _wordpiece.SPECIAL]
        if None in found:
            lost = _wordpiece.SPECIAL[found.index(None)]
            raise UserError(f"the tokenizer has no token {lost}; it isn't one of sessions")
        return Special(*found)

    @property
    def end(self) -> int:
        """The id that says that a session is over."""
        return self.boundary + 1 + len(self.events)

    @property
    def type_ids(self) -> range:
        """Ids that tell a type; none where no event of train has one."""
        first = self.end + 1
        return range(first, first + (len(self.types) + 1 if self.types else 0))

    @property
    def size(self) -> int:
        """Tokens of the whole vocabulary."""
        return self.type_ids.stop + (_GAPS if self.gaps else 0)

    def encode(self, events: Sequence[Event], room: int) -> Tokens:
        """Make tokens; of an event that alone has more than `room`, the first ones."""
        texts, type_ids = iter(self._texts(events)), self.type_ids
        ids: list[int] = []
        types: list[int] = []
        starts: list[int] = []
        for event in events:
            starts.append(len(ids))
            own = [self.boundary + self.events.get(event["event"], 0)]
            kind = self.types.get(event.get("type", ""), 0)
            if self.types and "type" in event:
                own.append(type_ids[kind])
            if self.gaps and "gap" in event:
                own.append(type_ids.stop + _bucket(event["gap"]))
            if event.get("text"):
                own += next(texts)
            ids += own[:room]
            types += [kind] * len(own[:room])
        starts.append(len(ids))
        ids.append(self.end)
        types.append(0)
        return Tokens(*(np.asarray(part, np.int32) for part in (ids, types, starts)))

    def _texts(self, events: Sequence[Event]) -> list[list[int]]:
        texts = [event["text"] for event in events if event.get("text")]
        if not texts:
            return []
        # what reads like [MASK] is text; this isn't saved nor pickled with the tokenizer
        self.text.encode_special_tokens = True
        return [e.ids for e in self.text.encode_batch_fast(texts, add_special_tokens=False)]

    def save(self, folder: Path) -> None:
        """Write it as JSON."""
        (folder / _TEXT).write_text(self.text.to_str(), encoding="utf-8")
        kept = {"events": [*self.events], "types": [*self.types], "gaps": self.gaps}
        text = json.dumps(kept, ensure_ascii=False, indent=1)
        (folder / _STRUCTURE).write_text(text, encoding="utf-8")


def _bucket(seconds: float) -> int:
    """Return which kind a gap is of: 0 is none, then each twice as long as the one before."""
    if seconds <= 0:
        return 0
    return 1 + math.floor(min(max(math.log2(seconds), _SHORTEST), _LONGEST)) - _SHORTEST


def trained(records: Iterable[Record], size: int) -> SessionTokenizer:
    """Make the vocabulary of a training split, read session by session.

    `size` is about how many tokens of texts there may be.
    """
    events: set[str] = set()
    types: set[str] = set()
    gaps = worded = False
    for record in records:
        for event in record["events"]:
            events.add(event["event"])
            if "type" in event:
                types.add(event["type"])
            gaps = gaps or "gap" in event
            worded = worded or "text" in event
    wordpiece = _wordpiece.train(_Texts(records) if worded else [], size, token_types=False)
    return SessionTokenizer(wordpiece.backend_tokenizer, _numbered(events), _numbered(types), gaps)


def _numbered(names: Iterable[str]) -> dict[str, int]:
    return {name: at for at, name in enumerate(sorted(names), 1)}


@attrs.frozen
class _Texts:
    """The texts of all events as records, as often as they are asked for."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Record]:
        for record in self.records:
            yield from ({"text": event["text"]} for event in record["events"] if "text" in event)


def loaded(folder: Path) -> SessionTokenizer:
    """Read what was saved; `UserError` where that isn't there."""
    from tokenizers import Tokenizer

    try:
        kept = json.loads((folder / _STRUCTURE).read_text(encoding="utf-8"))
        events, types = (
            {name: at for at, name in enumerate(kept[key], 1)} for key in ("events", "types")
        )
        text = Tokenizer.from_str((folder / _TEXT).read_text(encoding="utf-8"))
        return SessionTokenizer(text, events, types, bool(kept["gaps"]))
    except UserError as error:
        raise UserError(f"{folder}: {error}") from None
    except Exception as error:  # the library raises Exception itself
        kind = type(error).__name__
        raise UserError(f"{folder}: the vocabulary of sessions can't be read ({kind})") from error
