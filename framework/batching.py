"""Which records make which optimizer step: a pure function of seed, epoch and lengths."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOW = 16
"""Batches of a sorting window: wide enough to save padding, narrow enough to stay random."""

BLUR = 0.2
"""By how much of itself a length may be overstated where records are sorted by it."""

Window: TypeAlias = "list[NDArray[np.int64]]"
"""The micro-batches of one step, as indices of records."""

Windows: TypeAlias = "Generator[list[dict[str, Any]]]"
"""Collated windows; to be closed, so that worker processes end."""


def plan(
    lengths: Sequence[int], batch_size: int, micro_batch: int, seed: int, epoch: int
) -> list[Window]:
    """Return the steps of a training epoch.

    Records are shuffled, then sorted by length inside windows of `WINDOW` batches, so that a
    batch holds records of about one length; the batches are then shuffled. Lengths are blurred
    for it by up to `BLUR`, so that a record's company changes in a small split too. The steps
    hold `batch_size` records each, but for the last, which takes those that chance leaves over.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    blurred = np.asarray(lengths) * rng.uniform(1, 1 + BLUR, len(lengths))
    full = len(order) // batch_size
    body, rest = order[: full * batch_size], order[full * batch_size :]
    span = WINDOW * batch_size
    windows = [body[at : at + span] for at in range(0, len(body), span)]
    batches = [w[np.argsort(blurred[w])].reshape(-1, batch_size) for w in windows]
    steps = [batch for window in batches for batch in window]
    shuffled = [steps[index] for index in rng.permutation(full)]
    return [_cut(step, micro_batch) for step in [*shuffled, *([rest] if len(rest) else [])]]


def in_order(count: int, batch_size: int, micro_batch: int) -> list[Window]:
    """Return the batches of an evaluation: every record once, in the split's own order."""
    every = np.arange(count)
    size = micro_batch or batch_size
    return [[every[at : at + size]] for at in range(0, count, size)]


def _cut(step: NDArray[np.int64], micro_batch: int) -> Window:
    size = micro_batch or len(step)
    return [step[at : at + size] for at in range(0, len(step), size)]


@attrs.frozen
class Feed:
    """The collated windows of one split: `epoch(e)` for training, `whole()` for evaluation."""

    processor: Any
    features: Sequence[Any] = attrs.field(repr=False)
    batch_size: int
    micro_batch: int = 0
    seed: int = 0
    workers: int = 0

    def epoch(self, epoch: int, start: int = 0) -> Windows:
        """Yield the windows of a training epoch, from step `start` on."""
        lengths = [item["length"] for item in self.features]
        steps = plan(lengths, self.batch_size, self.micro_batch, self.seed, epoch)
        return self._load(steps[start:], epoch)

    def whole(self) -> Windows:
        """Yield every record once, in order, a batch a window."""
        return self._load(in_order(len(self.features), self.batch_size, self.micro_batch), None)

    def _load(self, steps: list[Window], epoch: int | None) -> Windows:
        windows = _Windows(self, steps, epoch)
        source: Iterator[Any] = (windows[index] for index in range(len(steps)))
        if self.workers:
            import torch.utils.data

            loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
                windows,  # type: ignore[arg-type]
                batch_size=None,
                collate_fn=_as_it_is,
                num_workers=self.workers,
                # its own: the number of workers must not move the global random stream
                generator=torch.Generator().manual_seed(self.seed),
            )
            # they inherit it: what is sent to the whole group ends the training process alone
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
            source = iter(loader)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            if threading.current_thread() is threading.main_thread():
                # torch's handler raises anywhere; the loader finds its dead workers by itself
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        try:
            yield from source
        finally:
            # workers are deaf to signals, and a traceback may hold their loader
            getattr(source, "_shutdown_workers", lambda: None)()


def _as_it_is(window: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return window


@attrs.frozen
class _Windows:
    """Windows by index, picklable for loader workers."""

    feed: Feed
    steps: list[Window]
    epoch: int | None

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        return [self._batch(indices) for indices in self.steps[index]]

    def _batch(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        feed = self.feed
        chosen = [feed.features[i] for i in indices]
        if self.epoch is not None:
            seeds = [[feed.seed, self.epoch, int(i)] for i in indices]
            rngs = map(np.random.default_rng, seeds)
            chosen = [feed.processor.augment(f, r) for f, r in zip(chosen, rngs, strict=True)]
        batch: dict[str, Any] = feed.processor.collate(chosen)
        return batch
