"""The plan of an epoch and the feed that follows it: pure, whole, and nearly random."""

from __future__ import annotations

import math
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tiny_parts import (
    Processor,
    one_thread,  # noqa: F401 - a fixture for every test here
    records,
)

from framework.batching import WINDOW, Feed, in_order, plan

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=150)
SIZES = st.integers(1, 12)
SEEDS = st.integers(0, 2**32)


def flat(steps: Any) -> list[list[int]]:
    """Return the records of each step, its micro-batches joined."""
    return [[int(i) for part in window for i in part] for window in steps]


@given(LENGTHS, SIZES, st.integers(0, 15), SEEDS, st.integers(0, 50))
def test_a_plan_holds_every_record_once(
    lengths: list[int], batch: int, micro: int, seed: int, epoch: int
) -> None:
    """An epoch has each record once; its steps are full, but for the last, which is the rest."""
    steps = plan(lengths, batch, micro, seed, epoch)
    sizes = [sum(len(part) for part in window) for window in steps]
    full, rest = divmod(len(lengths), batch)
    assert sizes == [batch] * full + [rest] * (rest > 0)
    assert sorted(i for step in flat(steps) for i in step) == list(range(len(lengths)))


@given(LENGTHS, SIZES, st.integers(1, 15), SEEDS, st.integers(0, 50))
def test_micro_batches_cut_a_step_in_order(
    lengths: list[int], batch: int, micro: int, seed: int, epoch: int
) -> None:
    """Micro-batches only cut: the steps are those of no micro-batches, in the same order."""
    cut = plan(lengths, batch, micro, seed, epoch)
    assert flat(cut) == flat(plan(lengths, batch, 0, seed, epoch))
    for window in cut:
        assert all(len(part) == micro for part in window[:-1])
        assert 0 < len(window[-1]) <= micro


