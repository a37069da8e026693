"""The feed of batches: a pure function of seed, epoch and the sampler's order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN = 32
"""Steps' worth of an evaluation's records, among which batches hold those of about one length."""

LARGER = 2
"""Times as many items, or tokens, as in training: nothing is kept for a backward pass."""

Window: TypeAlias = "list[NDArray[np.int64]]"
"""The micro-batches of one step, as indices of records."""

Windows: TypeAlias = "Generator[list[dict[str, Any]]]"
"""Collated windows; to be closed, so that worker processes end."""


def cut(records: NDArray[np.int64], lengths: NDArray[np.int64], items: int, tokens: int) -> Window:
    """Cut records in their order into micro-batches of at most so many items and tokens.

    Padding counts as tokens; a record that is too long by itself stands alone. 0: any number.
    """
    if not len(records) or not (items or tokens):
        return [records][: len(records)]  # none of no records
    found, begin, longest = [], 0, 0
    for at, length in enumerate(lengths.tolist() if tokens else ()):
        longest = max(longest, length)
        if at > begin and longest * (at + 1 - begin) > tokens:
            found.append(records[begin:at])
            begin, longest = at, length
    pieces = [*found, records[begin:]]
    size = items or max(1, len(records))
    return [p[at : at + size] for p in pieces for at in range(0, len(p), size)]


def in_order(rows: Iterable[tuple[int, Any]]) -> list[Any]:
    """Return rows in the split's order; each came with its item's `_index`."""
    return [row for _, row in sorted(rows, key=lambda row: row[0])]


@attrs.frozen
class Feed:
    """The collated windows of one split: `epoch(e)` for training, `whole()` for evaluation."""

    processor: Any
    features: Sequence[Any] = attrs.field(repr=False)
    sampler: Any
    batch_size: int
    micro_batch: int = 0
    seed: int = 0
    workers: int = 0
    rank: int = 0
    ranks: int = 1
    """Each of the ranks loads its share of every window."""
    pin: bool = False
    """True where what workers load goes to CUDA, which then need not be waited for."""
    lengths: NDArray[np.int64] = attrs.field(repr=False, eq=False)

    @lengths.default
    def _lengths(self) -> NDArray[np.int64]:
        known = getattr(self.features, "lengths", None)
        return np.asarray([f["length"] for f in self.features] if known is None else known)

    def epoch(self, epoch: int, start: int = 0) -> Windows:
        """Yield the windows of a training epoch, from step `start` on."""
        rng = np.random.default_rng([self.seed, epoch])
        return self._load(self.sampler(self.lengths, self.batch_size, rng), epoch, start)

    def whole(self) -> Windows:
        """Yield every record once, in spans of the split's order: within each the longest first.

        What doesn't fit in memory is met at once so. A batch's `_index` says whose its items are.
        """
        every = np.arange(len(self.features))
        size = SPAN * self.batch_size
        spans = [every[at : at + size] for at in range(0, len(every), size)]
        order = [span[np.argsort(-self.lengths[span], kind="stable")] for span in spans]
        return self._load(order, None, 0)

    def _load(self, steps: Sequence[NDArray[np.int64]], epoch: int | None, start: int) -> Windows:
        windows = _Windows(self, steps, epoch)
        rest = range(start, len(steps))
        source: Iterator[Any] = (windows[index] for index in rest)
        if self.workers:
            import torch.utils.data

            drawn = np.random.SeedSequence([self.seed, epoch or 0, self.rank]).generate_state(1)
            loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
                windows,  # type: ignore[arg-type]
                batch_size=None,
                sampler=rest,
                collate_fn=list,  # which leaves a window as it is
                pin_memory=self.pin,
                num_workers=self.workers,
                # its own: the number of workers must not move the global random stream
                generator=torch.Generator().manual_seed(int(drawn[0])),
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


@attrs.frozen
class _Windows:
    """Windows by index, picklable for loader workers."""

    feed: Feed
    steps: Sequence[NDArray[np.int64]]
    epoch: int | None

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        feed, records = self.feed, self.steps[index]
        items, tokens = feed.micro_batch, feed.sampler.budget
        if self.epoch is None:
            share = -(-feed.batch_size // feed.ranks)
            items, tokens = LARGER * (items or share), LARGER * tokens
        if feed.ranks == 1:
            return [self._batch(p) for p in cut(records, feed.lengths[records], items, tokens)]
        shares = [records[rank :: feed.ranks] for rank in range(feed.ranks)]
        every = [cut(share, feed.lengths[share], items, tokens) for share in shares]
        mine = [self._batch(part) for part in every[feed.rank]]
        # and batches of nobody: all ranks must go forward and backward as often
        short = max(map(len, every)) - len(mine)
        return mine + [self._batch(records[:1]) | {"id": []} for _ in range(short)]

    def _batch(self, indices: NDArray[np.int64]) -> dict[str, Any]:
        feed = self.feed
        chosen = [feed.features[i] for i in indices.tolist()]
        if self.epoch is not None and getattr(feed.processor, "augments", True):
            rngs = (np.random.default_rng([feed.seed, self.epoch, int(i)]) for i in indices)
            chosen = [feed.processor.augment(f, r) for f, r in zip(chosen, rngs, strict=True)]
        batch: dict[str, Any] = feed.processor.collate(chosen)
        return batch if self.epoch is not None else batch | {"_index": indices}
