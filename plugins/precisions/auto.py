"""The precision that the hardware is best at."""

from __future__ import annotations

import logging

import attrs
import torch

from plugins.precisions._amp import Amp, computes_bf16

_log = logging.getLogger("framework")


@attrs.frozen
class Auto:
    """bf16 where the hardware computes in it, else fp16 with a scaler on CUDA, else fp32."""

    def build(self, device: torch.device) -> Amp:
        """Choose for a device, and say so in the log."""
        if computes_bf16(device):
            made = Amp("bf16", device, torch.bfloat16)
        elif device.type == "cuda":
            made = Amp("fp16", device, torch.float16)
        else:
            made = Amp("fp32", device, torch.float32)
        _log.info("precision: %s on %s", made.name, device.type)
        return made
