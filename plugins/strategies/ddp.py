"""Data parallel: every rank a copy of the model and a share of each batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal

import attrs
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from framework.errors import UserError, listing
from framework.protocols import option
from plugins.strategies import _ranks


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
        return LiveDdp(*_ranks.join("ddp", self.device), self.unused)


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
        return _ranks.total(counts)

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank."""
        return _ranks.every(value)


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
