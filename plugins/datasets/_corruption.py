"""Code that is broken on purpose: labels for those who have none. All of it is synthetic."""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections.abc import Callable

import numpy as np

CONTINUE = "CONTINUE"
"""The code is whole: a class like the others, and the first."""
_OTHER = {"+": "-", "-": "+", "*": "+", "<": ">", ">": "<"}
_OTHER |= {"==": "!=", "!=": "==", "<=": ">=", ">=": "<="}
_TEXT = r"""(?P<quote>\"{3}|'{3})(?:\\[\s\S]|[^\\])*?(?:(?P=quote)|\Z)"""
_TEXT += r"""|"(?:\\[\s\S]|[^"\\\n])*"?|'(?:\\[\s\S]|[^'\\\n])*'?|\#[^\n]*"""
"""A string or a comment, as Python writes it."""
_OPERATOR = r"(?<![-+*/<>=!])(?P<operator>==|!=|<=|>=|[-+*<>])(?![-+*/<>=])"
_PLACES = re.compile(f"{_TEXT}|{_OPERATOR}")


def _truncated(code: str, rng: np.random.Generator) -> str:
    """Cut off the end, at most two thirds."""
    return code[: int(rng.integers(len(code) // 3, len(code)))].rstrip()


def _operator(code: str, rng: np.random.Generator) -> str:
    """Put another operator in the place of one that stands in no string and no comment."""
    found = [place for place in _PLACES.finditer(code) if place["operator"]]
    if not found:
        return ""
    one = found[int(rng.integers(len(found)))]
    return code[: one.start()] + _OTHER[one[0]] + code[one.end() :]


def _swapped(code: str, rng: np.random.Generator) -> str:
    """Swap two neighbouring lines where that changes what the code says."""
    lines = code.split("\n")
    for at in rng.permutation(len(lines) - 1).tolist():
        made = "\n".join([*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]])
        if not _same(code, made):
            return made
    return ""


def _same(code: str, other: str) -> bool:
    """Tell whether two texts are the same program, as blank lines and comments leave it."""
    return code == other or ((tree := _tree(code)) is not None and tree == _tree(other))


def _tree(code: str) -> str | None:
    """Return the syntax tree of Python; None of what is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in strings, say
        try:
            return ast.dump(ast.parse(code))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


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
    able = [label for label, text in made.items() if text.strip() and not _same(code, text)]
    if not able:
        return "", ""
    label = able[int(rng.integers(len(able)))]
    return made[label], label
