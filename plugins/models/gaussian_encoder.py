"""An encoder that makes a Gaussian of each text.

Legend of shapes: B records, S texts of each, M documents, T tokens, H states, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs.validators import ge
from torch import Tensor, nn

from framework.errors import UserError
from framework.protocols import Info, Labelled, option
from plugins import _cache
from plugins._gaussian import SIMILARITIES, Similarity
from plugins.models import _cpu, _networks, _pretrained
from plugins.models._text_pairs import TextPairs
from plugins.models._triple_texts import TripleTexts

Pooling = Literal["mean", "first"]
_SPREAD = 0.01
"""Standard deviation with which log-variances begin: at 0 exactly no gradient would move them."""
_WIDEST = 10.0
"""Bound of log-variances."""


@attrs.frozen
class GaussianEncoder:
    """Any encoder of transformers' `AutoModel`, pooled and projected to a mean and a log-variance.

    Means have the length of the square root of `output_dim`, so that a dimension's standard
    deviation over different texts is about 1; they begin as what was pooled where `output_dim` is
    the encoder's size, so that the untrained model ranks as the plain encoder by its cosine.
    """

    pretrained: str | Path = option(
        "", help="a hub id, a folder (./… or /…), or package:NAME/FOLDER of an installed package"
    )
    revision: str = option("", help="commit or tag on the hub; the newest when empty")
    sha256: str = option("", help="hash that model.safetensors must have; any when empty")
    config: dict[str, Any] = option(
        {}, help="values of the model's configuration, over those of the pretrained one"
    )
    max_length: int = option(
        256, help="tokens of a text; longer ones are truncated", validator=ge(8)
    )
    pooling: Pooling = option("mean", help="of the tokens' states: their mean, or the first")
    output_dim: int = option(
        0, help="dimensions of the Gaussians; 0: the encoder's", validator=ge(0)
    )
    similarity: Similarity = option(
        "wasserstein", help="what two texts are compared by: in training, evaluation and search"
    )
    freeze_encoder: bool = option(
        False, help="train the projection alone; optimizer.head_lr gives it a rate of its own"
    )
    free = ("cache",)
    cache: Path | bool = option(
        True,
        help="folder for tokens, so that a text is tokenised once; true: the user's cache folder;"
        " false: none",
    )

    def __attrs_post_init__(self) -> None:
        """Refuse options that name no model."""
        if not (self.pretrained or self.config):
            raise ValueError('it needs pretrained = "…", or config = {…} to start from nothing')

    def build(self, info: Info, assets: Path | None = None) -> LiveGaussianEncoder:
        """Build encoder, projection and tokenizer; `UserError` for weights that can't be had."""
        _networks.quiet()
        source, cache = None, _cache.folder(self.cache, "tokens")
        if assets is not None:
            config, tokenizer = _networks.stored(assets, {})
        elif self.pretrained:
            source = _pretrained.locate(self.pretrained, self.revision, self.sha256)
            config, tokenizer = _networks.stored(source, self.config)
        else:
            config, tokenizer = _networks.from_nothing(self.config, _Read(info["train"]))
        net = _networks.network(config, source, ["sdpa", "eager"], "AutoModel")
        if net.config.is_encoder_decoder:
            raise UserError(
                f"model: {net.config.model_type} is an encoder with a decoder; take an encoder"
            )
        if hasattr(net, "pooler"):
            net.pooler = None  # nothing reads what it gives
        _cpu.quicken(net)
        _networks.check_used(self.config, net)
        _networks.check_length(net, self.max_length)
        if self.freeze_encoder:
            net.requires_grad_(requires_grad=False)
        module = Encoder(net, self.pooling, self.output_dim or net.config.hidden_size)
        module.similarity.fill_(SIMILARITIES.index(self.similarity))
        pairs = TextPairs(tokenizer, self.max_length, "longest_first", False, (), cache=cache)
        return LiveGaussianEncoder(module, TripleTexts(pairs))


@attrs.frozen
class _Read:
    """The texts of triples, as a vocabulary is made of them."""

    records: Any

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        for record in self.records:
            texts = [record["text"], *[record[key] for key in ("positive",) if key in record]]
            yield from ({"text": text} for text in texts)


