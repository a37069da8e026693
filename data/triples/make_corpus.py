"""Write a made-up corpus in BEIR's form: notes of a garden and workshop, queries and judgements."""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path

THINGS = {  # what notes call a thing, and what those who ask call it
    "kettle": "teapot",
    "lantern": "lamp",
    "barrow": "handcart",
    "trellis": "climbing frame",
    "hive": "bee box",
    "lathe": "turning machine",
    "cistern": "water tank",
    "bellows": "air pump",
    "sundial": "shadow clock",
    "sledge": "sleigh",
}
TROUBLES = {
    "rusts at the seams": "corrodes",
    "warps in the heat": "bends when it is hot",
    "leaks after frost": "drips once it was frozen",
    "hums in the wind": "makes a sound in a breeze",
    "sticks when damp": "jams if it is wet",
}
CURES = {
    "linseed oil": "flax",
    "beeswax": "honeycomb grease",
    "a coat of lime": "whitewash",
    "copper rivets": "metal pins",
    "a felt lining": "wool padding",
}
ASIDES = (
    "It was bought second-hand.",
    "Neighbours lend it out in spring.",
    "Two of the handles are newer than the rest.",
    "Nobody remembers who made it.",
    "It stands by the east wall.",
    "A drawing of it hangs in the shed.",
)
QUERIES, TESTED = 160, 40


def note(draw: random.Random, thing: str, trouble: str, cure: str) -> dict[str, str]:
    """Make one document: a title that says little, and a text."""
    aside, other = draw.sample(ASIDES, 2)
    said = (
        f"{aside} The {thing} {trouble}, and {cure} cures it for a year. {other}",
        f"Whenever the {thing} {trouble} we use {cure}. {aside} {other}",
        f"{aside} {other} Against a {thing} that {trouble}: {cure}, twice.",
    )
    return {"title": f"Of the {thing}", "text": draw.choice(said)}


def question(draw: random.Random, thing: str, trouble: str, cure: str) -> str:
    """Ask for a document in other words than its own."""
    called, ails, helped = THINGS[thing], TROUBLES[trouble], CURES[cure]
    return draw.choice(
        (
            f"{helped} against a {called} that {ails}",
            f"my {called} {ails}: will {helped} help?",
            f"A {called} which {ails} is mended with {helped}.",
        )
    )


def made() -> tuple[list[dict[str, str]], list[dict[str, str]], list[tuple[str, str]]]:
    """Return documents, queries and who answers whom."""
    draw = random.Random(20261121)  # noqa: S311 - the same every time is the point
    every = [*itertools.product(THINGS, TROUBLES, CURES)]
    documents = [{"_id": f"d{at}", **note(draw, *what)} for at, what in enumerate(every, 1)]
    asked = draw.sample(range(len(every)), QUERIES)
    queries = [
        {"_id": f"q{at}", "text": question(draw, *every[number])}
        for at, number in enumerate(asked, 1)
    ]
    both = zip(queries, asked, strict=True)
    answers = [(query["_id"], documents[number]["_id"]) for query, number in both]
    return documents, queries, answers


def write(folder: Path) -> None:
    """Write all files."""
    documents, queries, answers = made()
    (folder / "beir" / "qrels").mkdir(parents=True, exist_ok=True)
    for name, rows in (("corpus.jsonl", documents), ("beir/queries.jsonl", queries)):
        lines = [json.dumps(row) + "\n" for row in rows]
        (folder / name).write_text("".join(lines), encoding="utf-8")
    for name, pairs in (("test", answers[:TESTED]), ("train", answers[TESTED:])):
        lines = ["query-id\tcorpus-id\tscore\n", *(f"{q}\t{d}\t1\n" for q, d in pairs)]
        (folder / "beir" / "qrels" / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")
    print(f"{folder}: {len(documents)} documents, {len(queries)} queries")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    write(parser.parse_args().out)
