"""A Hugging Face encoder with a classification head."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn

from framework.errors import UserError, listing
from framework.protocols import Info, Labelled, option
from plugins import _cache
from plugins._fitting import needed
from plugins.models import _cpu, _networks, _packing, _pretrained
from plugins.models._compiled import Compiled
from plugins.models._text_pairs import TextPairs

_log = logging.getLogger("framework")
_LABELS = ("num_labels", "id2label", "label2id")


@attrs.frozen
class HfClassifier:
    """Any encoder of transformers' `AutoModelForSequenceClassification`, for a text or a pair.

    From `pretrained` weights, or, with `config` alone, from nothing: a random model of that
    shape with a WordPiece vocabulary trained on the training split.
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
        256, help="tokens of a record; longer ones are truncated", validator=attrs.validators.ge(8)
    )
    truncation: Literal["longest_first", "second"] = option(
        "longest_first", help="which text of a pair is cut"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = option(
        "sdpa", help="attention kernel; what isn't there falls back with a notice"
    )
    activation_checkpointing: bool = option(
        False, help="recompute activations in the backward pass: slower, less memory"
    )
    freeze_encoder: bool = option(False, help="train the head alone")
    packing: bool = option(
        False, help="compute no padding: texts of a batch stand behind one another in one row"
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
        if taken := [key for key in _LABELS if key in self.config]:
            raise ValueError(f"'config' can't set {listing(taken)}: the labels are the dataset's")

    def build(self, info: Info, assets: Path | None = None) -> LiveClassifier:
        """Build model and tokenizer; the head has one output per label of the dataset.

        Raises `UserError` for weights or a configuration that can't be had.
        """
        _networks.quiet()
        labels = needed(info, "labels", "model 'hf_classifier'")
        indices = {label: index for index, label in enumerate(labels)}
        names = dict(zip(_LABELS, (len(labels), dict(enumerate(labels)), indices), strict=True))
        source, cache = None, _cache.folder(self.cache, "tokens")
        if assets is not None:
            _networks.check_labels(assets, labels)
            config, tokenizer = _networks.stored(assets, names)
        elif self.pretrained:
            source = _pretrained.locate(self.pretrained, self.revision, self.sha256)
            config, tokenizer = _networks.stored(source, self.config | names)
        else:
            config, tokenizer = _networks.from_nothing(self.config | names, info["train"], cache)
        tokenizer.model_max_length = self.max_length  # for those who load what was exported
        if self.packing:
            _packing.check(config)
        net = _networks.network(config, source, self._attentions())
        _cpu.quicken(net)
        if self.packing:
            _packing.ready(net)
        _networks.check_used(self.config, net)
        _networks.check_length(net, self.max_length)
        if self.activation_checkpointing:
            _networks.recompute(net)
        if self.freeze_encoder:
            net.base_model.requires_grad_(requires_grad=False)
        pairs = TextPairs(
            tokenizer=tokenizer,
            max_length=self.max_length,
            truncation="only_second" if self.truncation == "second" else "longest_first",
            token_types=_networks.token_types(config),
            labels=tuple(labels),
            packing=self.packing,
            cache=cache,
        )
        return LiveClassifier(Classifier(net), pairs)

    def _attentions(self) -> Sequence[str]:
        if self.attention == "eager":
            return ["eager"]
        if self.attention == "flash_attention_2" and not torch.cuda.is_available():
            _log.warning("attention flash_attention_2 needs CUDA; taking sdpa")
            return ["sdpa", "eager"]
        return list(dict.fromkeys([self.attention, "sdpa", "eager"]))


class Classifier(nn.Module):
    """Gives a transformers classifier the core's interface, and its own names in a checkpoint."""

    def __init__(self, net: Any) -> None:
        """Keep the network."""
        super().__init__()
        self.net = net
        self.compiled: Callable[[Mapping[str, torch.Tensor]], torch.Tensor] | None = None

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **batch: Any
    ) -> dict[str, torch.Tensor]:
        """Return `logits` [B, C] of token ids and mask [B, T], and token types if used.

        Of a packed batch, ids [1, N], they are the same.
        """
        if attention_mask is None:
            return {"logits": _packing.logits(self.net, input_ids, **batch)}
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        given |= {k: batch[k] for k in ("token_type_ids",) if k in batch}
        return {"logits": self.compiled(given) if self.compiled else self.net(**given).logits}

    def state_dict(self, *args: Any, **settings: Any) -> Any:
        """Return the network's own, so that plain transformers can read the file."""
        return self.net.state_dict(*args, **settings)

    def load_state_dict(
        self,
        state_dict: Mapping[str, Any],
        strict: bool = True,  # noqa: FBT001, FBT002 - torch's signature
        assign: bool = False,  # noqa: FBT001, FBT002
    ) -> Any:
        """Take up the network's own."""
        return self.net.load_state_dict(state_dict, strict=strict, assign=assign)


@attrs.frozen
class LiveClassifier:
    """The model with the processor of its texts."""

    module: Classifier
    processor: TextPairs

    def labelled(self) -> list[Labelled]:
        """Every trainable parameter: embeddings at depth 0, a layer each, the head deepest."""
        base = {id(parameter) for parameter in self.module.net.base_model.parameters()}
        depths = {name: _networks.depth(name) for name, _ in self.module.named_parameters()}
        top = max(depth or 0 for depth in depths.values()) + 1
        items = []
        for name, parameter in self.module.named_parameters():
            depth = depths[name]
            part: Literal["base", "head"] = "base" if id(parameter) in base else "head"
            if parameter.requires_grad:
                items.append(Labelled(name, parameter, part, top if depth is None else depth))
        return items

    def compile(self, mode: str) -> None:
        """Have batches of a few lengths computed compiled; `UserError` with packing."""
        if self.processor.packing:
            raise UserError(
                "trainer.compile: packed batches are of ever new lengths, each to be compiled;"
                " set it or model.packing to false"
            )
        padding = self.processor.tokenizer.pad_token_id
        self.module.compiled = Compiled(self.module.net, mode, self.processor.max_length, padding)

    def save_assets(self, folder: Path) -> None:
        """Write configuration and tokenizer, as transformers does."""
        self.module.net.config.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
