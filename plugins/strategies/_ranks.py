"""Ranks that torchrun has started: how they find each other, and what they tell each other."""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from framework.errors import UserError
from plugins.strategies._memory import keep

_PATIENCE = 10.0
"""Seconds at the end that a thread may take to let go of what was sent."""


class Ranks(NamedTuple):
    """This rank's device, and where it stands among the others."""

    device: torch.device
    world_size: int
    rank: int


def join(strategy: str, asked: str) -> Ranks:
    """Join the ranks, each with the `asked` kind of device.

    Raises `UserError`, by the name of the strategy, outside torchrun or where GPUs are too few.
    """
    if "RANK" not in os.environ:
        raise UserError(
            f"strategy '{strategy}' is started by torchrun: torchrun --standalone"
            " --nproc-per-node 2 -m framework run EXPERIMENT"
        )
    keep()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    found = torch.cuda.device_count() if asked != "cpu" else 0
    if beside > found and (found or asked == "cuda"):
        advice = "start fewer, or set strategy.device to 'cpu'"
        raise UserError(f"{beside} processes and {found} CUDA devices here; {advice}")
    device = torch.device("cuda", local) if found else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif beside > 1 and os.environ.get("OMP_NUM_THREADS") == "1":
        # which is what torchrun sets where nobody has: each may have its share of the cores
        torch.set_num_threads(max(1, _cores() // beside))
    if not dist.is_initialized():
        backend = "cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo"
        store, rank, size = next(rendezvous("env://"))
        # torchrun gives ranks that it starts again the same one, with the addresses of the dead
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = dist.PrefixStore(attempt, store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        atexit.register(_part)
    if dist.get_rank():
        logging.getLogger("framework").setLevel(logging.ERROR)  # the first rank speaks for all
    return Ranks(device, dist.get_world_size(), dist.get_rank())


def total(counts: Mapping[str, int]) -> dict[str, int]:
    """Sum counts over the ranks, by way of their processors."""
    names = sorted(counts)
    values = torch.tensor([counts[name] for name in names], dtype=torch.int64)
    _watch([values])
    dist.all_reduce(values)
    return dict(zip(names, values.tolist(), strict=True))


def every(value: Any) -> list[Any]:
    """Collect an object of every rank."""
    mine, ranks = pickle.dumps(value), range(dist.get_world_size())
    sizes = total({str(rank): len(mine) * (rank == dist.get_rank()) for rank in ranks})
    # equally many bytes of each; zeros behind a pickle's end are not read
    longest = max(sizes.values())
    sent = torch.frombuffer(bytearray(mine.ljust(longest, b"\0")), dtype=torch.uint8)
    found = [torch.empty(longest, dtype=torch.uint8) for _ in ranks]
    _watch([sent, *found])
    dist.all_gather(found, sent)
    return [pickle.loads(part.numpy().tobytes()) for part in found]  # noqa: S301 - our own ranks'


_SENT: list[weakref.ref[torch.Tensor]] = []
"""What the threads that speak with other ranks may still hold."""


def _watch(tensors: Sequence[torch.Tensor]) -> None:
    _SENT[:] = [*(ref for ref in _SENT if ref() is not None), *map(weakref.ref, tensors)]


def _part() -> None:
    """Leave the others, once no thread holds what was sent to them.

    To let go of it, a thread needs the interpreter; one that finds it ending is ended by it, in a
    way that aborts the process.
    """
    dist.destroy_process_group()
    until = time.monotonic() + _PATIENCE
    while any(ref() is not None for ref in _SENT) and time.monotonic() < until:
        time.sleep(0.001)


def _cores() -> int:
    """Cores that this process may use."""
    there = getattr(os, "sched_getaffinity", None)
    return len(there(0)) if there else os.cpu_count() or 1
