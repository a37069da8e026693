"""Precision bf16."""

from __future__ import annotations

import attrs
import torch

from plugins.precisions._amp import Amp


@attrs.frozen
class Bf16:
    """Mixed bfloat16: float32 weights, products in bfloat16 by autocast; no scaler is needed."""

    def build(self, device: torch.device) -> Amp:
        """Build it for a device."""
        return Amp("bf16", device, torch.bfloat16)
