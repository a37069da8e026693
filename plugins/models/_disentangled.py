"""The encoder of DeBERTa-v2 and v3 on a flat sequence of several texts.

Its attention adds terms of the distance between two tokens to their scores (He et al. 2021,
equation 4), so that neither a mask nor a kernel that others make will do. Projections are those of
all tokens at once; scores, which are of pairs of tokens, are computed text by text.

Legend of shapes: N tokens of all texts, T of one, H heads, D numbers of a token, P distances.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def encoded(encoder: Any, states: Tensor, lengths: Sequence[int]) -> Tensor:
    """Return the last layer's states [1, N, D] of texts of some lengths behind one another."""
    # distances within the longest text hold those of every other
    distances = encoder.get_rel_pos(states[:, : max(lengths)])
    embeddings = encoder.get_rel_embedding()
    for layer in encoder.layer:
        run = functools.partial(_layer, layer, distances, lengths)
        if layer.gradient_checkpointing and layer.training:
            run = functools.partial(checkpoint, run, use_reentrant=False)
        states = run(states, embeddings)
    return states


def _layer(
    layer: Any, distances: Tensor | None, lengths: Sequence[int], states: Tensor, embeddings: Any
) -> Tensor:
    """Return a layer's states; it is called itself, for the hooks that a strategy has on it."""
    layer.forward = functools.partial(_computed, layer, distances, lengths)
    try:
        found: Tensor = nn.Module.__call__(layer, states, embeddings)
    finally:
        del layer.forward
    return found


def _computed(
    layer: Any, distances: Tensor | None, lengths: Sequence[int], states: Tensor, embeddings: Any
) -> Tensor:
    context = _attended(layer.attention.self, states, distances, embeddings, lengths)
    attended = layer.attention.output(context, states)
    found: Tensor = layer.output(layer.intermediate(attended), attended)
    return found


def _attended(
    own: Any, states: Tensor, distances: Tensor | None, embeddings: Any, lengths: Sequence[int]
) -> Tensor:
    """Return attention's outputs [1, N, D]."""
    sizes, span = list(lengths), getattr(own, "pos_ebd_size", 0)
    projections = (own.query_proj, own.key_proj, own.value_proj)
    query, key, value = (_heads(own, projection(states[0])) for projection in projections)
    terms = [] if distances is None else _terms(own, query, key, embeddings)
    count = 1 + sum(kind in own.pos_att_type for kind in ("c2p", "p2c"))
    root = torch.tensor(float(query.shape[-1] * count)).sqrt().item()  # in float32, as theirs
    parts = zip(*(torch.split(tensor, sizes, dim=1) for tensor in (query, key, value)), strict=True)
    pieces = [torch.split(term, sizes, dim=1) for _, term in terms]
    found = []
    for at, (query_HTD, key_HTD, value_HTD) in enumerate(parts):
        scores_HTT = query_HTD @ key_HTD.mT
        for (kind, _), texts in zip(terms, pieces, strict=True):
            assert distances is not None
            apart = distances[:, : sizes[at], : sizes[at]]
            if kind == "c2p":
                scores_HTT = scores_HTT + _at(texts[at], apart + span)
            else:
                scores_HTT = scores_HTT + _at(texts[at], span - apart).mT
        weights_HTT = own.dropout((scores_HTT / root).softmax(-1))
        found.append(weights_HTT.to(value.dtype) @ value_HTD)
    return torch.cat(found, dim=1).transpose(0, 1).flatten(1).unsqueeze(0)


def _terms(own: Any, query: Tensor, key: Tensor, embeddings: Tensor) -> list[tuple[str, Tensor]]:
    """Return each term's scores [H, N, P] of all tokens with all distances.

    `c2p` is of the token that looks, `p2c` of the one that is looked at.
    """
    known = own.pos_dropout(embeddings)[: 2 * own.pos_ebd_size]
    found = []
    if "c2p" in own.pos_att_type:
        projection = own.key_proj if own.share_att_key else own.pos_key_proj
        found.append(("c2p", query @ _heads(own, projection(known)).mT))
    if "p2c" in own.pos_att_type:
        projection = own.query_proj if own.share_att_key else own.pos_query_proj
        found.append(("p2c", key @ _heads(own, projection(known)).mT))
    return found


def _heads(own: Any, values: Tensor) -> Tensor:
    return torch.unflatten(values, -1, (own.num_attention_heads, -1)).transpose(0, 1)


def _at(scores_HTP: Tensor, places: Tensor) -> Tensor:
    """Return [H, T, T] of scores: those at the places [1, T, T], as far as there are places."""
    inside = places.clamp(0, scores_HTP.shape[-1] - 1)
    return scores_HTP.gather(-1, inside.expand(len(scores_HTP), -1, -1))
