"""A token for every character."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from framework.errors import UserError
from plugins._language import PIECE, SPECIAL, UNKNOWN, width

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "characters.json"


@attrs.frozen
class Character:
    """The characters of the training split in the order of their code points, from id 2 on."""

    def build(self, texts: Iterable[str]) -> Characters:
        """Collect the characters; `UserError` where there is none."""
        found = sorted(set().union(*texts))
        if not found:
            raise UserError("tokenizer 'character': the training split holds no text")
        return Characters("".join(found))

    def load(self, folder: Path) -> Characters:
        """Read a saved alphabet; `UserError` where it isn't there, or is none."""
        file = folder / _FILE
        try:
            alphabet = json.loads(file.read_bytes())["characters"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{file}: no saved alphabet ({type(error).__name__})") from error
        if not (isinstance(alphabet, str) and alphabet == "".join(sorted(set(alphabet)))):
            raise UserError(f"{file}: its characters are not a sorted text of different ones")
        return Characters(alphabet)


@attrs.frozen(eq=False)
class Characters:
    """An alphabet: the ids of its characters begin behind the special ones."""

    alphabet: str

    @property
    def key(self) -> str:
        """The alphabet."""
        return f"character {self.alphabet}"

    @property
    def characters(self) -> NDArray[np.int64]:
        """One for each token but padding; an unknown character is one, too."""
        counts = np.ones(SPECIAL + len(self.alphabet), np.int64)
        counts[0] = 0
        return counts

    def encode(self, text: str) -> NDArray[Any]:
        """Ids of the characters, in the smallest type that holds them."""
        known = _points(self.alphabet)
        ids = np.empty(len(text), width(SPECIAL + len(known)))
        for begin in range(0, len(text), PIECE):
            given = _points(text[begin : begin + PIECE])
            at = np.searchsorted(known, given).clip(max=len(known) - 1)
            ids[begin : begin + PIECE] = np.where(known[at] == given, at + SPECIAL, UNKNOWN)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Join the characters."""
        table = ["", "\ufffd", *self.alphabet]
        return "".join(table[index] for index in ids)

    def save(self, folder: Path) -> None:
        """Write the alphabet."""
        text = json.dumps({"characters": self.alphabet}, ensure_ascii=True)
        (folder / _FILE).write_text(text, encoding="utf-8")


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
