"""Dropout and attention on CPUs, where the library's own take a third of a training's time.

torch draws a mask of dropout number by number, on one core; where attention has dropout, it
computes in float32, and where it has none, its backward pass is slow in bfloat16. Here masks come 4
numbers at a time from a generator seeded from torch's (so they are as reproducible, and are drawn
again alike where activations are recomputed), and attention's products stay in the type of the
forward pass: in 16 bits its scores are rounded before the softmax, as transformers' eager attention
rounds them. Nothing else of the arithmetic is changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NAME = "framework_cpu"
"""What transformers knows the attention by."""
_ONES = {torch.bfloat16: 0x3F80, torch.float16: 0x3C00}
"""The bits of 1.0 in the types of 16 bits."""
_UNKNOWN = {"is_causal", "position_bias", "cache", "softcap", "output_attentions"}
"""What sdpa does something about."""


def kept(shape: torch.Size, p: float, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return 1 for each number of a shape that dropout leaves, with the chance 1 - p, else 0.

    The chance is a multiple of 2^-15: off by at most 1.6e-5.
    """
    count = shape.numel()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.int16)[:count]
    # each is -1 where it reaches the threshold, else 0, in whole numbers as wide as the half types
    bits >>= 1
    np.subtract(round(p * 2**15) - 2**14 - 1, bits, out=bits)
    bits >>= 15
    bits &= _ONES.get(dtype, 1)
    mask = torch.from_numpy(bits).view(shape)
    return mask.view(dtype) if dtype in _ONES else mask.to(dtype)


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, p: float) -> Tensor:
        mask = kept(values.shape, p, values.dtype)
        ctx.save_for_backward(mask)
        ctx.factor = 1 / (1 - p)
        return _masked(values, mask, ctx.factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return _masked(gradients[0], mask, ctx.factor), None


def _masked(values: Tensor, mask: Tensor, factor: float) -> Tensor:
    # one pass, rounded once
    return torch.addcmul(values.new_zeros(()), values, mask, value=factor)


def dropped(values: Tensor, p: float) -> Tensor:
    """Return values [*] of which each is 0 with the chance p, and the others 1 / (1 - p) times."""
    if p in (0.0, 1.0):
        return values if p == 0.0 else values * 0.0
    found: Tensor = _Dropped.apply(values, p)  # type: ignore[no-untyped-call]
    return found


class _Attended(torch.autograd.Function):
    """Softmax of scaled products, dropout, and the weighted sum, each in one pass.

    Vaswani et al. 2017, equation 1. Products are of the inputs' type, sums inside them and inside
    the softmax in float32.
    """

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        query, key, value, bias, scale, p = given
        scores = torch.matmul(query, key.transpose(2, 3))
        scores = scores.mul_(scale) if bias is None else torch.add(bias, scores, alpha=scale)
        weights = scores.softmax(-1)
        ctx.scale, ctx.factor = scale, 1 / (1 - p)
        mask = kept(weights.shape, p, weights.dtype) if p else None
        ctx.save_for_backward(query, key, value, weights, mask)
        left = weights if mask is None else weights * mask
        return torch.matmul(left, value).mul_(ctx.factor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, weights, mask = ctx.saved_tensors
        gradient = gradients[0] * ctx.factor
        left = weights if mask is None else weights * mask
        of_value = torch.matmul(left.transpose(2, 3), gradient)
        of_left = torch.matmul(gradient, value.transpose(2, 3))
        of_weights = of_left if mask is None else of_left.mul_(mask)
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)  # noqa: SLF001
        of_query = torch.matmul(of_scores, key).mul_(ctx.scale)
        of_key = torch.matmul(of_scores.transpose(2, 3), query).mul_(ctx.scale)
        return of_query, of_key, of_value, None, None, None


class Dropout(nn.Dropout):
    """`nn.Dropout` with such masks; elsewhere than on a CPU it is the library's own."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Return values of any shape, some of them dropped in training."""
        if self.training and input.device.type == "cpu":
            return dropped(input, self.p)
        return super().forward(input)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return attention's outputs [B, T, H, D] of queries, keys, values [B, H, T, D].

    The mask is transformers' for sdpa: True, or 0, where there is something to look at. Where no
    gradient is wanted, elsewhere than on a CPU, and for whatever else sdpa can, sdpa computes it.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if not _ours(module, query, key, attention_mask, dropout) or _UNKNOWN & more.keys():
        same: Any = (module, query, key, value, attention_mask, dropout, scaling)
        found, _ = sdpa_attention_forward(*same, **more)
        return found, None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # autocast would cast for sdpa
    on = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if on else query.dtype
    bias = attention_mask
    least = torch.finfo(dtype).min
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=dtype).masked_fill_(~bias, least)
    elif bias is not None:
        bias = bias.clamp(min=least).to(dtype)
    given = (query.to(dtype), key.to(dtype), value.to(dtype), bias, scale, dropout)
    with torch.autocast("cpu", enabled=False):
        found = _Attended.apply(*given)  # type: ignore[no-untyped-call]
    return found.transpose(1, 2).contiguous(), None


def _ours(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, dropout: float
) -> bool:
    """Return whether this module's attention computes a case, and as sdpa would."""
    if query.device.type != "cpu" or not (torch.is_grad_enabled() and query.requires_grad):
        return False
    if dropout >= 1 or key.shape[1] != query.shape[1]:
        return False
    if mask is None:
        return not getattr(module, "is_causal", True)
    # to a place that sees nothing sdpa gives nothing, and softmax gives the mean of all
    return not mask.requires_grad and (mask.dtype != torch.bool or bool(mask.any(-1).all()))


def quicken(net: Any) -> None:
    """Give a network of transformers the dropout of this module, and its attention where sdpa's."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    for module in net.modules():
        if type(module) is nn.Dropout:
            module.__class__ = Dropout
    if net.config._attn_implementation == "sdpa":  # noqa: SLF001 - it has no public name
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        net.set_attn_implementation(NAME)


def restore(net: Any) -> None:
    """Give a network back what `quicken` took."""
    for module in net.modules():
        if isinstance(module, Dropout):
            module.__class__ = nn.Dropout  # type: ignore[assignment]
    if net.config._attn_implementation == NAME:  # noqa: SLF001
        net.set_attn_implementation("sdpa")
