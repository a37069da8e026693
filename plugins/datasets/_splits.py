"""Splitting groups so that every split has its share of records and the same mix of labels.

Legend of shapes: G groups, T types of groups (those with the same label counts), S splits,
D columns of counts (the classes of every stratification, the first one's are `main`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray

from framework.errors import UserError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SAMPLE = 160
"""Types that one step of the search looks at: all of them in most corpora."""
_CELLS = 200_000
"""Numbers that one step of the polish computes for a pair of splits (a descent: four times)."""
_STEPS = 300
_MANY = 2_000
"""Groups beyond which one start is as good as several."""
_STARTS = 16
_GOOD = 0.0005
"""A badness that needs no further start."""
_EPSILON = 1e-10


def shares(*lengths: int) -> Callable[[Any, Any, list[float]], None]:
    """Make a validator: that many positive numbers that sum to 1; raises `ValueError`."""

    def check(_: Any, field: Any, value: list[float]) -> None:
        fine = len(value) in lengths and all(share > 0 for share in value)
        if not (fine and math.isclose(sum(value), 1.0, abs_tol=1e-6)):
            count = " or ".join(map(str, lengths))
            raise ValueError(f"'{field.name}' must be {count} positive numbers that sum to 1")

    return check


def split(
    groups: Sequence[str], strata: Sequence[Sequence[int]], ratios: Sequence[float], seed: int
) -> Ints:
    """Return the split of each record: a pure function that never cuts a group.

    `strata` are class indices of each record; the first one's balance counts before all, the
    others refine it. A start puts each type of group out in proportion and the rest greedily,
    largest first; moves and swaps then lower the squared deviation of the counts from their
    targets, and at last what is wanted: the largest difference between a class's share in a
    split and overall. For that a split's size may be off by 3 %, or by three average groups.
    The order of the records doesn't matter. Raises `UserError` with fewer groups than splits.
    """
    names = sorted(set(groups))
    index = {name: at for at, name in enumerate(names)}
    group_of = np.fromiter((index[group] for group in groups), np.int64, len(groups))
    return apportion(group_of, len(names), [np.asarray(of) for of in strata], ratios, seed)


def apportion(
    group_of: Ints, groups: int, strata: Sequence[Ints], ratios: Sequence[float], seed: int
) -> Ints:
    """Return the split of each record as `split` does, of groups by their rank among the names."""
    if groups < len(ratios):
        raise UserError(
            f"found {groups} groups, expected at least {len(ratios)}, so that no split is "
            "empty; give more data"
        )
    classes = [np.unique(stratum, return_inverse=True)[1] for stratum in strata]
    first_T, type_of = _types(group_of, classes, groups)
    blocks = [_counts(group_of, of_record, first_T) for of_record in classes]
    types_TD = np.hstack(blocks)
    weights_D = np.concatenate(
        [np.full(block.shape[1], 0.1 if at else 1.0) for at, block in enumerate(blocks)]
    )
    rng = np.random.default_rng(seed)
    search = Search(
        types=np.vstack([types_TD, np.zeros(len(weights_D))]),
        of_each=np.append(np.bincount(type_of), 0),
        weights=weights_D,
        ratios=np.asarray(ratios),
        main=blocks[0].shape[1],
    )
    return _deal(search.best(rng), type_of, rng)[group_of]


def _types(group_of: Ints, classes: Sequence[Ints], groups: int) -> tuple[Ints, Ints]:
    """Tell groups with the same counts: the first group of each type, and each group's type."""
    # A sum of one random number per class stands for the counts, which would be too large a
    # matrix. Were two sums ever equal by chance, the balance would suffer and nothing else.
    rng = np.random.default_rng(0)
    key_G = np.zeros(groups, np.uint64)
    for of_record in classes:
        number = rng.integers(0, 2**64, int(of_record.max()) + 1, np.uint64)
        np.add.at(key_G, group_of, number[of_record])
    _, first_T, type_of = np.unique(key_G, return_index=True, return_inverse=True)
    return first_T, type_of


def _counts(group_of: Ints, of_record: Ints, first_T: Ints) -> Floats:
    """Count the classes within the groups `first_T`."""
    position = np.full(int(group_of.max()) + 1, -1)
    position[first_T] = np.arange(len(first_T))
    at = position[group_of]
    width = int(of_record.max()) + 1
    flat = np.bincount((at * width + of_record)[at >= 0], minlength=len(first_T) * width)
    return flat.reshape(len(first_T), width).astype(np.float64)


