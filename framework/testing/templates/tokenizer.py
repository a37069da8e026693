"""A token for every byte of UTF-8."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import numpy as np

from framework.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPECIAL = 2
"""Id 0 is padding, 1 what a vocabulary lacks; text begins here."""
FILE = "bytes.json"
CONTINUED = 0b10
"""The two highest bits of a byte that begins no character."""


@attrs.frozen
class Template:
    """Bytes as they are: nothing is learnt, and every text can be encoded."""

    def build(self, texts: Iterable[str]) -> LiveTemplate:
        """Make it of the training split's texts; `UserError` where there are none."""
        if not any(texts):
            raise UserError("the training split holds no text")
        return LiveTemplate()

    def load(self, folder: Path) -> LiveTemplate:
        """Read what `save` wrote; `UserError` where it isn't there."""
        if not (folder / FILE).is_file():
            raise UserError(f"{folder / FILE}: no saved tokenizer")
        return LiveTemplate()


@attrs.frozen
class LiveTemplate:
    """A vocabulary of 256 bytes; `key` is all that ids depend on, besides the text."""

    key: str = "bytes"

    @property
    def characters(self) -> NDArray[np.int64]:
        """How many characters a token adds to a text: one where its first byte stands."""
        first = (np.arange(256) >> 6) != CONTINUED
        return np.concatenate([np.zeros(SPECIAL, np.int64), first.astype(np.int64)])

    def encode(self, text: str) -> NDArray[np.int64]:
        """Ids of a text's bytes."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64) + SPECIAL

    def decode(self, ids: Sequence[int]) -> str:
        """The text again; what is no whole character is U+FFFD."""
        return bytes(i - SPECIAL for i in ids if i >= SPECIAL).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write it as JSON."""
        (folder / FILE).write_text(json.dumps({"bytes": 256}), encoding="utf-8")
