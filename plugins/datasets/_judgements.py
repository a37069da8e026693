"""Who answers what: queries, documents and judgements, read from tables, and cut by document."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from plugins._documents import digest, documents, objects
from plugins._tables import Row, rows, shown

QUERY, DOCUMENT, SCORE = "query-id", "corpus-id", "score"
"""Columns of judgements."""
_TEXTS = ("query", "positive", "negative")
_IDS = {"query": "query_id", "positive": "positive_id", "negative": "negative_id"}
_GRADE = re.compile(r"-?[0-9]+")


@attrs.define(eq=False)
class Known:
    """Texts by their ids."""

    texts: dict[str, str] = attrs.field(factory=dict)
    names: dict[str, str] = attrs.field(factory=dict)
    """By text: the first id of a file of texts."""
    filed: set[str] = attrs.field(factory=set)
    """Ids of a file of texts, and of no triple."""

    def add(self, row: Row, column: str, text: str) -> None:
        """Take a text of a file of texts; `UserError` for an empty one, or an id met before."""
        name = row.text(column)
        if not text:
            row.place.fail(f"{shown(name)} has no text; fill it in or remove the row", "text")
        if name in self.texts:
            row.place.fail(f"{shown(name)} stands there twice; remove one", column)
        self.texts[name] = text
        self.names.setdefault(text, name)
        self.filed.add(name)

    def named(self, row: Row, key: str, prefix: str = "") -> str:
        """Return the id of a triple's text: its own, that of an equal text, or one made of it.

        What has an id of a file of texts is known by that file's text.
        """
        text, name = row.text(key), row.cells.get(_IDS[key], "")
        name = name or self.names.get(text) or prefix + digest(text)
        if self.texts.setdefault(name, text) != text and name not in self.filed:
            row.place.fail(f"{shown(name)} is the id of another text already", _IDS[key])
        return name


@attrs.define(eq=False)
class Judged:
    """Texts by their ids, and the judgements of each split."""

    queries: Known = attrs.field(factory=Known)
    documents: Known = attrs.field(factory=Known)
    relevant: dict[str, dict[str, dict[str, int]]] = attrs.field(factory=dict)
    """By split and query: the grades of its documents, above 0."""
    negatives: dict[str, list[str]] = attrs.field(factory=dict)
    """By query: documents that were given as wrong answers."""

    def corpus(self, file: Path) -> None:
        """Read documents: `_id`, `text`, maybe `title`, which then begins the text."""
        for document in documents(file):
            self.documents.add(document.row, "_id", document.text)
            # triples may have its text without its title
            self.documents.names.setdefault(document.body, document.name)

    def asked(self, file: Path) -> None:
        """Read queries: `_id`, `text`."""
        for row in rows(file, ["_id", "text"], (), ["text"]):
            self.queries.add(row, "_id", row.text("text"))

    def judgements(self, file: Path, split: str) -> None:
        """Read the judgements of a split; `UserError` for ids that nothing has."""
        found = self.relevant.setdefault(split, {})
        for row in rows(file, [QUERY, DOCUMENT], [SCORE]):
            query, document = row.text(QUERY), row.text(DOCUMENT)
            for name, known, column in (
                (query, self.queries, QUERY),
                (document, self.documents, DOCUMENT),
            ):
                if name not in known.texts:
                    place = "queries" if known is self.queries else "corpus"
                    row.place.fail(f"{shown(name)} is not in the {place}; add it there", column)
            grade = _grade(row)
            grades = found.setdefault(query, {})
            if grade > 0:
                grades[document] = grade

    def triples(self, file: Path, split: str) -> None:
        """Read `query`, `positive`, maybe `negative`, each a text, and ids where it has them."""
        found = self.relevant.setdefault(split, {})
        for row in objects(file, _TEXTS[:2], ["negative", *_IDS.values()], _TEXTS):
            query = self.queries.named(row, "query", f"{split}-")
            answer = self.documents.named(row, "positive")
            found.setdefault(query, {})[answer] = 1
            if row.cells.get("negative", ""):
                other = self.documents.named(row, "negative")
                wrong = self.negatives.setdefault(query, [])
                wrong += [other] if other not in wrong else []

    def met(self, split: str) -> set[str]:
        """Return the documents that a split's queries name, as right answers or wrong ones."""
        asked = self.relevant[split]
        found = {document for grades in asked.values() for document in grades}
        return found.union(*(self.negatives.get(query, ()) for query in asked))

    def answers(self) -> dict[str, set[str]]:
        """Return all that is known to answer each query, in whatever split."""
        found: dict[str, set[str]] = {}
        for relevant in self.relevant.values():
            for query, grades in relevant.items():
                found.setdefault(query, set()).update(grades)
        return found


def _grade(row: Row) -> int:
    """Return a grade, 1 where none is given; what is not above 0 is no answer."""
    cell = row.cells.get(SCORE, "1")
    if not _GRADE.fullmatch(cell):
        row.place.fail(f"found {shown(cell)}, expected a whole number, of answers above 0", SCORE)
    return int(cell)


def worded(query: str) -> str:
    """Return a query as far as its words go, so that two that ask the same are equal."""
    return " ".join(re.findall(r"\w+", query.casefold()))


def pairs(relevant: Mapping[str, Mapping[str, int]]) -> Sequence[tuple[str, str]]:
    """Return every query with every document that answers it."""
    return [(query, document) for query, grades in relevant.items() for document in grades]
