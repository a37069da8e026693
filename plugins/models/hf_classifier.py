"""A Hugging Face encoder with a classification head."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from torch import nn

from framework.errors import UserError
from framework.protocols import Info, Labelled, option
from plugins.models import _pretrained, _wordpiece
from plugins.models._text_pairs import TextPairs

_log = logging.getLogger("framework")
_LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")


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

    def build(self, info: Info, assets: Path | None = None) -> LiveClassifier:
        """Build model and tokenizer; the head has one output per label of the dataset.

        Raises `UserError` for weights, configuration or attention that can't be had.
        """
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging as chatter

        # transformers reports on stderr what is told here in one line where it matters
        chatter.set_verbosity_error()
        chatter.disable_progress_bar()
        labels = info["labels"]
        names = {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
        }
        source = assets
        if source is None and self.pretrained:
            source = _pretrained.locate(self.pretrained, self.revision, self.sha256)
        if source is not None:
            config = AutoConfig.from_pretrained(source, **({} if assets else self.config), **names)
            tokenizer = AutoTokenizer.from_pretrained(source)
        else:
            settings: dict[str, Any] = {"model_type": "bert", "vocab_size": 8000} | self.config
            tokenizer = _wordpiece.train(info["train"], int(settings["vocab_size"]))
            ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
            config = _config(AutoConfig, settings | ids | names)
        self._check_length(config)
        net = self._net(AutoModelForSequenceClassification, config, None if assets else source)
        if self.activation_checkpointing:
            net.activation_checkpointing_enable()
        if self.freeze_encoder:
            net.base_model.requires_grad_(requires_grad=False)
        pairs = TextPairs(
            tokenizer=tokenizer,
            max_length=self.max_length,
            truncation="only_second" if self.truncation == "second" else "longest_first",
            token_types=getattr(config, "type_vocab_size", 0) > 1,
            labels=tuple(labels),
        )
        return LiveClassifier(Classifier(net), pairs)

    def _check_length(self, config: Any) -> None:
        room = getattr(config, "max_position_embeddings", self.max_length)
        if config.model_type in ("roberta", "xlm-roberta", "camembert"):
            room -= config.pad_token_id + 1  # their positions start behind the padding id
        if self.max_length > room:
            raise UserError(
                f"model.max_length is {self.max_length} and this model has {room} positions"
            )

    def _net(self, auto: Any, config: Any, source: Path | None) -> Any:
        """Return the network, with the best attention of those asked for that is there."""
        for attention in self._attentions():
            fresh = copy.deepcopy(config)  # from_config writes into what it is given
            settings = {"dtype": torch.float32, "attn_implementation": attention}
            try:
                if source is None:
                    return auto.from_config(fresh, **settings)
                return auto.from_pretrained(source, config=fresh, use_safetensors=True, **settings)
            except (ValueError, ImportError) as error:
                reason = str(error).splitlines()[0]
                _log.warning("attention %s is not to be had here: %s", attention, reason)
        raise UserError(f"model '{self.pretrained or config.model_type}' can't be built")

    def _attentions(self) -> Sequence[str]:
        if self.attention == "eager":
            return ["eager"]
        if self.attention == "flash_attention_2" and not torch.cuda.is_available():
            _log.warning("attention flash_attention_2 needs CUDA; taking sdpa")
            return ["sdpa", "eager"]
        return list(dict.fromkeys([self.attention, "sdpa", "eager"]))


def _config(auto: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return auto.for_model(**settings)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.config: {str(error).splitlines()[0]}") from error


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
        found = list(self.module.named_parameters())
        layers = [int(match[1]) for name, _ in found if (match := _LAYER.search(name))]
        top = max(layers, default=-1) + 2
        items = []
        for name, parameter in found:
            match = _LAYER.search(name)
            depth = int(match[1]) + 1 if match else 0 if "embed" in name else top
            part: Literal["base", "head"] = "base" if id(parameter) in base else "head"
            if parameter.requires_grad:
                items.append(Labelled(name, parameter, part, depth))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write configuration and tokenizer, as transformers does."""
        self.module.net.config.save_pretrained(folder)
        self.processor.tokenizer.save_pretrained(folder)
