"""Data parallel: every rank a copy of the model and a share of each batch."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import attrs
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from framework.errors import UserError, listing
from framework.protocols import option
from plugins.strategies._memory import keep


@attrs.frozen
class Ddp:
    """Data parallel under torchrun: each rank computes its share of every batch.

    Start it as `torchrun --standalone --nproc-per-node 2 -m framework run EXPERIMENT`. Gradients
    are summed by torch's DistributedDataParallel while the backward pass goes on: by gloo between
    processes on CPUs, by NCCL between GPUs.
    """

    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where the models run")
    unused: bool = option(
        False, help="parameters may be without a part in the loss; looking for them takes time"
    )

    @property
    def alone(self) -> str:
        """What one process uses a model by that ranks have trained."""
        return f"{{use='auto', device='{self.device}'}}"

    def build(self) -> LiveDdp:
        """Join the ranks; `UserError` outside torchrun, or where there are too few GPUs."""
        if "RANK" not in os.environ:
            raise UserError(
                "strategy 'ddp' is started by torchrun: torchrun --standalone --nproc-per-node 2"
                " -m framework run EXPERIMENT"
            )
        keep()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        found = torch.cuda.device_count() if self.device != "cpu" else 0
        if beside > found and (found or self.device == "cuda"):
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
            atexit.register(dist.destroy_process_group)
        if dist.get_rank():
            logging.getLogger("framework").setLevel(logging.ERROR)  # the first rank speaks for all
        return LiveDdp(device, dist.get_world_size(), dist.get_rank(), self.unused)


@attrs.frozen
class LiveDdp:
    """One rank of several; counts and objects travel between processors, gradients of GPUs not."""

    device: torch.device
    world_size: int
    rank: int
    unused: bool = False

    def wrap(self, module: nn.Module) -> nn.Module:
        """Move the module to the device, with the first rank's weights."""
        made = _Ranked(_Share(module.to(self.device)), find_unused_parameters=self.unused)
        # without annotations, which torch would want as they were before they became text
        made.register_comm_hook(None, lambda _, bucket: made.summed(bucket))
        # after its first backward pass torch lays gradients out anew, and so adds them in another
        # order: before the first step, one that goes on has the order of one never interrupted
        made(rehearse=True).backward()
        made.zero_grad()
        return made

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Only in the `last` micro-batch of a step gradients are summed over the ranks."""
        assert isinstance(module, _Ranked)
        return module.whole() if last else module.no_sync()

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Sum the counts over ranks."""
        names = sorted(counts)
        values = torch.tensor([counts[name] for name in names], dtype=torch.int64)
        dist.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank."""
        found: list[Any] = [None] * self.world_size
        dist.all_gather_object(found, value)
        return found


class _Share(nn.Module):
    """The module, or a rehearsal in which each parameter has a gradient of 0."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.whole = module
        self.training = module.training

    def forward(self, *inputs: Any, rehearse: bool = False, **named: Any) -> Any:
        """Compute, or rehearse."""
        if rehearse:
            return sum(p.sum() for p in self.parameters() if p.requires_grad) * 0
        return self.whole(*inputs, **named)


class _Ranked(DistributedDataParallel):
    """Evaluates as the module itself: ranks may have different numbers of batches then."""

    finished: bool = False
    """Whether the ranks have summed the last of the gradients."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Compute; in training ranks meet in the backward pass."""
        share = super().forward if self.training or "rehearse" in named else self.module
        return share(*inputs, **named)

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold that a backward pass sums all gradients; `UserError` for those it doesn't reach."""
        self.finished = False
        yield
        if not self.finished:
            named = self.module.whole.named_parameters()
            idle = [name for name, p in named if p.requires_grad and p.grad is None]
            what = listing(idle[:3]) if idle else "some parameters in the last micro-batch"
            advice = "set strategy.unused to true, or freeze what isn't trained"
            raise UserError(f"no part of the loss depends on {what}; {advice}")

    def summed(self, bucket: Any) -> Any:
        """Sum, where torch would average: the losses were divided by the whole batch's counts."""
        # they come in their order, each when all of its gradients are there
        self.finished = bucket.is_last()
        work = dist.all_reduce(bucket.buffer(), async_op=True)
        return work.get_future().then(lambda done: done.value()[0])


def _cores() -> int:
    """Cores that this process may use."""
    there = getattr(os, "sched_getaffinity", None)
    return len(there(0)) if there else os.cpu_count() or 1
