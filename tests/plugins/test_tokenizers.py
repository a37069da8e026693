"""The tokenizers, besides what the conformance kit holds them to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT

from framework.errors import UserError
from plugins._language import PADDING, UNKNOWN
from plugins.tokenizers import bpe
from plugins.tokenizers.bpe import Bpe
from plugins.tokenizers.character import Character

TEXT = "to be or not to be, that is the question: naïve 日本 <pad> <unk>\n" * 20
BOTH = pytest.mark.parametrize("options", [Character(), Bpe(vocabulary=300)], ids=["char", "bpe"])


def test_special_ids_are_the_same_in_every_vocabulary(tmp_path: Path) -> None:
    """Padding is 0 and unknown 1, whatever the text; its characters follow in their order."""
    live = Character().build(["cab"])
    assert live.encode("abcz").tolist() == [2, 3, 4, UNKNOWN]
    assert live.decode([PADDING, 2, UNKNOWN]) == "a\ufffd"
    Bpe(vocabulary=300).build([TEXT]).save(tmp_path)
    vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert (vocabulary["<pad>"], vocabulary["<unk>"]) == (PADDING, UNKNOWN)
    assert 258 < len(vocabulary) <= 300


@BOTH
def test_the_names_of_special_tokens_are_text(options: Any) -> None:
    """A text that holds `<pad>` is encoded letter by letter, and given back."""
    live = options.build([TEXT])
    ids = live.encode("<pad><unk>").tolist()
    assert min(ids) >= 2
    assert live.decode(ids) == "<pad><unk>"


@BOTH
def test_without_text_there_is_none(options: Any, tmp_path: Path) -> None:
    """Nothing can be encoded before there was something to learn from: building is refused."""
    with pytest.raises(UserError, match="the training split holds no text"):
        options.build([])
    with pytest.raises(UserError, match="no saved"):
        options.load(tmp_path)


@BOTH
@pytest.mark.parametrize("text", ["", "[]", "{}", '{"characters": "ba"}', '{"characters": 3}'])
def test_a_damaged_file_is_refused(options: Any, text: str, tmp_path: Path) -> None:
    """What is no saved tokenizer is told with its file."""
    for name in ("characters.json", "tokenizer.json"):
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=r"(characters|tokenizer)\.json: "):
        options.load(tmp_path)


def test_merges_are_the_same_in_every_process() -> None:
    """The library's hash tables are seeded at random: the merges must not depend on it."""
    code = (
        "import hashlib; from plugins.tokenizers.bpe import Bpe;"
        f"print(hashlib.sha256(Bpe(vocabulary=290).build([{TEXT!r}]).key.encode()).hexdigest())"
    )
    words = [sys.executable, "-c", code]
    found = {
        subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, check=True, env=dict(os.environ)
        ).stdout
        for _ in range(2)
    }
    assert len(found) == 1


def test_bytes_count_as_the_characters_they_begin() -> None:
    """A character of several tokens is one, a token of several characters is several."""
    live = Bpe(vocabulary=300).build([TEXT])
    assert len(live.encode("本")) >= 1
    ids = live.encode("🌿")
    assert len(ids) == 4
    assert live.characters[ids].tolist() == [1, 0, 0, 0]
    (merged,) = live.encode(" be")
    assert live.characters[merged] == 3


def test_a_long_text_is_encoded_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces end with a line, and give the text back whole."""
    live = Bpe(vocabulary=300).build([TEXT])
    whole = live.encode(TEXT).tolist()
    monkeypatch.setattr(bpe, "PIECE", 100)
    assert len(list(bpe._pieces(TEXT))) > 5
    assert "".join(bpe._pieces(TEXT)) == TEXT
    assert live.encode(TEXT).tolist() == whole
