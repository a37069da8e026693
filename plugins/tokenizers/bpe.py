"""Byte-level byte-pair encoding."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from framework.errors import UserError
from framework.protocols import option
from plugins._language import PIECE, SPECIAL, width

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FILE = "tokenizer.json"
_SPECIAL = ("<pad>", "<unk>")
_BYTES = 256


@attrs.frozen
class Bpe:
    """Byte-pair encoding over the bytes of UTF-8 (Sennrich et al., ACL 2016; Radford et al., 2019).

    Every text can be encoded and is given back unchanged. Merges are learnt from the training
    split alone, by the library `tokenizers`, whose `tokenizer.json` is what is saved.
    """

    vocabulary: int = option(
        1000,
        help="tokens in all: two special ones, the 256 bytes, and merges",
        validator=attrs.validators.ge(SPECIAL + _BYTES),
    )

    def build(self, texts: Iterable[str]) -> LiveBpe:
        """Learn the merges; `UserError` where there is no text."""
        from tokenizers import models, pre_tokenizers, trainers

        seen = _Counted(texts)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=list(_SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        draft = _backend(models.BPE())
        draft.train_from_iterator(seen, trainer)
        if not seen.characters:
            raise UserError("tokenizer 'bpe': the training split holds no text")
        learnt = json.loads(draft.to_str())["model"]
        # of a trained one the special tokens would be found in texts, which may hold their letters
        merges = [tuple(pair) for pair in learnt["merges"]]
        return LiveBpe(_backend(models.BPE(learnt["vocab"], merges)))

    def load(self, folder: Path) -> LiveBpe:
        """Read a saved one; `UserError` where it isn't there, or is none."""
        from tokenizers import Tokenizer

        file = folder / _FILE
        try:
            backend = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises nothing narrower
            reason = type(error).__name__
            raise UserError(f"{file}: no saved tokenizer of 'bpe' ({reason})") from error
        if [backend.id_to_token(index) for index in range(SPECIAL)] != list(_SPECIAL):
            raise UserError(f"{file}: its ids 0 and 1 are not {_SPECIAL[0]} and {_SPECIAL[1]}")
        return LiveBpe(backend)


@attrs.define
class _Counted:
    """Texts, and how many characters of them were read."""

    texts: Iterable[str]
    characters: int = 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.characters += len(text)
            yield text


def _backend(model: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


@attrs.frozen(eq=False)
class LiveBpe:
    """A tokenizer of the library `tokenizers`."""

    backend: Any
    characters: NDArray[np.int64] = attrs.field(init=False)

    @characters.default
    def _characters(self) -> NDArray[np.int64]:
        # a character is counted where its first byte stands; the other bytes are 10xxxxxx
        first = {sign: byte & 0xC0 != 0x80 for sign, byte in _alphabet().items()}  # noqa: PLR2004
        vocabulary = self.backend.get_vocab()
        counts = np.zeros(len(vocabulary), np.int64)
        for token, index in vocabulary.items():
            counts[index] = sum(first[sign] for sign in token) if index >= SPECIAL else 0
        return counts

    @property
    def key(self) -> str:
        """The library's version, and the whole of its JSON."""
        from tokenizers import __version__

        return f"bpe {__version__} {self.backend.to_str()}"

    def encode(self, text: str) -> NDArray[Any]:
        """Ids of the tokens; a long text is encoded in pieces that end with a line."""
        dtype = width(len(self.characters))
        found = [np.asarray(self.backend.encode(piece).ids, dtype) for piece in _pieces(text)]
        return np.concatenate([np.empty(0, dtype), *found])

    def decode(self, ids: Sequence[int]) -> str:
        """Join the bytes, and read them as UTF-8."""
        text: str = self.backend.decode([index for index in ids if index >= SPECIAL])
        return text

    def save(self, folder: Path) -> None:
        """Write the library's JSON."""
        (folder / _FILE).write_text(self.backend.to_str(), encoding="utf-8")


def _pieces(text: str) -> Iterator[str]:
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + PIECE) + 1 or len(text)
        yield text[begin:end]
        begin = end


def _alphabet() -> dict[str, int]:
    """Return the byte that each sign of a byte-level vocabulary stands for.

    Printable bytes stand for themselves, the others, in their order, are signs from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, _BYTES)}
    others = [byte for byte in range(_BYTES) if byte not in printable]
    signs = {byte: byte for byte in printable}
    signs |= {byte: _BYTES + at for at, byte in enumerate(others)}
    return {chr(sign): byte for byte, sign in signs.items()}
