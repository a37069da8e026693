"""A transformer language model, trained from nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, lt

from framework.protocols import Info, Labelled, option
from plugins import _cache
from plugins._language import LiveTokenizer, Tokenizer
from plugins.models._transformer import CachedReader, Norm, Positions, Shape, Transformer
from plugins.models._windows import TextWindows


@attrs.frozen
class TransformerLm:
    """Predicts the next token: a pre-norm decoder with causal attention and tied embeddings.

    After GPT-2 (Radford et al., 2019), with the norms and positions that came later to choose
    from. Its vocabulary is made from the training split, and is saved with the model.
    """

    tokenizer: Tokenizer = option("character", help="makes tokens of texts", kind="tokenizer")
    context: int = option(64, help="tokens that it can look back on", validator=ge(1))
    layers: int = option(4, help="blocks", validator=ge(1))
    heads: int = option(4, help="of attention; they divide d_model", validator=ge(1))
    d_model: int = option(128, help="width; the inner one is 4 times it", validator=gt(1))
    dropout: float = option(
        0.0, help="of embeddings and of what blocks add to them", validator=[ge(0.0), lt(1.0)]
    )
    norm: Norm = option("rms", help="RMSNorm, or LayerNorm with biases")
    positions: Positions = option("rotary", help="how a token knows where it stands")
    free = ("cache",)
    cache: Path | bool = option(
        True,
        help="folder for encoded splits, which are read from the disk; true: the user's cache"
        " folder; false: none, they are in memory",
    )

    def __attrs_post_init__(self) -> None:
        """Refuse widths that can't be divided."""
        if self.d_model % self.heads:
            raise ValueError(
                f"'d_model' is {self.d_model}, which {self.heads} heads don't divide;"
                f" {self.d_model // self.heads * self.heads or self.heads} would do"
            )
        if self.positions == "rotary" and self.d_model // self.heads % 2:
            raise ValueError("rotary positions need an even number of d_model / heads")

    def build(self, info: Info, assets: Path | None = None) -> LiveTransformerLm:
        """Build it, and its vocabulary from the training split, or from what was saved."""
        if assets is None:
            tokenizer = self.tokenizer.build(_texts(info["train"]))
        else:
            tokenizer = self.tokenizer.load(assets)
        shape = Shape(
            vocabulary=len(tokenizer.characters),
            context=self.context,
            layers=self.layers,
            heads=self.heads,
            width=self.d_model,
            dropout=self.dropout,
            norm=self.norm,
            positions=self.positions,
        )
        windows = TextWindows(tokenizer, self.context, _cache.folder(self.cache, "tokens"))
        return LiveTransformerLm(Transformer(shape), windows)


def _texts(records: Any) -> Iterable[str]:
    """Return the texts of records; of windows that overlap, the whole once."""
    return [records.whole] if hasattr(records, "whole") else (r["text"] for r in records)


@attrs.frozen
class LiveTransformerLm:
    """The model with the processor of its windows."""

    module: Transformer
    processor: TextWindows

    @property
    def tokenizer(self) -> LiveTokenizer:
        """Makes tokens of texts, and texts of tokens."""
        return self.processor.tokenizer

    @property
    def context(self) -> int:
        """Tokens that it can read."""
        return self.processor.context

    def reader(self) -> CachedReader:
        """Begin to read texts, for generation."""
        return CachedReader(self.module)

    def labelled(self) -> list[Labelled]:
        """Every parameter: embeddings at depth 0, a block each, the last norm the head."""
        items = []
        for name, parameter in self.module.named_parameters():
            first, _, rest = name.partition(".")
            part: Literal["base", "head"] = "head" if first == "norm" else "base"
            depth = int(rest.partition(".")[0]) + 1 if first == "blocks" else 0
            top = self.module.shape.layers + 1
            items.append(Labelled(name, parameter, part, top if part == "head" else depth))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write the vocabulary, as JSON."""
        self.tokenizer.save(folder)
