"""Mixed precision by `torch.amp`: what every precision plugin builds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import attrs
import torch
from torch import Tensor

_EPS = 1e-6
"""What torch adds to a norm before it divides by it."""


@attrs.define(eq=False)
class Amp:
    """Autocast in `dtype`, master weights in float32, a gradient scaler for float16.

    On CUDA, float32 products that remain run in TF32.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    scaler: torch.amp.GradScaler = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Set the scaler up; it is a no-op but for float16."""
        half = self.dtype is torch.float16
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half)
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32"
            torch.backends.cudnn.fp32_precision = "tf32"

    @property
    def scaled(self) -> bool:
        """True where a step that overflows is skipped as part of its working."""
        return self.scaler.is_enabled()

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor) -> None:
        """Back-propagate the scaled loss."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> tuple[Tensor, bool]:
        """Unscale, clip, step, clear; a step whose norm is not finite is not taken."""
        self.scaler.unscale_(optimizer)
        gradients = [p.grad for p in parameters if p.grad is not None]
        # what `get_total_norm` does, but for sorting them by device and type, which takes longer
        norms = torch._foreach_norm(gradients or [torch.zeros(1, device=self.device)])  # noqa: SLF001
        norm = torch.linalg.vector_norm(torch.stack(norms))
        # of gradients that ranks have shared out it is theirs, and its parts must be one number
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        value = norm.item()  # which waits for the device, once a step
        finite = math.isfinite(value)
        # otherwise they would be multiplied by 1
        if finite and 0 < max_norm < value + _EPS:
            torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        if finite:
            self.scaler.step(optimizer)
        self.scaler.update()
        for parameter in parameters:  # as `zero_grad` does, without its 8 microseconds of looks
            parameter.grad = None
        return norm, finite

    def state_dict(self) -> dict[str, Any]:
        """State of the scaler; empty without one."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        if state:
            self.scaler.load_state_dict(state)


def computes_bf16(device: torch.device) -> bool:
    """Return whether the hardware computes in bfloat16, rather than emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
