"""Near-duplicates by MinHash (Broder, 1997) of runs of characters, then by their exact likeness."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

SIZE = 5
"""Characters of a run."""
_BANDS, _ROWS = 16, 4
"""Texts that agree in all rows of a band are compared: of a likeness of 0.8, 99.98 % are."""
_MOST = 16
"""Texts that one is compared with at most."""
_PRIME = np.uint64(1099511628211)
_SEED = 20261122

Runs = NDArray[np.uint64]


def runs(text: str) -> Runs:
    """Return a number for each different run of characters; a shorter text is one run."""
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), np.uint32).astype(np.uint64)
    size = min(SIZE, len(codes))
    found = np.zeros(len(codes) - size + 1 if size else 0, np.uint64)
    for at in range(size):
        found = found * _PRIME + codes[at : len(codes) - size + 1 + at]
    # the last bits of such sums follow the last character alone
    return np.unique((found ^ (found >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9))


def likeness(one: Runs, other: Runs) -> float:
    """Return Jaccard's index: the share of all runs that both texts have."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / max(1, len(one) + len(other) - both)


def signature(found: Runs) -> NDArray[np.uint64]:
    """Return the smallest of the runs under each of 64 orders of all numbers."""
    if not len(found):
        return np.zeros(_BANDS * _ROWS, np.uint64)
    mixed = found[None, :] * _FACTORS[:, None] + _SUMMANDS[:, None]
    smallest: NDArray[np.uint64] = (mixed >> np.uint64(32)).min(1)
    return smallest


def alike(
    texts: Sequence[str],
    others: Sequence[str],
    least: float,
    apart: Callable[[int, int], bool] = lambda *_: True,
) -> Iterator[tuple[int, int, float]]:
    """Yield of each text that has one the other that is most like it, if it is so like it at least.

    A text, the other, and their likeness, of pairs that are `apart`. A few pairs are missed.
    """
    known: dict[bytes, list[int]] = {}
    for at, other in enumerate(others):
        for key in _keys(runs(other)):
            known.setdefault(key, []).append(at)
    for at, text in enumerate(texts):
        mine = runs(text)
        near = dict.fromkeys(o for key in _keys(mine) for o in known.get(key, ())[:_MOST])
        found = [o for o in near if apart(at, o)][:_MOST]
        best = max(((likeness(mine, runs(others[o])), -o) for o in found), default=(0.0, 0))
        if best[0] >= least:
            yield at, -best[1], best[0]


def _keys(found: Runs) -> list[bytes]:
    if not len(found):
        return []
    bands = signature(found).reshape(_BANDS, _ROWS)
    return [bytes([at]) + band.tobytes() for at, band in enumerate(bands)]


def _drawn() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rng = np.random.default_rng(_SEED)
    drawn = rng.integers(0, 2**64, (2, _BANDS * _ROWS), np.uint64)
    return drawn[0] | np.uint64(1), drawn[1]


_FACTORS, _SUMMANDS = _drawn()