@given(LENGTHS, SIZES, SEEDS, st.integers(0, 50))
def test_a_plan_is_pure(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    """Seed and epoch fix the plan; no global generator is read or moved."""
    states = random.getstate(), torch.get_rng_state()
    np.random.seed(1)  # noqa: NPY002 - the global generator is what must not matter
    first = flat(plan(lengths, batch, 0, seed, epoch))
    drawn = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert drawn == np.random.random()  # noqa: NPY002
    assert flat(plan(lengths, batch, 0, seed, epoch)) == first
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@given(st.lists(st.integers(1, 60), min_size=40, max_size=80), SEEDS, st.integers(0, 50))
def test_epochs_and_seeds_differ(lengths: list[int], seed: int, epoch: int) -> None:
    """Another epoch or another seed is another order (alike once in 10! at the least)."""
    first = flat(plan(lengths, 4, 0, seed, epoch))
    assert flat(plan(lengths, 4, 0, seed, epoch + 1)) != first
    assert flat(plan(lengths, 4, 0, seed + 1, epoch)) != first


@given(st.integers(1, 100), SIZES, st.integers(0, 15))
def test_an_evaluation_is_in_order(count: int, batch: int, micro: int) -> None:
    """An evaluation sees every record once, in the split's order, in batches that fit memory."""
    windows = in_order(count, batch, micro)
    assert [i for step in flat(windows) for i in step] == list(range(count))
    assert all(len(window) == 1 for window in windows)
    sizes = [len(window[0]) for window in windows]
    assert all(size == (micro or batch) for size in sizes[:-1])
    assert sizes[-1] <= (micro or batch)


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

    order = rng.permutation(2000).reshape(-1, 16).tolist()
    assert padding(flat(plan(lengths.tolist(), 16, 0, seed, 0))) < padding(order) / 2


EPOCHS = 600


def _mean_places(lengths: list[int], batch: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Return each record's mean step over many epochs, and its share in the last step.

    The third is the standard error that the mean of a uniform place has.
    """
    places = np.zeros((EPOCHS, len(lengths)), dtype=int)
    for epoch in range(EPOCHS):
        for number, step in enumerate(flat(plan(lengths, batch, 0, 3, epoch))):
            places[epoch, step] = number
    steps = places.max() + 1
    error = float(np.sqrt((steps**2 - 1) / 12 / EPOCHS))
    return places.mean(axis=0), (places == steps - 1).mean(axis=0), error


@pytest.mark.parametrize("spread", ["all of one length", "each of its own"])
def test_every_record_comes_early_and_late(spread: str) -> None:
    """Over many epochs each record's place in the epoch is uniform, whatever its length.

    A place that is uniform over S steps has the mean (S - 1) / 2 and the variance
    (S² - 1) / 12. Five standard errors of the mean over 600 epochs let a uniform plan fail for
    one of 160 records with a probability below 1e-4; the seed is fixed.
    """
    lengths = [9] * 160 if spread == "all of one length" else list(range(1, 161))
    means, _, error = _mean_places(lengths, 4)
    assert abs(means - 19.5).max() < 5 * error


def test_a_short_last_step_takes_anybody() -> None:
    """A record is in the short last step as often as any other, whatever its length.

    With 6 of 38 records left over, each stands there with p = 6/38 in an epoch; five standard
    errors over 600 epochs are 5 sqrt(p (1 - p) / 600) = 0.074.
    """
    lengths = list(range(1, 39))
    _, last, _ = _mean_places(lengths, 8)
    share = 6 / 38
    assert abs(last - share).max() < 5 * np.sqrt(share * (1 - share) / EPOCHS)


def test_batches_of_a_small_split_are_mixed_anew() -> None:
    """The company that a record keeps differs from epoch to epoch, in a small split too."""
    lengths = list(range(1, 8 * WINDOW + 1))
    batches = [
        {frozenset(step) for step in flat(plan(lengths, 8, 0, 0, epoch))} for epoch in range(4)
    ]
    assert len({frozenset(batch) for batch in batches}) == 4


@attrs.define
class Augmenting(Processor):
    """Changes features at random, and keeps things in batches that no tensor is."""

    def augment(self, features: Any, rng: np.random.Generator) -> Any:
        """Add a number of the record's own generator."""
        return features | {"noise": float(rng.random())}

    def collate(self, features: Any) -> dict[str, Any]:
        """Add lists of everything that a task may hang on its records."""
        batch = super().collate(features)
        batch["noise"] = [item.get("noise") for item in features]
        batch["meta"] = [{"symptom": "A.1", "length": item["length"]} for item in features]
        return batch


@attrs.define
class Listening(Processor):
    """Says which signals the process that makes a batch listens to."""

    def collate(self, features: Any) -> dict[str, Any]:
        """Add whether they are blocked."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return super().collate(features) | {"deaf": [number in blocked for number in numbers]}


@attrs.define
class Odd(Augmenting):
    """Hangs what a loader's own conversion would change on its batches."""

    def collate(self, features: Any) -> dict[str, Any]:
        """Add tuples, arrays and numpy's scalars."""
        batch = super().collate(features)
        batch["span"] = [(item["length"], item["id"]) for item in features]
        batch["meta"] = [{"score": np.float32(item["length"])} for item in features]
        batch["words"] = [np.arange(item["length"]) for item in features]
        return batch


def shown(batches: Any) -> Any:
    """Return windows as values that compare, with every type in them."""
    if isinstance(batches, dict):
        return {key: shown(value) for key, value in batches.items()}
    if isinstance(batches, (list, tuple)):
        return type(batches).__name__, [shown(item) for item in batches]
    if isinstance(batches, (torch.Tensor, np.ndarray)):
        return type(batches).__name__, str(batches.dtype), batches.tolist()
    return type(batches).__name__, batches


def feed(processor: Any, workers: int = 0, count: int = 21, seed: int = 5) -> Feed:
    """Return a feed of a few records."""
    return Feed(processor, records(count), batch_size=6, micro_batch=4, seed=seed, workers=workers)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(workers: int) -> None:
    """Loader workers give the batches of the training process, in its order, type by type."""
    alone, helped = feed(Augmenting()), feed(Augmenting(), workers)
    assert shown(list(helped.epoch(3))) == shown(list(alone.epoch(3)))
    assert shown(list(helped.epoch(3, 2))) == shown(list(alone.epoch(3, 2)))
    assert shown(list(helped.whole())) == shown(list(alone.whole()))


def test_workers_convert_nothing() -> None:
    """What a batch holds besides tensors comes out of a worker as it went in."""
    assert shown(list(feed(Odd(), 1).epoch(0))) == shown(list(feed(Odd()).epoch(0)))


def test_workers_are_deaf() -> None:
    """A signal to the whole group ends the training process alone, which ends its workers."""
    for workers in (0, 1):
        batches = [batch for window in feed(Listening(), workers).whole() for batch in window]
        assert all(batch["deaf"] == [bool(workers)] * 2 for batch in batches)


FAILING = """
import multiprocessing, os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_parts import At, Processor, trainer

class Bad(Processor):
    def collate(self, features):
        if sys.argv[3] == "batch" and any(item["id"] == "r7" for item in features):
            raise ValueError("no")
        return super().collate(features)

def fail(state):
    if sys.argv[3] == "callback":
        raise ValueError
    if sys.argv[3] == "killed":
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

sizes = {"train": 200, "val": 4}
fail = {"fail": At("step_end", 2, fail)}
run = trainer(Path(sys.argv[1]), fail, workers=2, processor=Bad(), sizes=sizes)
try:
    run.fit()
except Exception as error:
    kept = error  # as an interpreter at its end keeps what nobody caught
    print(error)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("callback", r"callback 'fail' \(tiny_parts\.At\) failed in step_end: ValueError"),
        ("batch", r"Caught ValueError in DataLoader worker process \d"),
        ("killed", r"DataLoader worker \(pid|\[Errno"),
    ],
    ids=["callback", "batch", "killed"],
)
def test_a_failure_ends_the_workers(tmp_path: Path, how: str, said: str) -> None:
    """A run that fails in mid-epoch is over: nothing waits for its loader's processes."""
    done = subprocess.run(
        [sys.executable, "-c", FAILING, str(tmp_path), str(Path(__file__).parent), how],
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert re.match(said, done.stdout), done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_global_generators_stay_where_they_were(workers: int) -> None:
    """Feeding draws nothing from the process's own generators, with any number of workers."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert len(list(feed(Augmenting(), workers).epoch(0))) == 4
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]  # noqa: NPY002


@settings(max_examples=30)
@given(st.integers(1, 40), st.integers(0, 20), st.integers(0, 9), SEEDS)
def test_an_epoch_taken_up_later_is_its_tail(count: int, start: int, epoch: int, seed: int) -> None:
    """An epoch from step `start` on is what is left of the whole epoch, noise included."""
    given = feed(Augmenting(), count=count, seed=seed)
    steps = math.ceil(count / 6)
    assume(start <= steps)
    whole = shown(list(given.epoch(epoch)))[1]
    assert len(whole) == steps
    assert shown(list(given.epoch(epoch, start)))[1] == whole[start:]


def test_augmenting_depends_on_seed_epoch_and_record_alone() -> None:
    """A record's noise is its own: new each epoch, and not moved by batch size or order."""

    def noise(batch_size: int, epoch: int, seed: int = 0) -> dict[str, float]:
        source = Feed(Augmenting(), records(12), batch_size=batch_size, seed=seed)
        batches = [batch for window in source.epoch(epoch) for batch in window]
        return {i: n for b in batches for i, n in zip(b["id"], b["noise"], strict=True)}

    assert noise(3, 0) == noise(5, 0)
    every = [noise(3, 0), noise(3, 1), noise(3, 0, seed=1)]
    assert len({value for made in every for value in made.values()}) == 3 * 12


def test_evaluation_augments_nothing() -> None:
    """Features of an evaluation are those that were encoded."""
    batches = [batch for window in feed(Augmenting()).whole() for batch in window]
    assert [noise for batch in batches for noise in batch["noise"]] == [None] * 21
    assert [i for batch in batches for i in batch["id"]] == [f"r{i}" for i in range(21)]
