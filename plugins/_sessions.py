"""What datasets, models and commands of event sessions agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Event = Mapping[str, Any]
"""`event`, its name; where the data has them `type`, `gap` (seconds since the one before), `text`.

A session's record has its events, in their order, under `events`."""


def size(events: Sequence[Event]) -> int:
    """Return about how many tokens a session has: a text counts by its words.

    Records that know this of all sessions, as an array `sizes`, save a model from reading them.
    """
    # all but the text are one token each
    return sum(
        len(event) + (len(event["text"].split()) - 1 if "text" in event else 0) for event in events
    )
