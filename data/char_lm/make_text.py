"""Write `input.txt`: a made-up play of rule-made lines, the same every time."""

from __future__ import annotations

import argparse
import random
from pathlib import Path

NAMES = ("BRAMLOW", "SELWICK", "ODDA", "TAMSIN OF THE WEIR", "FERRYMAN", "SECOND LAMPLIGHTER")
THINGS = ("the kettle", "my lantern", "yon orchard", "the crooked bridge", "a bell", "the tide")
DEEDS = ("hums", "falters", "wakes", "leans", "goes under", "comes about", "keeps its counsel")
WHEN = ("at noon", "before the frost", "when no one looks", "twice a year", "in plain sight")
CALLS = ("Hark", "Softly", "Nay", "Good neighbour", "Hold there")
ENDS = (".", ".", "!", "?", ";")


def line(draw: random.Random) -> str:
    """Make one line of speech."""
    thing, deed, when = draw.choice(THINGS), draw.choice(DEEDS), draw.choice(WHEN)
    said = draw.choice(
        (
            f"{thing} {deed} {when}",
            f"{draw.choice(CALLS)}, {thing} {deed}",
            f"{when}, and not before, {thing} {deed}",
            f"what {deed} {when} is {thing}",
        )
    )
    return said[0].upper() + said[1:] + draw.choice(ENDS)


def play(speeches: int) -> str:
    """Make a play of so many speeches."""
    draw = random.Random(20261121)  # noqa: S311 - the same every time is the point
    parts = []
    for _ in range(speeches):
        lines = "\n".join(line(draw) for _ in range(draw.randint(1, 4)))
        parts.append(f"{draw.choice(NAMES)}:\n{lines}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    file = parser.parse_args().out / "input.txt"
    file.write_text(play(400), encoding="utf-8")
    print(f"{file}: {file.stat().st_size} bytes")
