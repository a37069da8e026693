"""Reading the three files of ReDSM5, each held to its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from framework.errors import UserError
from plugins._tables import Place, rows, shown
from plugins.datasets._records import Columns

CRITERIA: Mapping[str, str] = {
    "DEPRESSED_MOOD": "A.1",
    "ANHEDONIA": "A.2",
    "APPETITE_CHANGE": "A.3",
    "SLEEP_ISSUES": "A.4",
    "PSYCHOMOTOR": "A.5",
    "FATIGUE": "A.6",
    "WORTHLESSNESS": "A.7",
    "COGNITIVE_ISSUES": "A.8",
    "SUICIDAL_THOUGHTS": "A.9",
    "SPECIAL_CASE": "SPECIAL_CASE",
}
SYMPTOMS = {symptom: at for at, symptom in enumerate(CRITERIA)}
STATUS = {"0": 0, "1": 1}
SPECIAL_CASE = "Something outside the nine criteria that a clinician still found worth marking."
"""Stands in where the criteria file has no text for special cases; the authors' has none."""


def criterion(place: Place, symptom: str, texts: Mapping[str, str], source: Path | str) -> str:
    """Return a symptom's criterion; `UserError` with the place where there is none."""
    if symptom not in texts:
        place.fail(
            f"{symptom} is used, but there is no criterion '{CRITERIA[symptom]}' in {source}; "
            "add it there",
            "DSM5_symptom",
        )
    return texts[symptom]


def read_criteria(file: Path) -> dict[str, str]:
    """Read the text of each symptom's criterion, where it has one.

    Raises `UserError` for a file that is not in the schema.
    """
    try:
        listed = json.loads(file.read_bytes())["criteria"]
        pairs = [(item["id"], item["text"]) for item in listed]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f'{file}: expected JSON like {{"criteria": [{{"id": "A.1", "text": …}}, …]}}'
        ) from None
    texts = {"SPECIAL_CASE": SPECIAL_CASE}
    seen: set[str] = set()
    for name, text in pairs:
        if not (isinstance(name, str) and isinstance(text, str) and text.strip()):
            raise UserError(f"{file}: every criterion needs an id and a text; one lacks them")
        if name in seen:
            raise UserError(f"{file}: criterion {shown(name)} stands twice; keep one")
        seen.add(name)
        texts[name] = text
    return {symptom: texts[name] for symptom, name in CRITERIA.items() if name in texts}


def read_posts(file: Path) -> set[str]:
    """Read the ids of all posts; `UserError` for one that stands twice."""
    posts: dict[str, int] = {}
    for row in rows(file, ["post_id", "text"]):
        post = row.text("post_id")
        if post in posts:
            row.place.fail(f"{shown(post)} stands in row {posts[post]} already", "post_id")
        posts[post] = row.place.row
    return set(posts)


def read_annotations(
    file: Path, posts: set[str], criteria: Path, texts: Mapping[str, str]
) -> Columns:
    """Read the annotated pairs; `UserError` names row and column of what is wrong."""
    columns = Columns(meta={"symptom": []})
    seen: dict[str, int] = {}
    needed = ["post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status"]
    for row in rows(file, needed):
        post = row.text("post_id")
        if post not in posts:
            row.place.fail(f"{shown(post)} is not among the posts; add it there", "post_id")
        symptom = row.choice("DSM5_symptom", SYMPTOMS)
        record = f"{row.text('sentence_id')}/{symptom}"
        if record in seen:
            row.place.fail(
                f"{shown(record)} is annotated in row {seen[record]} already; keep one of them",
                "sentence_id",
            )
        seen[record] = row.place.row
        columns.ids.append(record)
        columns.texts.append(criterion(row.place, symptom, texts, criteria))
        columns.pairs.append(row.text("sentence_text"))
        columns.labels.append(STATUS[row.choice("status", STATUS)])
        columns.groups.append(post)
        columns.meta["symptom"].append(symptom)
    return columns
