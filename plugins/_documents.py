"""Files of documents, the ids of texts that have none, and what belongs together."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from framework.errors import listing
from plugins._tables import Row, listed, rows


class Document(NamedTuple):
    """A document: its row, its title, if it has one, and its text."""

    row: Row
    name: str
    title: str
    body: str

    @property
    def text(self) -> str:
        """Title and text."""
        return f"{self.title} {self.body}".strip()


def documents(file: Path) -> Iterator[Document]:
    """Read `_id`, `text`, maybe `title`; `UserError` names file, row and column of a fault."""
    for row in rows(file, ["_id", "text"], ["title"], ["text", "title"], nullable=["title"]):
        yield Document(row, row.text("_id"), row.cells.get("title", ""), row.cells["text"])


def named(file: Path) -> Iterator[tuple[str, str]]:
    """Read ids and texts: of a file of documents, which may lack ids, or of triples."""
    columns = {"text": "_id", "positive": "positive_id", "negative": "negative_id"}
    optional = ["title", *columns, *columns.values()]
    for row in objects(file, (), optional, ["title", *columns]):
        for key in columns.keys() & row.cells.keys():
            title = row.cells.get("title", "") if key == "text" else ""
            text = f"{title} {row.cells[key]}".strip()
            yield row.cells.get(columns[key]) or digest(text), text
        if not columns.keys() & row.cells.keys():
            row.place.fail(f"missing column {listing(columns)}; there must be one of them")


def objects(
    file: Path, required: Collection[str], optional: Collection[str], texts: Collection[str]
) -> Iterator[Row]:
    """Read rows of any table, or of a list in one JSON document; a null is as none."""
    packed = file.name.lower().endswith((".json", ".json.gz"))
    return (listed if packed else rows)(file, required, optional, texts, nullable=optional)


def digest(text: str) -> str:
    """Return the id of a text that has none: the same wherever it stands."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def components(keys: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Return the group of each name: those that share a key are in one, as queries share answers.

    A group is named after one of its names.
    """
    parent = {name: name for name in keys}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first: dict[str, str] = {}
    for name, own in keys.items():
        for key in own:
            parent[root(name)] = root(first.setdefault(key, name))
    return {name: root(name) for name in keys}
