"""Tokenizers that are wrong on purpose."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from broken import Defect
from framework.errors import UserError


class Live:
    """Bytes as tokens; subclasses break a piece each."""

    key: Any = "bytes"

    def __init__(self) -> None:
        """Count the characters by their first bytes."""
        self.characters: Any = np.array([0, 1, *(byte & 0xC0 != 0x80 for byte in range(256))], int)

    def encode(self, text: str) -> Any:
        """Return the ids."""
        return [byte + 2 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        return bytes(index - 2 for index in ids).decode(errors="replace")

    def save(self, folder: Path) -> None:
        """Write it."""
        (folder / "bytes.json").write_text(json.dumps(256))


class Right:
    """A right tokenizer of a live class; subclasses break a piece each."""

    def __init__(self, live: Callable[[], Any] = Live) -> None:
        """Keep the class."""
        self.live = live

    def build(self, texts: Iterable[str]) -> Any:
        """Make it."""
        if not any(texts):
            raise UserError("there is no text")
        return self.live()

    def load(self, folder: Path) -> Any:
        """Read it."""
        if not any(folder.iterdir()):
            raise UserError(f"{folder}: nothing is here")
        return self.live()


class NoKey(Live):
    """It says nothing of what ids depend on."""

    key = None


class NoLoad:
    """It can't be read back."""

    def build(self, texts: Iterable[str]) -> Any:
        """Make it."""
        return Right().build(texts)


class Beyond(Live):
    """It has an id more than its table of characters."""

    def encode(self, text: str) -> Any:
        """Return the ids."""
        return [byte + 200 for byte in text.encode()]


class SpecialInText(Live):
    """It begins where special ids are."""

    def encode(self, text: str) -> Any:
        """Return the ids."""
        return [max(1, byte - 48) for byte in text.encode()]


class Lowers(Live):
    """It loses what is upper case."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        return super().decode(ids).lower()


class CountsBytes(Live):
    """It takes bytes for characters."""

    def __init__(self) -> None:
        """Count each byte."""
        self.characters = np.array([0, *[1] * 257])


class PaddingCounts(Live):
    """Its padding counts as a character."""

    def __init__(self) -> None:
        """Count it."""
        super().__init__()
        self.characters[0] = 1


class Counting(Live):
    """Its key, or its ids, say how many were made."""

    made = itertools.count()

    def __init__(self) -> None:
        """Count it."""
        super().__init__()
        self.number = next(self.made)


class OtherKey(Counting):
    """Its key is a number of its own."""

    @property
    def key(self) -> Any:
        """Return the number."""
        return str(self.number)

    @key.setter
    def key(self, _: Any) -> None:
        """Keep it."""


class OtherIds(Counting):
    """Ids are shuffled by chance."""

    def encode(self, text: str) -> Any:
        """Return the ids."""
        return [(byte + self.number) % 256 + 2 for byte in text.encode()]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text."""
        return bytes((index - 2 - self.number) % 256 for index in ids).decode(errors="replace")


class OfNothing(Right):
    """It is made of no text, too."""

    def build(self, _: Iterable[str]) -> Any:
        """Make it."""
        return Live()


class Pickles(Live):
    """It saves what is no JSON."""

    def save(self, folder: Path) -> None:
        """Write it."""
        (folder / "bytes.pkl").write_bytes(b"\x80\x04N.")


class LoadsAnother(Right):
    """What it reads back is another."""

    def load(self, folder: Path) -> Any:
        """Read it."""
        super().load(folder)
        return SpecialInText()


class LoadsNothing(Right):
    """It reads back what isn't there."""

    def load(self, _: Path) -> Any:
        """Make another."""
        return Live()


class Held(Live):
    """It holds what can't be pickled."""

    def __init__(self) -> None:
        """Hold a function."""
        super().__init__()
        self.held = lambda: None


DEFECTS = [
    Defect("has_the_protocol", Right(NoKey), "'key' is a NoneType"),
    Defect("has_the_protocol", NoLoad(), "has no method load(folder)"),
    Defect("ids_are_of_the_vocabulary", Right(Beyond), "they go from"),
    Defect("ids_are_of_the_vocabulary", Right(SpecialInText), "from 2 to 257"),
    Defect("texts_are_given_back", Right(Lowers), "comes back as another"),
    Defect("characters_add_up", Right(CountsBytes), "is counted as"),
    Defect("characters_add_up", Right(PaddingCounts), "padding counts 1"),
    Defect("same_texts_same_tokenizer", Right(OtherKey), "another 'key'"),
    Defect("same_texts_same_tokenizer", Right(OtherIds), "gives other ids"),
    Defect("nothing_to_learn_from_is_refused", OfNothing(), "it is made of []"),
    Defect("survives_saving", Right(Pickles), "'bytes.pkl', which is no JSON"),
    Defect("survives_saving", LoadsAnother(), "loaded again it gives other ids"),
    Defect("nothing_saved_is_refused", LoadsNothing(), "loaded from an empty folder"),
    Defect("travels_to_workers", Right(Held), "it can't be pickled"),
]
