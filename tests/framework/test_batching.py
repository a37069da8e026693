"""The plan of an epoch and the feed that follows it: pure, whole, and nearly random."""

from __future__ import annotations

import itertools
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

from framework.batching import LARGER, SPAN, Feed, cut
from plugins.samplers._bucketed import LiveBucketed

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=150)
SEEDS = st.integers(0, 2**32)


@given(LENGTHS, st.integers(0, 15), st.integers(0, 200))
def test_a_cut_keeps_the_order_and_fits(lengths: list[int], items: int, tokens: int) -> None:
    """Micro-batches only cut; each fits both limits, unless it is one record that is too long."""
    given = np.asarray(lengths)
    records = np.arange(len(lengths)) * 3
    parts = cut(records, given, items, tokens)
    assert np.concatenate(parts).tolist() == records.tolist()
    for part in parts:
        assert 0 < len(part) <= (items or len(lengths))
        assert len(part) == 1 or not tokens or max(given[part // 3]) * len(part) <= tokens


@pytest.mark.parametrize(("items", "tokens"), [(0, 0), (3, 0), (0, 9), (3, 9)])
def test_no_records_are_no_micro_batch(items: int, tokens: int) -> None:
    """A rank without a record of a short step has nothing to cut."""
    assert cut(np.arange(0), np.arange(0), items, tokens) == []


@given(LENGTHS, st.integers(0, 15), st.integers(1, 200))
def test_a_cut_is_no_finer_than_it_must(lengths: list[int], items: int, tokens: int) -> None:
    """A micro-batch ends only where the next record would not fit."""
    given = np.asarray(lengths)
    parts = cut(np.arange(len(lengths)), given, 0, tokens)
    for part, after in itertools.pairwise(parts):
        assert max(given[part].max(), given[after[0]]) * (len(part) + 1) > tokens
    sizes = [len(part) for part in cut(np.arange(len(lengths)), given, items, 0)]
    assert all(size == (items or len(lengths)) for size in sizes[:-1])


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 6), st.integers(0, 7), st.integers(0, 400), SEEDS)
def test_an_evaluation_is_whole(count: int, batch: int, micro: int, budget: int, seed: int) -> None:
    """An evaluation sees every record once, a span after the other, in each the longest first."""
    rng = np.random.default_rng(seed)
    features = [item | {"length": int(rng.integers(1, 60))} for item in records(count)]
    given = Feed(Processor(), features, LiveBucketed(budget), batch, micro, seed)
    windows = list(given.whole())
    places = [[int(i) for part in window for i in part["_index"]] for window in windows]
    assert sorted(i for window in places for i in window) == list(range(count))
    size = SPAN * batch
    assert [sorted(w) for w in places] == [
        list(range(count))[at : at + size] for at in range(0, count, size)
    ]
    for window in windows:
        lengths = [features[i]["length"] for part in window for i in part["_index"]]
        assert lengths == sorted(lengths, reverse=True)
        for part in window:
            assert part["id"] == [features[i]["id"] for i in part["_index"]]
            assert len(part["id"]) <= LARGER * (micro or batch)


class Lazily:
    """Features that are made when they are asked for, one by one; their lengths are known."""

    def __init__(self, count: int) -> None:
        """Count the lengths."""
        self.made = records(count)
        self.lengths = np.array([item["length"] for item in self.made])
        self.read: list[int] = []

    def __len__(self) -> int:
        return len(self.made)

    def __getitem__(self, at: int) -> Any:
        self.read.append(int(at))
        return dict(self.made[at])


def test_lazy_features_are_read_when_their_batch_is() -> None:
    """Where all lengths are known a window reads its own features alone, and gives the same."""
    lazy = Lazily(21)
    alone, given = [Feed(Processor(), each, LiveBucketed(), 6) for each in (records(21), lazy)]
    assert lazy.read == []
    for windows, expected in ((given.epoch(1), alone.epoch(1)), (given.whole(), alone.whole())):
        for window, other in zip(windows, expected, strict=True):
            assert shown(window) == shown(other)
            assert len(lazy.read) == sum(len(batch["id"]) for batch in window)
            lazy.read.clear()


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
    return Feed(
        processor,
        records(count),
        LiveBucketed(),
        batch_size=6,
        micro_batch=4,
        seed=seed,
        workers=workers,
    )


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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
def test_what_workers_load_for_cuda_is_pinned() -> None:
    """Its tensors lie where CUDA fetches them by itself; nothing else of a batch changes."""
    found = list(attrs.evolve(feed(Odd(), 1), pin=True).epoch(0))
    assert shown(found) == shown(list(feed(Odd()).epoch(0)))
    every = [item for window in found for batch in window for item in batch.values()]
    assert all(item.is_pinned() for item in every if isinstance(item, torch.Tensor))


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
from framework.commands._records import RunRecords

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
    # torch tells a death in several ways, one without any words
    print(RunRecords(None).words(error) or error)
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("callback", r"callback 'fail' \(tiny_parts\.At\) failed in step_end: ValueError"),
        ("batch", r"Caught ValueError in DataLoader worker process \d"),
        ("killed", r"a process that loads batches was killed"),
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
        source = Feed(Augmenting(), records(12), LiveBucketed(), batch_size=batch_size, seed=seed)
        batches = [batch for window in source.epoch(epoch) for batch in window]
        return {i: n for b in batches for i, n in zip(b["id"], b["noise"], strict=True)}

    assert noise(3, 0) == noise(5, 0)
    every = [noise(3, 0), noise(3, 1), noise(3, 0, seed=1)]
    assert len({value for made in every for value in made.values()}) == 3 * 12


def test_evaluation_augments_nothing() -> None:
    """Features of an evaluation are those that were encoded."""
    batches = [batch for window in feed(Augmenting()).whole() for batch in window]
    assert [noise for batch in batches for noise in batch["noise"]] == [None] * 21
