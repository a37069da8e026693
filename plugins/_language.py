"""What language models, tokenizers and decodings agree on.

Legend of shapes: B texts of a batch, V tokens of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

PADDING, UNKNOWN = 0, 1
"""Ids that mean the same in every vocabulary; no text of the training split has either."""
SPECIAL = 2
"""The first id that stands for text."""
PIECE = 2**20
"""Characters or tokens of a long text that are worked on at once: more would fill the memory."""
IGNORED = -100
"""Label of a token that is no target."""


def width(vocabulary: int) -> str:
    """Return the smallest type of number that holds every id."""
    return "uint16" if vocabulary <= 2**16 else "uint32"


class LiveTokenizer(Protocol):
    """The live tokenizer: it knows its vocabulary, and can be pickled."""

    characters: NDArray[Any]
    """How many characters each token adds to a text, whole numbers [V]; of a text they add up."""
    key: str
    """All that token ids depend on, besides the text."""

    def encode(self, text: str) -> NDArray[Any]:
        """Ids of a text's tokens; what the vocabulary lacks is `UNKNOWN`."""

    def decode(self, ids: Sequence[int]) -> str:
        """Text of tokens; `UNKNOWN`, and a character that isn't whole, are U+FFFD."""

    def save(self, folder: Path) -> None:
        """Write it as JSON."""


class Tokenizer(Protocol):
    """Options of a tokenizer."""

    def build(self, texts: Iterable[str]) -> LiveTokenizer:
        """Make it from the training split's texts; `UserError` where they are empty."""

    def load(self, folder: Path) -> LiveTokenizer:
        """Read what `save` wrote; `UserError` where it isn't there, or is no tokenizer."""


Decode = Callable[["Tensor"], "Tensor"]
"""The live decoding: logits [B, V], those of tokens that can't be -inf, to probabilities [B, V].

Probabilities are float64, each row of its own logits alone; the choice among them is not its."""


class Decoding(Protocol):
    """Options of a decoding."""

    def build(self) -> Decode:
        """Build it."""


class Reader(Protocol):
    """Texts that are being read: it keeps keys and values of what it has read."""

    def __call__(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read on: texts of any lengths at first, then a token of each; logits [B, V]."""


class Generative(Protocol):
    """What a live model offers so that texts can be generated."""

    tokenizer: LiveTokenizer
    context: int
    """Tokens that it can read."""

    def reader(self) -> Reader:
        """Begin to read."""
