"""Precision fp16."""

from __future__ import annotations

import attrs
import torch

from plugins.precisions._amp import Amp


@attrs.frozen
class Fp16:
    """Mixed float16: float32 weights, products in float16 by autocast, gradients scaled."""

    def build(self, device: torch.device) -> Amp:
        """Build it for a device."""
        return Amp("fp16", device, torch.float16)
