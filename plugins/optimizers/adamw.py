"""AdamW, fused where the device has it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import attrs
import torch

from framework.protocols import Labelled, option

_log = logging.getLogger("framework")
_above_zero = attrs.validators.gt(0.0)
_share = [attrs.validators.ge(0.0), attrs.validators.lt(1.0)]


@attrs.frozen
class AdamW:
    """AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019).

    Biases and the scales of norms (parameters of one dimension) do not decay.
    """

    lr: float = option(5e-5, help="learning rate", validator=_above_zero)
    head_lr: float = option(
        0.0, help="learning rate of the head; 0: the same", validator=attrs.validators.ge(0.0)
    )
    layer_decay: float = option(
        1.0,
        help="factor of the rate for each layer farther from the output, at most 1",
        validator=[_above_zero, attrs.validators.le(1.0)],
    )
    weight_decay: float = option(
        0.01, help="decay of weights, decoupled", validator=attrs.validators.ge(0.0)
    )
    beta1: float = option(0.9, help="decay of the first moment", validator=_share)
    beta2: float = option(0.999, help="decay of the second moment", validator=_share)
    eps: float = option(1e-8, help="added to the denominator", validator=_above_zero)

    def build(self, parameters: Sequence[Labelled]) -> torch.optim.AdamW:
        """Build it with a group per learning rate and decay."""
        deepest = max(item.depth for item in parameters)
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
        for item in parameters:
            rate = self.head_lr if item.part == "head" and self.head_lr else self.lr
            rate *= self.layer_decay ** (deepest - item.depth)
            decay = self.weight_decay if item.parameter.ndim > 1 else 0.0
            groups[rate, decay].append(item.parameter)
        settings: dict[str, Any] = {"betas": (self.beta1, self.beta2), "eps": self.eps}
        made = [
            {"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for (rate, decay), members in groups.items()
        ]
        reason = _obstacle([item.parameter for item in parameters])
        if reason:
            _log.info("adamw: this device has no fused kernel, stepping without (%s)", reason)
        return torch.optim.AdamW(made, fused=not reason, **settings)


def _obstacle(parameters: Sequence[torch.nn.Parameter]) -> str:
    """Return why the fused kernel can't step these; empty where it can.

    torch itself says so in the first step only, so one is taken on a number of each kind.
    """
    for device, dtype in dict.fromkeys((p.device, p.dtype) for p in parameters):
        probe = torch.zeros(1, device=device, dtype=dtype, requires_grad=True)
        probe.grad = torch.zeros_like(probe)
        try:
            torch.optim.AdamW([probe], fused=True).step()
        except RuntimeError as error:
            return str(error).splitlines()[0]
    return ""
