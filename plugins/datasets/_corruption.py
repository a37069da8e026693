"""Code that is broken on purpose: labels for those who have none. All of it is synthetic."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

import numpy as np

CONTINUE = "CONTINUE"
"""The code is whole: a class like the others, and the first."""
_OTHER = {"+": "-", "-": "+", "*": "+", "<": ">", ">": "<"}
_OTHER |= {"==": "!=", "!=": "==", "<=": ">=", ">=": "<="}
_OPERATOR = re.compile(r"(?<![-+*/<>=!])(==|!=|<=|>=|[-+*<>])(?![-+*/<>=])")


def _truncated(code: str, rng: np.random.Generator) -> str:
    """Cut off the end, at most two thirds."""
    return code[: int(rng.integers(len(code) // 3, len(code)))].rstrip()


def _operator(code: str, rng: np.random.Generator) -> str:
    """Put another operator in the place of one."""
    found = [*_OPERATOR.finditer(code)]
    if not found:
        return ""
    one = found[int(rng.integers(len(found)))]
    return code[: one.start()] + _OTHER[one[0]] + code[one.end() :]


def _swapped(code: str, rng: np.random.Generator) -> str:
    """Swap two neighbouring lines that differ."""
    lines = code.split("\n")
    places = [at for at in range(len(lines) - 1) if lines[at] != lines[at + 1]]
    if not places:
        return ""
    at = places[int(rng.integers(len(places)))]
    lines[at : at + 2] = lines[at + 1], lines[at]
    return "\n".join(lines)


KINDS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "TRUNCATED": _truncated,
    "OPERATOR": _operator,
    "SWAPPED": _swapped,
}
"""How code is corrupted, by the label of what comes of it."""


def corrupted(code: str, seed: int, name: str) -> tuple[str, str]:
    """Return code with one fault, and its label: a pure function of code, seed and record id.

    Every kind that can be applied is as likely; both are empty where none can.
    """
    digest = hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(digest))
    made = {label: make(code, rng) for label, make in KINDS.items()}
    able = [label for label, text in made.items() if text.strip() and text != code]
    if not able:
        return "", ""
    label = able[int(rng.integers(len(able)))]
    return made[label], label
