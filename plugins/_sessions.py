"""What datasets, models and commands of event sessions agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from framework.errors import UserError, listing
from framework.protocols import Info

Event = Mapping[str, Any]
"""`event`, its name; where the data has them `type`, `gap` (seconds since the one before), `text`.

A session's record has its events, in their order, under `events`."""


def digest(events: Sequence[Event]) -> bytes:
    """Return what is the same for sessions with the same names, types and texts in their order.

    Times don't count: no two sessions take the very same time, whatever happens in them.
    """
    told = [[event["event"], event.get("type"), event.get("text")] for event in events]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).digest()


def abnormal(info: Info, named: str) -> int:
    """Return the index of the label of abnormal sessions: the named one, or else the only other.

    That is the one label that wasn't trained on, or of 0 and 1 the 1. Raises `UserError` where
    there is no such label, or no other.
    """
    labels = [*info.get("labels", ())]
    others = [label for label in labels if label != info.get("train_on")]
    if not named and len(others) == 1 < len(labels):
        (named,) = others
    elif not named and labels == ["0", "1"]:
        named = "1"
    if named not in labels or len(labels) == 1:
        raise UserError(
            f"sessions are labelled {listing(labels)}; expected"
            f" {repr(named) if named else 'the one that is abnormal as positive'}, and another"
        )
    return labels.index(named)


def sizes(events: Sequence[Event]) -> tuple[int, int]:
    """Return how many tokens a session has at least, and at most, as far as events tell it.

    A text has one a word, and at most one a byte that isn't blank: no vocabulary is needed.
    Records that know this of all sessions, as an array `sizes` [sessions, 2], save a model from
    reading them.
    """
    # all but the text are one token each
    rest = sum(len(event) - ("text" in event) for event in events)
    words = [word for event in events for word in event.get("text", "").split()]
    return rest + len(words), rest + sum(len(word.encode()) for word in words)
