"""A Hugging Face encoder with a classification head."""

from __future__ import annotations

import copy
import inspect
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn

from framework.errors import UserError, listing, nearest
from framework.protocols import Info, Labelled, option
from plugins.models import _pretrained, _wordpiece
from plugins.models._text_pairs import TextPairs

_log = logging.getLogger("framework")
_LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")
_LABELS = ("num_labels", "id2label", "label2id")
_BEHIND_PADDING = (
    *("camembert", "data2vec-text", "esm", "ibert", "longformer", "mpnet", "roberta"),
    *("roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
)
"""Architectures whose positions start behind the padding id."""


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
        from transformers import AutoModelForSequenceClassification
        from transformers.utils import logging as chatter

        # transformers reports on stderr what is told here in one line where it matters
        chatter.set_verbosity_error()
        chatter.disable_progress_bar()
        labels = info["labels"]
        indices = {label: index for index, label in enumerate(labels)}
        names = dict(zip(_LABELS, (len(labels), dict(enumerate(labels)), indices), strict=True))
        source = None
        if assets is not None:
            stored, tokenizer = _stored(assets)
            config = _config(stored | names)
        elif self.pretrained:
            source = _pretrained.locate(self.pretrained, self.revision, self.sha256)
            stored, tokenizer = _stored(source)
            config = _config(stored | self.config | names)
        else:
            config, tokenizer = _from_nothing(self.config | names, info["train"])
        tokenizer.model_max_length = self.max_length  # for those who load what was exported
        self._check_length(config)
        net = self._net(AutoModelForSequenceClassification, config, source)
        _check_used(self.config, net)
        if self.activation_checkpointing:
            net.activation_checkpointing_enable()
        if self.freeze_encoder:
            net.base_model.requires_grad_(requires_grad=False)
        pairs = TextPairs(
            tokenizer=tokenizer,
            max_length=self.max_length,
            truncation="only_second" if self.truncation == "second" else "longest_first",
            token_types=_token_types(config),
            labels=tuple(labels),
        )
        return LiveClassifier(Classifier(net), pairs)

    def _check_length(self, config: Any) -> None:
        room = getattr(config, "max_position_embeddings", self.max_length)
        if config.model_type in _BEHIND_PADDING:
            room -= config.pad_token_id + 1
        if self.max_length > room:
            raise UserError(
                f"model.max_length is {self.max_length} and this model has {room} positions"
            )

    def _net(self, auto: Any, config: Any, source: Path | None) -> Any:
        """Return the network, with the best attention of those asked for that is there."""
        reason = ""
        for attention in self._attentions():
            fresh = copy.deepcopy(config)  # from_config writes into what it is given
            settings = {"dtype": torch.float32, "attn_implementation": attention}
            try:
                if source is None:
                    net = auto.from_config(fresh, **settings)
                else:
                    net = _loaded(auto, source, config=fresh, **settings)
            except (ValueError, ImportError) as error:
                reason = _reason(error)
                continue
            if reason:
                _log.warning("attention: %s; taking %s", reason, attention)
            net.config.architectures = [type(net).__name__]
            return net
        raise UserError(f"model '{self.pretrained or config.model_type}' can't be built: {reason}")

    def _attentions(self) -> Sequence[str]:
        if self.attention == "eager":
            return ["eager"]
        if self.attention == "flash_attention_2" and not torch.cuda.is_available():
            _log.warning("attention flash_attention_2 needs CUDA; taking sdpa")
            return ["sdpa", "eager"]
        return list(dict.fromkeys([self.attention, "sdpa", "eager"]))


def _stored(source: Path) -> tuple[dict[str, Any], Any]:
    """Return the configuration and the tokenizer that a folder holds."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        stored = AutoConfig.from_pretrained(source).to_dict()
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:
        raise UserError(
            f"{source}: its configuration or tokenizer can't be read: {_reason(error)}"
        ) from error
    # without its files transformers makes up a tokenizer of special tokens alone
    if tokenizer.pad_token_id is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"{source}: no tokenizer is here, or it has no padding token")
    return stored, tokenizer


def _from_nothing(given: Mapping[str, Any], records: Any) -> tuple[Any, Any]:
    """Return a configuration, and a tokenizer trained on the records, that fit each other."""
    settings: dict[str, Any] = {"model_type": "bert", "vocab_size": 8000, **given}
    draft = _config(settings)
    tokenizer = _wordpiece.train(records, draft.vocab_size, token_types=_token_types(draft))
    return _config(settings | _wordpiece.ids(tokenizer)), tokenizer


def _token_types(config: Any) -> bool:
    return (getattr(config, "type_vocab_size", 0) or 0) > 1


def _config(settings: Mapping[str, Any]) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig

    kind = settings["model_type"]
    if kind not in CONFIG_MAPPING:
        hint = nearest(kind, CONFIG_MAPPING)
        raise UserError(f"model.config: transformers has no model_type '{kind}'{hint}")
    try:
        return AutoConfig.for_model(**settings)
    except Exception as error:
        raise UserError(f"model.config: {_reason(error)}") from error


def _loaded(auto: Any, source: Path, **settings: Any) -> Any:
    """Return a pretrained network; only what is outside its embeddings and layers may be new."""
    from safetensors import SafetensorError

    try:
        net, found = auto.from_pretrained(
            source,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **settings,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: its weights can't be read: {_reason(error)}") from error
    new = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    inside = f"{net.base_model_prefix}."
    lost = [key for key in new if key.startswith(inside) and _depth(key) is not None]
    if lost:
        raise UserError(
            f"{source}: {len(lost)} weights of the encoder are missing or of another shape,"
            f" '{lost[0]}' the first; look at the folder and at model.config"
        )
    _log.info("new weights, not pretrained: %s", ", ".join(new) or "none")
    return net


def _check_used(given: Mapping[str, Any], net: Any) -> None:
    """Refuse keys of a configuration that the architecture neither declares nor reads."""
    kind = type(net.config)
    known = {"model_type", *vars(kind()), *kind.attribute_map}
    source = inspect.getsource(sys.modules[type(net).__module__])
    for key in given:
        if key not in known and not re.search(rf"\b{re.escape(key)}\b", source):
            hint = nearest(key, known)
            raise UserError(f"model.config: '{kind.model_type}' has no '{key}'{hint}")


def _reason(error: Exception) -> str:
    """Return the first sentence of an error, on one line."""
    return " ".join(str(error).split()).split(". ")[0].removesuffix(".")


def _depth(name: str) -> int | None:
    """Return a parameter's layer, from 1; 0 for embeddings, None for what is neither."""
    if match := _LAYER.search(name):
        return int(match[1]) + 1
    return 0 if "embed" in name else None


class Classifier(nn.Module):
    """Gives a transformers classifier the core's interface, and its own names in a checkpoint."""

    def __init__(self, net: Any) -> None:
        """Keep the network."""
        super().__init__()
        self.net = net

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **batch: Any
    ) -> dict[str, torch.Tensor]:
        """Return `logits` [B, C] of token ids and mask [B, T], and token types if used."""
        types = {k: batch[k] for k in ("token_type_ids",) if k in batch}
        found = self.net(input_ids=input_ids, attention_mask=attention_mask, **types)
        return {"logits": found.logits}

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
        depths = {name: _depth(name) for name, _ in self.module.named_parameters()}
        top = max(depth or 0 for depth in depths.values()) + 1
        items = []
        for name, parameter in self.module.named_parameters():
            depth = depths[name]
            part: Literal["base", "head"] = "base" if id(parameter) in base else "head"
            if parameter.requires_grad:
                items.append(Labelled(name, parameter, part, top if depth is None else depth))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write configuration and tokenizer, as transformers does."""
        self.module.net.config.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
