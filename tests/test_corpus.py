"""The shipped synthetic corpus: made by its script, in the published proportions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

from support import ROOT, table

CORPUS = ROOT / "data" / "redsm5"
POSTS = {
    "DEPRESSED_MOOD": 328,
    "ANHEDONIA": 124,
    "APPETITE_CHANGE": 44,
    "SLEEP_ISSUES": 102,
    "PSYCHOMOTOR": 35,
    "FATIGUE": 124,
    "WORTHLESSNESS": 311,
    "COGNITIVE_ISSUES": 59,
    "SUICIDAL_THOUGHTS": 165,
    "SPECIAL_CASE": 92,
}


def test_the_script_makes_the_files_byte_for_byte(tmp_path: Path) -> None:
    """The committed script writes the committed files, also under another hash seed."""
    subprocess.run(
        [sys.executable, str(CORPUS / "make_corpus.py"), "--out", str(tmp_path)],
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"},
        capture_output=True,
    )
    for name in ("redsm5_posts.csv", "redsm5_annotations.csv"):
        assert (tmp_path / name).read_bytes() == (CORPUS / name).read_bytes()


def test_the_proportions_are_the_published_ones() -> None:
    """1,484 posts, 1,547 annotations, posts per symptom as published, 392 posts with none."""
    posts, rows = table(CORPUS / "redsm5_posts.csv"), table(CORPUS / "redsm5_annotations.csv")
    assert (len(posts), len(rows)) == (1484, 1547)
    by_symptom = defaultdict(set)
    for row in rows:
        by_symptom[row["DSM5_symptom"]].add(row["post_id"])
    assert {symptom: len(ids) for symptom, ids in by_symptom.items()} == POSTS
    assert len({post["post_id"] for post in posts} - {row["post_id"] for row in rows}) == 392
    status = Counter(row["status"] for row in rows)
    assert set(status) == {"0", "1"}
    assert 0.50 <= status["1"] / len(rows) <= 0.60


def test_no_two_posts_share_a_sentence() -> None:
    """Every sentence of the corpus stands in one post only, whatever its case and punctuation."""
    owners = defaultdict(set)
    for post in table(CORPUS / "redsm5_posts.csv"):
        for sentence in re.split(r"(?<=[.!?])\s+", post["text"]):
            owners[re.sub(r"\W+", " ", sentence.lower()).strip()].add(post["post_id"])
    assert not [sentence for sentence, ids in owners.items() if len(ids) > 1]


def test_annotated_sentences_stand_in_their_posts() -> None:
    """Each annotated sentence is in its post word for word, and annotated once."""
    texts = {post["post_id"]: post["text"] for post in table(CORPUS / "redsm5_posts.csv")}
    rows = table(CORPUS / "redsm5_annotations.csv")
    assert all(row["sentence_text"] in texts[row["post_id"]] for row in rows)
    assert len({row["sentence_text"].lower() for row in rows}) == len(rows)


def test_the_criteria_are_all_there_and_the_corpus_says_what_it_is() -> None:
    """Nine criteria and the special case have a text; the data card says synthetic."""
    criteria = json.loads((ROOT / "data" / "dsm5" / "MDD_Criteria.json").read_text())["criteria"]
    assert [c["id"] for c in criteria] == [*(f"A.{n}" for n in range(1, 10)), "SPECIAL_CASE"]
    assert all(len(c["text"].split()) > 5 for c in criteria)
    card = (CORPUS / "README.md").read_text(encoding="utf-8")
    assert "SYNTHETIC" in card.splitlines()[0]
    assert "licence" in card.lower()
