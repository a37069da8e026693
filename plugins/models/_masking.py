"""Hiding tokens for masked-token prediction. Legend of shapes: N tokens of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import attrs
import numpy as np
from numpy.typing import NDArray

from plugins._language import IGNORED

_MASKED, _REPLACED = 0.8, 0.9
"""Of what is chosen, the part below the first is masked, from there to the second replaced."""

Ids = NDArray[np.int32]


class Masked(NamedTuple):
    """What the model reads, and what it is to predict."""

    ids_N: Ids
    labels_N: Ids
    """The tokens that were there; `IGNORED` where there is nothing to predict."""


@attrs.frozen
class Masking:
    """Masks tokens of one vocabulary; special ones are never chosen, nor put in another's place."""

    special: Sequence[int]
    mask: int
    """The token that stands for a hidden one."""
    size: int
    """Tokens of the vocabulary."""
    share: float
    """Of tokens that training chooses."""
    scored: Sequence[int] = ()
    """Special ones that evaluation predicts all the same."""
    others: Ids = attrs.field(init=False, repr=False, eq=False)
    """All ids but the special ones."""

    @others.default
    def _others(self) -> Ids:
        return np.setdiff1d(np.arange(self.size, dtype=np.int32), self.special)

    def open(self, ids_N: Ids) -> NDArray[np.bool_]:
        """Return which tokens may be chosen."""
        return ~np.isin(ids_N, self.special)

    def draw(self, ids_N: Ids, rng: np.random.Generator) -> Masked:
        """Choose tokens, and of these mask 80 %, replace 10 %, leave 10 % as they are.

        After Devlin et al., BERT (2019), section 3.1. One draw of each token, uniform from 0 to
        1, decides both. At least one is chosen where there is any but special ones.
        """
        open_N = self.open(ids_N)
        draws_N = np.where(open_N, rng.random(len(ids_N)), 1.0)
        chosen_N = draws_N < self.share
        if not chosen_N.any() and open_N.any():
            # any of them, with a draw like those of the chosen
            at = rng.choice(np.flatnonzero(open_N))
            draws_N[at], chosen_N[at] = self.share * rng.random(), True
        inputs_N = ids_N.copy()
        inputs_N[draws_N < _MASKED * self.share] = self.mask
        replaced_N = (draws_N >= _MASKED * self.share) & (draws_N < _REPLACED * self.share)
        inputs_N[replaced_N] = rng.choice(self.others, int(replaced_N.sum()))
        return Masked(inputs_N, np.where(chosen_N, ids_N, IGNORED).astype(np.int32))

    def turns(self, ids_N: Ids, count: int) -> Ids:
        """Return in which of `count` passes each token is masked in evaluation; -1: in none.

        Each but the special ones that aren't scored is in exactly one, and neighbours are in
        different ones.
        """
        open_N = self.open(ids_N) | np.isin(ids_N, self.scored)
        return np.where(open_N, (np.cumsum(open_N) - 1) % count, -1).astype(np.int32)
