"""Precision fp32."""

from __future__ import annotations

import attrs
import torch

from plugins.precisions._amp import Amp


@attrs.frozen
class Fp32:
    """Float32 throughout (TF32 products on CUDA)."""

    def build(self, device: torch.device) -> Amp:
        """Build it for a device."""
        return Amp("fp32", device, torch.float32)
