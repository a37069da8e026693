"""One process on one device."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import attrs
import torch
from torch import nn

from framework.errors import UserError
from framework.protocols import option


@attrs.frozen
class Template:
    """One process, on the CPU unless it is told otherwise."""

    device: Literal["cpu", "cuda"] = option("cpu", help="where the model runs")

    def build(self) -> LiveTemplate:
        """Choose the device; `UserError` for one that isn't there."""
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError('strategy.device is "cuda" and torch finds none; use "cpu"')
        return LiveTemplate(torch.device(self.device))


@attrs.frozen
class LiveTemplate:
    """One rank: sums and gatherings are the value itself."""

    device: torch.device
    world_size: int = 1
    rank: int = 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """Move the module to the device."""
        return module.to(self.device)

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Do nothing: in one process gradients add up by themselves."""
        return nullcontext()

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return the counts as they are."""
        return dict(counts)

    def gather(self, value: Any) -> list[Any]:
        """Return the value of the only rank."""
        return [value]
