"""A decoder-only transformer, and reading with it token by token.

Legend of shapes: B texts, T tokens, S tokens seen so far and now, D width of the model, H heads,
K width of a head, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import attrs
import torch
from torch import Tensor, nn
from torch.nn import functional

from plugins._language import PADDING
from plugins.models._cpu import Dropout

Positions = Literal["learned", "sinusoidal", "rotary"]
Norm = Literal["rms", "layer"]
_BASE = 10_000.0
"""Of the wavelengths of sinusoidal and rotary positions."""
_STD = 0.02


@attrs.frozen
class Shape:
    """What a network is built by."""

    vocabulary: int
    context: int
    layers: int
    heads: int
    width: int
    dropout: float
    norm: Norm
    positions: Positions


def _angles_TK(length: int, width: int) -> Tensor:
    """Return position times frequency, half as wide (Vaswani et al., 2017, section 3.5)."""
    frequencies = _BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    return torch.outer(torch.arange(length, dtype=torch.float64), frequencies)


def _turned(x_BHTK: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate halves of each head by its position's angles (Su et al., RoFormer, equation 34)."""
    cos, sin = turns
    left, right = x_BHTK.chunk(2, -1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], -1).to(x_BHTK.dtype)


class Memory:
    """Keys and values of what one layer has read, [B, H, S, K]."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.kept: tuple[Tensor, Tensor] | None = None

    def add(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keep more; all that is kept."""
        if self.kept is not None:
            key, value = torch.cat([self.kept[0], key], 2), torch.cat([self.kept[1], value], 2)
        self.kept = key, value
        return self.kept


@attrs.frozen
class View:
    """Where tokens stand, and what each may look at."""

    turns: tuple[Tensor, Tensor] | None = None
    """Cosines and sines for rotary positions."""
    mask: Tensor | None = None
    """[B, 1, T, S], True where it may look; None: at itself and all before it."""
    memories: Sequence[Memory] | None = None


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, shape: Shape) -> None:
        """Make the projections."""
        super().__init__()
        self.heads = shape.heads
        self.inner = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.outer = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x_BTD: Tensor, view: View, layer: int) -> Tensor:
        """Return [B, T, D]."""
        split = self.inner(x_BTD).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        if view.turns is not None:
            query, key = _turned(query, view.turns), _turned(key, view.turns)
        if view.memories is not None:
            key, value = view.memories[layer].add(key, value)
        found = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=view.mask, is_causal=view.mask is None
        )
        mixed: Tensor = self.outer(found.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added after."""

    def __init__(self, shape: Shape) -> None:
        """Make both."""
        super().__init__()
        kind = nn.RMSNorm if shape.norm == "rms" else nn.LayerNorm
        self.norms = nn.ModuleList([kind(shape.width) for _ in range(2)])
        self.attention = Attention(shape)
        self.wide = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.outer = nn.Linear(4 * shape.width, shape.width, bias=False)
        self.drop = Dropout(shape.dropout)

    def forward(self, x_BTD: Tensor, view: View, layer: int) -> Tensor:
        """Return [B, T, D]."""
        x_BTD = x_BTD + self.drop(self.attention(self.norms[0](x_BTD), view, layer))
        wide = functional.gelu(self.wide(self.norms[1](x_BTD)))
        found: Tensor = x_BTD + self.drop(self.outer(wide))
        return found


class Transformer(nn.Module):
    """Embeddings, blocks, a last norm, and the embeddings again as the output's weights."""

    def __init__(self, shape: Shape) -> None:
        """Make it with weights from N(0, 0.02), smaller where they add to the residual stream."""
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        if shape.positions == "learned":
            self.places = nn.Embedding(shape.context, shape.width)
        self.drop = Dropout(shape.dropout)
        self.blocks = nn.ModuleList([Block(shape) for _ in range(shape.layers)])
        self.norm = (nn.RMSNorm if shape.norm == "rms" else nn.LayerNorm)(shape.width)
        wide = shape.width // shape.heads if shape.positions == "rotary" else shape.width
        angles = _angles_TK(shape.context, wide)
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        self._start()

    def _start(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                # two additions a layer: their sum shall not grow with depth (GPT-2, section 2.3)
                scale = math.sqrt(2 * self.shape.layers) if "outer" in name else 1.0
                nn.init.normal_(parameter, std=_STD / scale)

    def forward(self, input_ids: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return `logits` [B, T, V]: of each token's successor, from it and those before it."""
        places_T = torch.arange(input_ids.shape[1], device=input_ids.device)
        return {"logits": self.logits(self.hidden(input_ids, places_T, View()))}

    def logits(self, hidden: Tensor) -> Tensor:
        """Return logits [..., V] of hidden states [..., D]; the weights are the embeddings'."""
        return functional.linear(self.norm(hidden), self.embedding.weight)

    def hidden(self, ids_BT: Tensor, places: Tensor, view: View) -> Tensor:
        """Return the last block's [B, T, D] of tokens at places [T] or [B, T]."""
        x_BTD: Tensor = self.embedding(ids_BT)
        cos, sin = self.cos[places], self.sin[places]
        if self.shape.positions == "learned":
            x_BTD = x_BTD + self.places(places)
        elif self.shape.positions == "sinusoidal":
            waves = torch.stack([sin, cos], -1).flatten(-2)[..., : self.shape.width]
            # embeddings as large as the waves
            x_BTD = x_BTD * math.sqrt(self.shape.width) + waves
        else:
            turns = (cos, sin) if places.ndim == 1 else (cos.unsqueeze(1), sin.unsqueeze(1))
            view = attrs.evolve(view, turns=turns)
        x_BTD = self.drop(x_BTD)
        for layer, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, view, layer)
        return x_BTD


class CachedReader:
    """Reads texts on, keeping keys and values; shorter ones are padded on the left."""

    def __init__(self, net: Transformer) -> None:
        """Start with nothing read."""
        self.net = net
        self.memories = [Memory() for _ in net.blocks]
        self.gaps_B = torch.empty(0, dtype=torch.int64)
        """Padding before each text."""
        self.seen = 0

    @torch.no_grad()
    def __call__(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read the texts, at first, or a token more of each; logits [B, V] of what comes next.

        What is read past the context has the last position: nobody should look at it.
        """
        device = self.net.embedding.weight.device
        longest = max(map(len, tokens))
        rows = [[PADDING] * (longest - len(row)) + list(row) for row in tokens]
        if not self.seen:
            self.gaps_B = torch.tensor([longest - len(row) for row in tokens], device=device)
        ids_BT = torch.tensor(rows, device=device)
        at_T = torch.arange(self.seen, self.seen + longest, device=device)
        self.seen += longest
        places_BT = (at_T - self.gaps_B[:, None]).clamp(0, self.net.shape.context - 1)
        keys_S = torch.arange(self.seen, device=device)
        # padding looks at itself: attention to nothing would not be a number
        seen_BTS = (keys_S <= at_T[:, None]) & (keys_S >= self.gaps_B[:, None, None])
        mask = (seen_BTS | (keys_S == at_T[:, None])).unsqueeze(1)
        view = View(mask=mask, memories=self.memories)
        hidden_BTD = self.net.hidden(ids_BT, places_BT, view)
        logits_BV: Tensor = self.net.logits(hidden_BTD[:, -1]).float()
        return logits_BV
