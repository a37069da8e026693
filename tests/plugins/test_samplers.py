"""The order of an epoch: pure, whole, and nearly random."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from framework.protocols import LiveSampler
from plugins.samplers._bucketed import WINDOW
from plugins.samplers.bucket import Bucket
from plugins.samplers.random import Random
from plugins.samplers.tokens import Tokens

BUCKET = Bucket().build()
SAMPLERS = st.sampled_from([Bucket().build(), Random().build(), Tokens(budget=99).build()])
LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=150)
SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32)


def order(
    sampler: LiveSampler, lengths: Sequence[int], batch: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return the records of each step of an epoch."""
    steps = sampler(np.asarray(lengths), batch, np.random.default_rng([seed, epoch]))
    return [step.tolist() for step in steps]


@given(SAMPLERS, LENGTHS, SIZES, SEEDS, st.integers(0, 50))
def test_an_epoch_holds_every_record_once(
    sampler: LiveSampler, lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    """An epoch has each record once; its steps are full, but for the last, which is the rest."""
    steps = order(sampler, lengths, batch, seed, epoch)
    full, rest = divmod(len(lengths), batch)
    assert [len(step) for step in steps] == [batch] * full + [rest] * (rest > 0)
    assert sorted(i for step in steps for i in step) == list(range(len(lengths)))


@given(SAMPLERS, LENGTHS, SIZES, SEEDS)
def test_steps_are_a_sequence(
    sampler: LiveSampler, lengths: list[int], batch: int, seed: int
) -> None:
    """A step is the same whenever it is asked for, alone, from the end or in a slice."""
    steps = sampler(np.asarray(lengths), batch, np.random.default_rng(seed))
    whole = [step.tolist() for step in steps]
    again = sampler(np.asarray(lengths), batch, np.random.default_rng(seed))
    for at in range(-len(whole), len(whole)):
        assert again[at].tolist() == whole[at]
        assert [step.tolist() for step in again[at:]] == whole[at:]
    for beyond in (len(whole), -len(whole) - 1):
        with pytest.raises(IndexError):
            again[beyond]


@given(SAMPLERS, LENGTHS, SIZES, SEEDS, st.integers(0, 50))
def test_an_order_is_pure(
    sampler: LiveSampler, lengths: list[int], batch: int, seed: int, epoch: int
) -> None:
    """Seed and epoch fix the order; no global generator is read or moved."""
    states = random.getstate(), torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    first = order(sampler, lengths, batch, seed, epoch)
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert drawn == np.random.random()  # noqa: NPY002
    assert order(sampler, lengths, batch, seed, epoch) == first
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@given(SAMPLERS, st.lists(st.integers(1, 60), min_size=40, max_size=80), SEEDS, st.integers(0, 50))
def test_epochs_and_seeds_differ(
    sampler: LiveSampler, lengths: list[int], seed: int, epoch: int
) -> None:
    """Another epoch or another seed is another order (alike once in 10! at the least)."""
    first = order(sampler, lengths, 4, seed, epoch)
    assert order(sampler, lengths, 4, seed, epoch + 1) != first
    assert order(sampler, lengths, 4, seed + 1, epoch) != first


@given(st.integers(0, 2**16))
def test_batches_hold_records_of_like_length(seed: int) -> None:
    """Sorting inside windows saves more than half of the padding of a random order.

    Lengths are log-normal, as those of sentences are; the padding of a batch is what its items
    lack to its longest. A window of 16 batches splits the lengths at 16 quantiles, so that most
    of it goes; half is far from what chance could give over 2,000 records.
    """
    rng = np.random.default_rng(seed)
    lengths = np.ceil(rng.lognormal(3, 0.6, 2000)).astype(int)

    def padding(steps: list[list[int]]) -> int:
        return sum(int((lengths[step].max() - lengths[step]).sum()) for step in steps)

    chance = rng.permutation(2000).reshape(-1, 16).tolist()
    assert padding(order(BUCKET, lengths.tolist(), 16, seed, 0)) < padding(chance) / 2


EPOCHS = 600


def _mean_places(
    sampler: LiveSampler, lengths: list[int], batch: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return each record's mean step over many epochs, and its share in the last step.

    The third is the standard error that the mean of a uniform place has.
    """
    places = np.zeros((EPOCHS, len(lengths)), dtype=int)
    for epoch in range(EPOCHS):
        for number, step in enumerate(order(sampler, lengths, batch, 3, epoch)):
            places[epoch, step] = number
    steps = places.max() + 1
    error = float(np.sqrt((steps**2 - 1) / 12 / EPOCHS))
    return places.mean(axis=0), (places == steps - 1).mean(axis=0), error


@pytest.mark.parametrize("sampler", [Bucket().build(), Random().build()], ids=["bucket", "random"])
@pytest.mark.parametrize("spread", ["all of one length", "each of its own"])
def test_every_record_comes_early_and_late(sampler: LiveSampler, spread: str) -> None:
    """Over many epochs each record's place in the epoch is uniform, whatever its length.

    A place that is uniform over S steps has the mean (S - 1) / 2 and the variance
    (S² - 1) / 12. Five standard errors of the mean over 600 epochs let a uniform plan fail for
    one of 160 records with a probability below 1e-4; the seed is fixed.
    """
    lengths = [9] * 160 if spread == "all of one length" else list(range(1, 161))
    means, _, error = _mean_places(sampler, lengths, 4)
    assert abs(means - 19.5).max() < 5 * error


def test_a_short_last_step_takes_anybody() -> None:
    """A record is in the short last step as often as any other, whatever its length.

    With 6 of 38 records left over, each stands there with p = 6/38 in an epoch; five standard
    errors over 600 epochs are 5 sqrt(p (1 - p) / 600) = 0.074.
    """
    lengths = list(range(1, 39))
    _, last, _ = _mean_places(BUCKET, lengths, 8)
    share = 6 / 38
    assert abs(last - share).max() < 5 * np.sqrt(share * (1 - share) / EPOCHS)


def test_batches_of_a_small_split_are_mixed_anew() -> None:
    """The company that a record keeps differs from epoch to epoch, in a small split too."""
    lengths = list(range(1, 8 * WINDOW + 1))
    batches = [
        {frozenset(step) for step in order(BUCKET, lengths, 8, 0, epoch)} for epoch in range(4)
    ]
    assert len({frozenset(batch) for batch in batches}) == 4
