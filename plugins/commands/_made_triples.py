"""Triples of documents that nobody has judged: what a document says of itself is the query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import numpy as np

from framework.errors import UserError
from plugins._bm25 import Bm25
from plugins._documents import components
from plugins._documents import documents as read

SPLITS = ("train", "val", "test")
_SUFFIXES = (".txt", ".md")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_DEPTH = 10
"""Places of BM25's ranking from which a negative is drawn."""


@attrs.frozen
class Document:
    """A document: a title, if it has one, and its text."""

    name: str
    title: str
    text: str


def documents(source: Path) -> list[Document]:
    """Read a folder of text files, or a corpus (JSONL with `_id`, `text`, maybe `title`)."""
    found = [*(_folder(source) if source.is_dir() else _corpus(source))]
    if len({document.name for document in found}) < len(found):
        raise UserError(f"{source}: two documents have the same id; change one")
    return found


def _folder(source: Path) -> Iterator[Document]:
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(f"{source}: no file {' or '.join(_SUFFIXES)} in it; give another folder")
    for file in files:
        try:
            text = file.read_text(encoding="utf-8-sig")
        except (UnicodeDecodeError, OSError) as error:
            raise UserError(f"{file}: can't be read as UTF-8 ({type(error).__name__})") from None
        first, _, rest = text.strip().partition("\n")
        heading = first.startswith("#")
        title, text = (first.lstrip("# "), rest) if heading else ("", text)
        yield Document(file.relative_to(source).as_posix(), title.strip(), _plain(text))


def _corpus(source: Path) -> Iterator[Document]:
    for found in read(source):
        yield Document(found.name, _plain(found.title), _plain(found.body))


def _plain(text: str) -> str:
    return " ".join(text.split())


def split(
    found: Sequence[Document], ratios: Sequence[float], seed: int
) -> dict[str, list[Document]]:
    """Deal documents out; those of one title, which answer one query, or of one text together."""
    keys = {
        document.name: [f"text {document.text}"]
        + ([f"title {document.title.casefold()}"] if document.title else [])
        for document in found
    }
    members: dict[str, list[int]] = {}
    for at, group in enumerate(components(keys).values()):
        members.setdefault(group, []).append(at)
    groups = [*members.values()]
    parts: list[list[int]] = [[] for _ in ratios]
    for at in np.random.default_rng([seed, 0]).permutation(len(groups)):
        # to the split that is the furthest below its share
        short = [
            share / sum(ratios) - len(part) / len(found)
            for share, part in zip(ratios, parts, strict=True)
        ]
        parts[int(np.argmax(short))] += groups[at]
    return {
        name: [found[at] for at in sorted(part)] for name, part in zip(SPLITS, parts, strict=True)
    }


def triples(found: Sequence[Document], rng: np.random.Generator) -> Iterator[Mapping[str, str]]:
    """Yield a triple for each document that has enough to say.

    The query is its title, or else a sentence drawn from it, which then is taken out (the inverse
    cloze task: Lee, Chang and Toutanova, "Latent Retrieval for Weakly Supervised Open Domain
    Question Answering", ACL 2019). The negative is drawn from the first of BM25's ranking of the
    other documents, if one of them shares a word with the query.
    """
    asked = [_asked(document, rng) for document in found]
    kept = [document for document in asked if document.title and document.text]
    index = Bm25([document.text for document in kept])
    for document in kept:
        row = {"query": document.title, "positive": document.text, "positive_id": document.name}
        best = index.top(document.title, _DEPTH)
        # whoever has the same title answers it as well
        wrong = [at for at in best if not _alike(kept[at], document)]
        if wrong:
            other = kept[int(rng.choice(wrong))]
            row |= {"negative": other.text, "negative_id": other.name}
        yield row


def _alike(one: Document, other: Document) -> bool:
    return one.title.casefold() == other.title.casefold() or one.text == other.text


def _asked(document: Document, rng: np.random.Generator) -> Document:
    """Give a document a title, the query, that its text does not hold."""
    if document.title:
        return document
    sentences = _SENTENCE.split(document.text)
    at = int(rng.integers(len(sentences)))
    rest = " ".join(sentences[:at] + sentences[at + 1 :])
    return attrs.evolve(document, title=sentences[at], text=rest)
