"""Batches without padding: an encoder runs on one flat sequence of the tokens that there are.

Each sequence of it has positions of its own and looks at itself alone. Positions by themselves
don't see to that: an encoder would attend over the whole row, and nobody would notice. So attention
is told where sequences end: on a CPU it computes one after the other, FlashAttention's varlen takes
their ends, and any other kind gets a mask of blocks, at a cost of the square of all tokens. Heads
read the first token of a row, so every sequence's first is gathered for them.

Legend of shapes: B sequences of a batch, N tokens of all of them together, H heads, D numbers of a
token, of a head in attention.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from framework.errors import UserError, listing
from framework.protocols import Batch, Features
from plugins.models import _cpu, _disentangled

NAME = "framework_packed"
"""What transformers knows the attention by."""


def flat(features: Sequence[Features]) -> Batch:
    """Return a batch of sequences behind one another, in their order.

    It has `input_ids`, `token_type_ids` (where there are any) and `position_ids` [1, N]; `starts`
    [B + 1], where each begins and the last ends, in 32 bits as kernels want it; and `lengths`,
    which stay on the host.
    """
    lengths = [int(item["length"]) for item in features]
    if 0 in lengths:
        record = features[lengths.index(0)]["id"]
        raise UserError(f"record '{record}' has no token to pack; leave it out, or packing = false")
    batch: Batch = {"lengths": lengths}
    for key in ("input_ids", "token_type_ids"):
        if key in features[0]:
            row = np.concatenate([item[key] for item in features])
            batch[key] = torch.from_numpy(row.astype(np.int64)).unsqueeze(0)
    batch["position_ids"] = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    ends = itertools.accumulate(lengths, initial=0)
    batch["starts"] = torch.tensor(list(ends), dtype=torch.int32)
    return batch


def check(config: Any) -> None:
    """Refuse a configuration whose network would not compute what it does with padding."""
    reason = ""
    if config.model_type not in _HEADS:
        reason = f"only {listing(sorted(_HEADS))} can be packed"
    elif getattr(config, "is_decoder", False):
        reason = "with is_decoder it can't be packed"
    elif getattr(config, "conv_kernel_size", None):
        reason = "its convolution (conv_kernel_size) would reach over the ends of texts"
    if reason:
        kind = config.model_type
        raise UserError(f"model.packing: this is a '{kind}', and {reason}; set packing = false")


def ready(net: Any) -> None:
    """Give a network the attention of this module where sdpa's would be taken."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if net.config._attn_implementation == _cpu.NAME:  # noqa: SLF001 - it has no public name
        AttentionInterface.register(NAME, attention)
        AttentionMaskInterface.register(NAME, sdpa_mask)
        net.set_attn_implementation(NAME)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    lengths: Sequence[int] | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Return attention's outputs [1, N, H, D] of queries, keys, values [1, H, N, D].

    Each sequence of the `lengths` is computed by itself; without them it is a padded batch's.
    """
    if lengths is None:
        given = (query, key, value, attention_mask, dropout, scaling)
        return _cpu.attention(module, *given, **more)
    # split and not slices, whose backward pass would fill all N with zeros once for each of them
    pieces = (torch.split(tensor, list(lengths), dim=2) for tensor in (query, key, value))
    found = [
        _cpu.attention(module, q, k, v, None, dropout, scaling, **more)[0]
        for q, k, v in zip(*pieces, strict=True)
    ]
    return torch.cat(found, dim=1), None


def logits(
    net: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    starts: Tensor,
    lengths: Sequence[int],
    token_type_ids: Tensor | None = None,
    **_: Any,
) -> Tensor:
    """Return the logits [B, C] of a batch that `flat` made; the rest of the batch is ignored."""
    base = net.base_model
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    padding = getattr(base.embeddings, "padding_idx", None)
    places = position_ids if padding is None else behind(input_ids, position_ids, padding)
    states = base.embeddings(input_ids=input_ids, position_ids=places, **types)
    if hasattr(base, "embeddings_project"):
        states = base.embeddings_project(states)
    if net.config.model_type == "deberta-v2":
        states = _disentangled.encoded(base.encoder, states, lengths)
    else:
        encoder = base.encoder if hasattr(base, "encoder") else base.transformer
        where = _where(net.config._attn_implementation, states, position_ids, starts, lengths)  # noqa: SLF001
        states = encoder(states, **where).last_hidden_state
    firsts = states[0].index_select(0, starts[:-1])
    found: Tensor = _HEADS[net.config.model_type](net, firsts.unsqueeze(1))
    return found


def behind(input_ids: Tensor, position_ids: Tensor, padding: int) -> Tensor:
    """Return RoBERTa's positions [1, N]: they begin behind the id of padding.

    A token of a text that has that id itself has it for a position too, and isn't counted.
    """
    real = input_ids.ne(padding).long()
    counts = real.cumsum(-1)
    starts = torch.arange(input_ids.shape[-1], device=input_ids.device) - position_ids
    before = (counts - real).gather(-1, starts)
    return (counts - before) * real + padding


def _where(
    kind: str, states: Tensor, position_ids: Tensor, starts: Tensor, lengths: Sequence[int]
) -> dict[str, Any]:
    """Return what tells an encoder's attention of a kind where sequences are."""
    if kind == NAME and states.device.type == "cpu":
        return {"attention_mask": None, "lengths": lengths}
    if "flash" in kind:
        ends = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts}
        longest = {"max_length_q": max(lengths), "max_length_k": max(lengths)}
        return {"attention_mask": None, **ends, **longest}
    rows = position_ids.eq(0).cumsum(-1)
    seen = (rows.unsqueeze(-1) == rows.unsqueeze(-2)).unsqueeze(1)
    if kind != "eager":
        return {"attention_mask": seen}
    bias = torch.zeros_like(seen, dtype=states.dtype)  # eager attention adds its masks
    return {"attention_mask": bias.masked_fill_(~seen, torch.finfo(states.dtype).min)}


def _bert(net: Any, firsts: Tensor) -> Any:
    return net.classifier(net.dropout(net.base_model.pooler(firsts)))


def _whole(net: Any, firsts: Tensor) -> Any:
    return net.classifier(firsts)


def _distilbert(net: Any, firsts: Tensor) -> Any:
    return net.classifier(net.dropout(net.pre_classifier(firsts[:, 0]).relu()))


def _deberta(net: Any, firsts: Tensor) -> Any:
    return net.classifier(net.dropout(net.pooler(firsts)))


_HEADS: Mapping[str, Callable[[Any, Tensor], Any]] = {
    "bert": _bert,
    "camembert": _whole,
    "deberta-v2": _deberta,
    "distilbert": _distilbert,
    "electra": _whole,
    "roberta": _whole,
    "xlm-roberta": _whole,
}
"""By architecture, its head: from the states [B, 1, D] of first tokens to logits [B, C]."""
