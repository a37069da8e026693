"""The strategy that fits how the process was started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import attrs
import torch
from torch import nn

from framework.errors import UserError
from framework.protocols import option
from plugins.strategies._memory import keep
from plugins.strategies.ddp import Ddp, LiveDdp


@attrs.frozen
class Auto:
    """One process on one device, CUDA's first where there is one; under torchrun, `ddp`."""

    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where the model runs")

    def build(self) -> OneProcess | LiveDdp:
        """Choose the device; `UserError` for one that isn't there."""
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            return Ddp(device=self.device).build()
        there = torch.cuda.is_available()
        if self.device == "cuda" and not there:
            raise UserError('strategy.device is "cuda" and torch finds none; use "auto" or "cpu"')
        keep()
        return OneProcess(torch.device("cuda" if there and self.device != "cpu" else "cpu"))


@attrs.frozen
class OneProcess:
    """One rank: sums and gatherings are the value itself."""

    device: torch.device
    world_size: int = 1
    rank: int = 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Move the module to the device."""
        return module.to(self.device)

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Gradients add up by themselves."""
        return nullcontext()

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the counts as they are."""
        return dict(counts)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of the only rank."""
        return [value]
