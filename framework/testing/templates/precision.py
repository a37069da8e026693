"""Products in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import attrs
import torch
from torch import Tensor

from framework.protocols import option


@attrs.frozen
class Template:
    """Mixed precision by autocast: weights in float32; no scaler, as bfloat16 has its range."""

    products: Literal["bf16", "fp32"] = option(
        "bf16", help="type of matrix products; fp32 turns autocast off, to compare with"
    )

    def build(self, device: torch.device) -> LiveTemplate:
        """Build it for a device."""
        return LiveTemplate(self.products, device)


@attrs.frozen
class LiveTemplate:
    """Without state: nothing is scaled."""

    name: str
    device: torch.device
    scaled: bool = False

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bf16")

    def backward(self, loss: Tensor) -> None:
        """Back-propagate."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> tuple[Tensor, bool]:
        """Clip, step, clear; a step whose norm is not finite is not taken."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = bool(norm.isfinite())
        if finite and max_norm:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        if finite:
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm, finite

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up nothing."""