class Encoder(nn.Module):
    """Encoder, pooling and projection."""

    def __init__(self, net: Any, pooling: Pooling, size: int) -> None:
        """Keep the network, and make the projection."""
        super().__init__()
        self.net, self.pooling = net, pooling
        hidden = net.config.hidden_size
        self.mean = nn.Linear(hidden, size, bias=False)
        self.log_variance = nn.Linear(hidden, size)
        self.register_buffer("similarity", torch.tensor(0), persistent=False)
        self.similarity: Tensor
        if size == hidden:
            nn.init.eye_(self.mean.weight)
        else:
            nn.init.orthogonal_(self.mean.weight)
        nn.init.normal_(self.log_variance.weight, std=_SPREAD / math.sqrt(hidden))
        nn.init.zeros_(self.log_variance.bias)

    def train(self, mode: bool = True) -> Encoder:  # noqa: FBT001, FBT002 - as torch has it
        """Set the mode; a frozen encoder stays as in an evaluation, without dropout."""
        super().train(mode)
        if not any(x.requires_grad for x in self.net.parameters()):
            self.net.eval()
        return self

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        document_ids: Tensor | None = None,
        document_mask: Tensor | None = None,
        slots: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return `mean` and `log_variance` [B, S, D], and the number of the `similarity`.

        S is 1, and 3 with triples: query, positive, negative; what a record lacks is 0.
        """
        made = [x.unsqueeze(1) for x in self.embed(input_ids, attention_mask)]
        if document_ids is not None and document_mask is not None and slots is not None:
            size = 2 * len(input_ids)
            for at, found_MD in enumerate(self.embed(document_ids, document_mask)):
                placed_ND = found_MD.new_zeros(size, found_MD.shape[-1])
                placed_ND = placed_ND.index_copy(0, slots, found_MD)
                placed_B2D = placed_ND.view(len(input_ids), 2, -1)
                made[at] = torch.cat([made[at], placed_B2D], 1)
        return {"mean": made[0], "log_variance": made[1], "similarity": self.similarity}

    def embed(self, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance [B, D] of texts, in float32 or better."""
        states_BTH = self.net(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        # what is compared keeps its digits whatever the precision of the layers
        with torch.autocast(states_BTH.device.type, enabled=False):
            states_BTH = states_BTH.to(torch.promote_types(states_BTH.dtype, torch.float32))
            if self.pooling == "first":
                pooled_BH = states_BTH[:, 0]
            else:
                weights_BT = mask_BT.to(states_BTH.dtype)
                total_B1 = weights_BT.sum(1, keepdim=True).clamp(min=1)
                pooled_BH = torch.einsum("bt,bth->bh", weights_BT, states_BTH) / total_B1
            unit_BH = nn.functional.normalize(pooled_BH, dim=-1) * math.sqrt(pooled_BH.shape[-1])
            mean_BD = nn.functional.normalize(self.mean(unit_BH), dim=-1)
            log_BD = self.log_variance(unit_BH).clamp(-_WIDEST, _WIDEST)
            return mean_BD * math.sqrt(mean_BD.shape[-1]), log_BD


@attrs.frozen
class LiveGaussianEncoder:
    """The model with the processor of its texts."""

    module: Encoder
    processor: TripleTexts

    @property
    def embeds(self) -> str:
        """How it embeds, beside its weights: what it makes another way can't be compared."""
        kind = SIMILARITIES[int(self.module.similarity)]
        return f"{self.module.pooling} {self.processor.pairs.max_length} {kind}"

    def labelled(self) -> list[Labelled]:
        """Every trainable parameter: the encoder by its layers, the projection the head."""
        depths = {name: _networks.depth(name) for name, _ in self.module.named_parameters()}
        top = max(depth or 0 for depth in depths.values()) + 1
        items = []
        for name, parameter in self.module.named_parameters():
            base = name.startswith("net.")
            part: Literal["base", "head"] = "base" if base else "head"
            depth = depths[name] if base else None
            if parameter.requires_grad:
                items.append(Labelled(name, parameter, part, top if depth is None else depth))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write configuration and tokenizer, as transformers does."""
        self.module.net.config.save_pretrained(folder)
        self.processor.pairs.tokenizer.save_pretrained(folder)