def _deal(put_TS: Ints, type_of: Ints, rng: np.random.Generator) -> Ints:
    """Choose at random which groups of a type go where."""
    shuffled = rng.permutation(len(type_of))
    by_type = shuffled[np.argsort(type_of[shuffled], kind="stable")]
    side = np.empty(len(type_of), np.int64)
    side[by_type] = np.repeat(np.tile(np.arange(put_TS.shape[1]), len(put_TS)), put_TS.ravel())
    return side


@attrs.define(eq=False)
class Search:
    """The search for how many groups of each type go to each split.

    The last type is *nothing*: to swap with it is to move.
    """

    types: Floats
    """What a group of each type holds (T, D)."""
    of_each: Ints
    """How many groups of each type there are (T)."""
    weights: Floats
    """How much each column counts (D)."""
    ratios: Floats
    """Shares of the splits (S)."""
    main: int
    """How many of the columns, the first ones, are the main classes."""

    def best(self, rng: np.random.Generator) -> Ints:
        """Return the best of several starts, each improved until nothing improves it."""
        best, rated = np.zeros(0, np.int64), math.inf
        starts = max(2, min(_STARTS, 20_000 // self.types.size))
        for start in range(starts if self.of_each.sum() <= _MANY else 1):
            # Later starts aim a little beside the ratios: what is near may have a better mix.
            aim = self.ratios * np.exp(rng.normal(0.0, 0.1 if start else 0.0, len(self.ratios)))
            begun = attrs.evolve(self, ratios=aim / aim.sum())
            put_TS = begun.start(rng)
            begun.improve(put_TS, rng, polish=False)
            self.improve(put_TS, rng, polish=True)
            rating = self.badness(put_TS)
            if rating < rated:
                best, rated = put_TS, rating
            if rated < _GOOD:
                break
        return best[:-1]

    @cached_property
    def targets(self) -> Floats:
        """Counts that each split would have in proportion (S, D)."""
        return np.outer(self.ratios, _dot(self.types.T, self.of_each))

    @cached_property
    def scale(self) -> Floats:
        """Weights of squared deviations from the targets (S, D)."""
        scale: Floats = self.weights / (self.targets * self.targets[:, : self.main].sum())
        return scale

    def counts(self, put_TS: Ints) -> Floats:
        """Count what is in each split (S, D)."""
        return np.stack([_dot(self.types.T, put_T) for put_T in put_TS.T])

    def badness(self, put_TS: Ints) -> float:
        """Rate a split by its largest deviations of mix and of size; smaller is better."""
        counts_SD = self.counts(put_TS)
        mix_S, size_S = self._off(counts_SD[:, : self.main], self.ratios)
        return float(self._rate(mix_S.max(), size_S.max(), self._misfit(counts_SD)))

    def _rate(self, mix: Any, size: Any, misfit: Any) -> Any:
        """Weigh the mix before all, while sizes are off by three groups or so at most."""
        beyond = np.maximum(size - max(0.03, 3 / self.of_each.sum()), 0.0)
        return mix + 0.05 * size + beyond + 0.01 * np.sqrt(np.maximum(misfit, 0.0))

    def _misfit(self, counts_SD: Floats) -> Any:
        return np.sum(self.scale * (counts_SD - self.targets) ** 2)

    def _off(self, main: Floats, ratio: Any) -> tuple[Floats, Floats]:
        """Deviations of mix and of size; `main` has shape (..., classes)."""
        totals = self.targets[:, : self.main].sum(axis=0)
        size = main.sum(axis=-1)
        mix = np.abs(main / np.maximum(size, 1)[..., None] - totals / totals.sum()).max(axis=-1)
        return mix, np.abs(size / totals.sum() - ratio)

    def start(self, rng: np.random.Generator) -> Ints:
        """Put out each type in proportion, and what is left largest first where it fits best."""
        put_TS = np.floor(np.outer(self.of_each, self.ratios) + 1e-9).astype(np.int64)
        left_T = self.of_each - put_TS.sum(axis=1)
        size_T = self.types[:, : self.main].sum(axis=1) * rng.uniform(0.8, 1.25, len(left_T))
        order = np.argsort(-size_T, kind="stable")
        off_SD = self.counts(put_TS) - self.targets
        for kind in np.repeat(order, left_T[order]):
            added_SD = off_SD + self.types[kind]
            cost_S = np.sum(self.scale * (added_SD**2 - off_SD**2), axis=1)
            side = int(np.argmin(cost_S))
            off_SD[side] = added_SD[side]
            put_TS[kind, side] += 1
        for empty in np.flatnonzero(put_TS.sum(axis=0) == 0):
            giver = int(np.argmax(put_TS.sum(axis=0)))
            held = np.flatnonzero(put_TS[:, giver])
            smallest = int(held[np.argmin(size_T[held])])
            put_TS[smallest, giver] -= 1
            put_TS[smallest, empty] += 1
        return put_TS

    def improve(self, put_TS: Ints, rng: np.random.Generator, *, polish: bool) -> None:
        """Swap while that lowers the squared deviation or, to polish, the badness itself."""
        pairs = list(itertools.combinations(range(len(self.ratios)), 2))
        nothing = len(self.types) - 1
        cells = _CELLS / self.main if polish else 4 * _CELLS / len(self.weights)
        limit = min(_SAMPLE, int(math.sqrt(cells)))
        for _ in range(_STEPS):
            sample = np.arange(nothing + 1)
            if nothing > limit:
                sample = np.append(rng.choice(nothing, limit, replace=False), nothing)
            counts_SD = self.counts(put_TS)
            best, change = -_EPSILON, None
            for a, b in pairs:
                gain = self._quadratic(counts_SD, sample, a, b)
                if polish:
                    gain = self._polished(counts_SD, sample, a, b, gain)
                gain[~self._has(put_TS, sample, a)] = np.inf
                gain[:, ~self._has(put_TS, sample, b)] = np.inf
                for side, last in ((a, gain[:-1, -1]), (b, gain[-1, :-1])):
                    if put_TS[:-1, side].sum() == 1:
                        last[:] = np.inf
                at = int(np.argmin(gain))
                if gain.flat[at] < best:
                    t, u = divmod(at, len(sample))
                    best, change = gain.flat[at], (sample[t], sample[u], a, b)
            if change is None:
                return
            t, u, a, b = change
            put_TS[t, [a, b]] += (-1, 1)
            put_TS[u, [a, b]] += (1, -1)
            put_TS[nothing] = 0

    def _has(self, put_TS: Ints, sample: Ints, side: int) -> NDArray[np.bool_]:
        has: NDArray[np.bool_] = put_TS[sample, side] > 0
        has[-1] = True
        return has

    def _quadratic(self, counts_SD: Floats, sample: Ints, a: int, b: int) -> Floats:
        """Change of the misfit when type t (rows) leaves a for b, and u (columns) b for a."""
        types = self.types[sample]
        slope_SD = 2 * self.scale * (counts_SD - self.targets)
        line = _dot(types, slope_SD[b] - slope_SD[a])
        gram = np.einsum("td,ud->tu", types * (self.scale[a] + self.scale[b]), types)
        square = np.diag(gram)
        result: Floats = line[:, None] - line + square[:, None] + square - 2 * gram
        return result

    def _polished(
        self, counts_SD: Floats, sample: Ints, a: int, b: int, quadratic: Floats
    ) -> Floats:
        """Change of the badness, for the same changes."""
        main = counts_SD[:, : self.main]
        types = self.types[sample, : self.main]
        leaves = types[:, None] - types
        mix, size = self._off(main, self.ratios)
        misfit = self._misfit(counts_SD)
        mix_a, size_a = self._off(main[a] - leaves, self.ratios[a])
        mix_b, size_b = self._off(main[b] + leaves, self.ratios[b])
        others = [side for side in range(len(main)) if side not in (a, b)]
        new_mix = np.maximum(np.maximum(mix_a, mix_b), max(mix[others], default=0.0))
        new_size = np.maximum(np.maximum(size_a, size_b), max(size[others], default=0.0))
        new: Floats = self._rate(new_mix, new_size, misfit + quadratic)
        return new - float(self._rate(mix.max(), size.max(), misfit))


def _dot(matrix: Floats, vector: Any) -> Floats:
    # einsum, because threads of a BLAS cost far more here than they give.
    result: Floats = np.einsum("ij,j->i", matrix, vector)
    return result
