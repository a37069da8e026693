"""Write `mbpp.jsonl`: made-up problems with a plan and code, the same every time."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

IDS = (*range(11, 31), *range(511, 531), *range(601, 701))
"""In the ranges that the experiment tests on, validates on and trains on."""
ITEMS = ("lanterns", "kettles", "pebbles", "ferries", "acorns", "bells")
EXTREME = """\
    total = {{v}}[0]
    for item in {{v}}:
        if item {} total:
            total = item
"""
DEEDS = {
    "sum": ("add up", "    total = 0\n    for item in {v}:\n        total = total + item\n"),
    "count": ("count", "    total = 0\n    for item in {v}:\n        total = total + 1\n"),
    "largest": ("find the largest of", EXTREME.format(">")),
    "smallest": ("find the smallest of", EXTREME.format("<")),
}
CHANGES = {"": "", "doubled": "    total = total * 2\n", "raised": "    total = total + {n}\n"}


def answer(deed: str, change: str, number: int, values: list[int]) -> int:
    """Return what the code of a problem returns."""
    found = {"sum": sum, "count": len, "largest": max, "smallest": min}[deed](values)
    return found * 2 if change == "doubled" else found + number * (change == "raised")


def problem(index: int, draw: random.Random) -> dict[str, object]:
    """Make one row with the columns of MBPP."""
    items, deed = draw.choice(ITEMS), draw.choice([*DEEDS])
    change, number = draw.choice([*CHANGES]), draw.randint(1, 9)
    words, body = DEEDS[deed]
    after = {"": "", "doubled": ", doubled", "raised": f", and raise it by {number}"}[change]
    name = "_".join(filter(None, (deed, change, items)))
    code = f"def {name}({items}):\n" + body + CHANGES[change] + "    return total"
    tests = []
    for _ in range(2):
        values = [draw.randint(1, 20) for _ in range(draw.randint(2, 4))]
        tests.append(f"assert {name}({values}) == {answer(deed, change, number, values)}")
    return {
        "text": f"Write a function to {words} the {items}{after}.",
        "code": code.format(v=items, n=number),
        "task_id": index,
        "test_list": tests,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    file = parser.parse_args().out / "mbpp.jsonl"
    made = random.Random(20261121)  # noqa: S311 - the same every time is the point
    rows: dict[object, dict[str, object]] = {}
    while len(rows) < len(IDS):  # no problem twice
        row = problem(IDS[len(rows)], made)
        rows.setdefault(row["text"], row)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows.values()), encoding="utf-8")
    print(f"{file}: {len(rows)} rows")
