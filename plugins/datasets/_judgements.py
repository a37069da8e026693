"""Who answers what: queries, documents and judgements, read from tables, and cut by document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from plugins.datasets._tables import Place, Row, existing, rows, shown

QUERY, DOCUMENT, SCORE = "query-id", "corpus-id", "score"
"""Columns of judgements."""
_TEXTS = ("query", "positive", "negative")
_IDS = {"query": "query_id", "positive": "positive_id", "negative": "negative_id"}


@attrs.define(eq=False)
class Judged:
    """Texts by their ids, and the judgements of each split."""

    queries: dict[str, str] = attrs.field(factory=dict)
    documents: dict[str, str] = attrs.field(factory=dict)
    relevant: dict[str, dict[str, dict[str, int]]] = attrs.field(factory=dict)
    """By split and query: the grades of its documents, above 0."""
    negatives: dict[str, list[str]] = attrs.field(factory=dict)
    """By query: documents that were given as wrong answers."""
    numbered: dict[str, str] = attrs.field(factory=dict)
    """Ids of documents of triples that have none of their own, by text."""

    def corpus(self, file: Path) -> None:
        """Read documents: `_id`, `text`, maybe `title`, which then begins the text."""
        for row in rows(file, ["_id", "text"], ["title"], ["text", "title"]):
            text = f"{row.cells.get('title', '')} {row.cells['text']}".strip()
            _add(self.documents, row, "_id", text)

    def asked(self, file: Path) -> None:
        """Read queries: `_id`, `text`."""
        for row in rows(file, ["_id", "text"], (), ["text"]):
            _add(self.queries, row, "_id", row.text("text"))

    def judgements(self, file: Path, split: str) -> None:
        """Read the judgements of a split; `UserError` for ids that nothing has."""
        found = self.relevant.setdefault(split, {})
        for row in rows(file, [QUERY, DOCUMENT], [SCORE]):
            query, document = row.text(QUERY), row.text(DOCUMENT)
            for name, known, column in (
                (query, self.queries, QUERY),
                (document, self.documents, DOCUMENT),
            ):
                if name not in known:
                    place = "queries" if known is self.queries else "corpus"
                    row.place.fail(f"{shown(name)} is not in the {place}; add it there", column)
            grade = _grade(row)
            grades = found.setdefault(query, {})
            if grade:
                grades[document] = grade

    def triples(self, file: Path, split: str) -> None:
        """Read `query`, `positive`, maybe `negative`, each a text, and ids where it has them."""
        found = self.relevant.setdefault(split, {})
        asked: dict[str, str] = {}
        for row in _objects(file):
            query = _named(row, "query", self.queries, asked, f"{split}-query")
            answer = _named(row, "positive", self.documents, self.numbered, "document")
            found.setdefault(query, {})[answer] = 1
            if row.cells.get("negative", ""):
                other = _named(row, "negative", self.documents, self.numbered, "document")
                wrong = self.negatives.setdefault(query, [])
                wrong += [other] if other not in wrong else []


def _named(row: Row, key: str, texts: dict[str, str], numbered: dict[str, str], prefix: str) -> str:
    """Return the id of a row's text: its own, or one for every other text."""
    text, name = row.text(key), row.cells.get(_IDS[key], "")
    if not name:
        name = numbered.setdefault(text, f"{prefix}-{len(numbered) + 1}")
    if texts.setdefault(name, text) != text:
        row.place.fail(f"{shown(name)} is the id of another text already", _IDS[key])
    return name


def _add(texts: dict[str, str], row: Row, column: str, text: str) -> None:
    name = row.text(column)
    if not text:
        row.place.fail(f"{shown(name)} has no text; fill it in or remove the row", "text")
    if name in texts:
        row.place.fail(f"{shown(name)} stands there twice; remove one", column)
    texts[name] = text


def _grade(row: Row) -> int:
    """Return a grade, 1 where none is given."""
    cell = row.cells.get(SCORE, "1")
    if not cell.isdecimal():
        row.place.fail(f"found {shown(cell)}, expected a whole number, 0 or more", SCORE)
    return int(cell)


def _objects(file: Path) -> Iterator[Row]:
    """Read rows of triples: of any table, or of a list in one JSON document."""
    optional = ["negative", *_IDS.values()]
    if file.suffix.lower() != ".json":
        yield from rows(file, _TEXTS[:2], optional, _TEXTS)
        return
    place = Place(existing(file), 1)
    try:
        listed = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        place.fail("no JSON in UTF-8; expected a list of objects, or a file .jsonl")
    if not isinstance(listed, list) or not listed:
        place.fail("expected a list of objects with query, positive and maybe negative")
    for number, item in enumerate(listed, 1):
        place = Place(file, number)
        cells = item if isinstance(item, dict) else {}
        for key in (*_TEXTS[:2], *cells.keys() & {*optional}):
            if not isinstance(cells.get(key), str):
                place.fail("expected text here, in an object with query and positive", key)
        yield Row(place, {key: cells[key] for key in (*_TEXTS, *_IDS.values()) if key in cells})


def components(relevant: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """Return the group of each query: those that share a relevant document are in one.

    A group is named after its first query.
    """
    parent = {query: query for query in relevant}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first: dict[str, str] = {}
    for query, grades in relevant.items():
        for document in grades:
            parent[root(query)] = root(first.setdefault(document, query))
    return {query: root(query) for query in relevant}


def pairs(relevant: Mapping[str, Mapping[str, int]]) -> Sequence[tuple[str, str]]:
    """Return every query with every document that answers it."""
    return [(query, document) for query, grades in relevant.items() for document in grades]
