"""Write made-up sessions of a shop's events, the same every time: normal ones and abnormal ones."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TYPES = {
    "open": "page", "search": "page", "view": "page", "add": "cart", "remove": "cart",
    "pay": "money", "refund": "money", "mail": "system", "error": "system", "close": "page",
}  # fmt: skip
THINGS = ("kettle", "lantern", "bridge lamp", "orchard ladder", "bell", "tide clock")
SEED = 20261121
Event = dict[str, Any]


def chance(draw: random.Random, share: float) -> bool:
    """Say yes so often."""
    return draw.random() < share


def text(draw: random.Random, event: str) -> str:
    """Make a line about an event."""
    thing = draw.choice(THINGS)
    return {
        "search": f"looks for a {thing}",
        "view": f"reads about the {thing}",
        "add": f"takes one {thing}",
        "remove": f"puts the {thing} back",
        "error": f"no {thing} was found",
    }.get(event, "")


def normal(draw: random.Random) -> list[str]:
    """Return a visit: something is looked for, read about, maybe bought."""
    names = ["open"]
    for _ in range(draw.randint(1, 4)):
        names += ["search"] * draw.randint(0, 1) + ["view"] * draw.randint(1, 2)
        if chance(draw, 0.5):
            names += ["add"] + ["remove"] * chance(draw, 0.2)
    if names.count("add") > names.count("remove"):
        names += ["pay", "mail"]
    return [*names, "close"]


def abnormal(draw: random.Random) -> list[str]:
    """Return a visit with a fault: money before goods, a storm of errors, or no beginning."""
    names = normal(draw)
    kind = draw.randrange(3)
    if kind == 0:
        return [names[0], "pay", "refund", *names[1:]]
    if kind == 1:
        at = draw.randrange(1, len(names))
        return [*names[:at], *["error"] * draw.randint(2, 4), *names[at:]]
    return [*reversed(names)]


def session(draw: random.Random, number: int, *, fault: bool) -> dict[str, Any]:
    """Make one session."""
    time, events = float(draw.randrange(10**6)), []
    for name in abnormal(draw) if fault else normal(draw):
        event: Event = {"event": name, "type": TYPES[name], "time": round(time, 3)}
        events.append(event | ({"text": words} if (words := text(draw, name)) else {}))
        time += 0.2 if fault and chance(draw, 0.3) else draw.lognormvariate(2.0, 1.0)
    return {"session": f"visit-{number:04}", "events": events, "label": int(fault)}


def sessions(begin: int, count: int) -> Iterator[str]:
    """Make sessions as lines, one of twelve abnormal; a tenth are one of few, again and again."""
    draw = random.Random(SEED + begin)  # noqa: S311 - the same every time
    for number in range(begin, begin + count):
        source = random.Random(SEED + draw.randrange(5)) if chance(draw, 0.1) else draw  # noqa: S311
        yield json.dumps(session(source, number, fault=chance(source, 1 / 12))) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    for name, begin, count in (("train_all", 0, 240), ("test", 240, 80)):
        file = out / f"{name}.jsonl"
        file.write_text("".join(sessions(begin, count)), encoding="utf-8")
        print(f"{file}: {file.stat().st_size} bytes")
