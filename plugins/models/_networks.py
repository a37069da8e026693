"""Configurations, tokenizers and networks, as transformers makes them."""

from __future__ import annotations

import copy
import inspect
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from framework.errors import UserError, nearest
from plugins.models import _wordpiece

_log = logging.getLogger("framework")
CLASSIFIER = "AutoModelForSequenceClassification"
_LAYER = re.compile(r"\.(?:layer|layers|h|blocks)\.(\d+)\.")


def quiet() -> None:
    """Stop transformers from reporting on stderr; what matters of it is said in one line here."""
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    chatter.disable_progress_bar()


def stored(source: Path, changes: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the configuration, with some changes, and the tokenizer that a folder holds."""
    from transformers import AutoConfig, AutoTokenizer

    try:
        found = AutoConfig.from_pretrained(source, trust_remote_code=False).to_dict()
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:
        raise UserError(
            f"{source}: its configuration or tokenizer can't be read: {_reason(error)}"
        ) from error
    # without its files transformers makes up a tokenizer of special tokens alone
    if tokenizer.pad_token_id is None or len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(f"{source}: no tokenizer is here, or it has no padding token")
    return _config(found | changes), tokenizer


def check_labels(assets: Path, labels: Sequence[str]) -> None:
    """Refuse a trained head for labels other than those it was trained on, in their order."""
    file = assets / "config.json"
    try:
        known = json.loads(file.read_text(encoding="utf-8"))["id2label"]
        trained = [known[key] for key in sorted(known, key=int)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: the labels of the trained head can't be read") from error
    if trained != list(labels):
        raise UserError(f"{assets}: trained on the labels {trained}, and the data has {labels}")


def from_nothing(
    given: Mapping[str, Any], records: Any, cache: Path | None = None
) -> tuple[Any, Any]:
    """Return a configuration, and a tokenizer trained on the records, that fit each other."""
    settings: dict[str, Any] = {"model_type": "bert", "vocab_size": 8000, **given}
    draft = _config(settings)
    typed = token_types(draft)
    tokenizer = _wordpiece.train(records, draft.vocab_size, token_types=typed, cache=cache)
    return _config(settings | _wordpiece.ids(tokenizer)), tokenizer


def token_types(config: Any) -> bool:
    """Return whether a model tells the texts of a pair apart by the types of their tokens."""
    return (getattr(config, "type_vocab_size", 0) or 0) > 1


def network(
    config: Any, source: Path | None, attentions: Sequence[str], kind: str = CLASSIFIER
) -> Any:
    """Return a network of float32 weights, random or from a folder, of a kind of transformers.

    It has the first of the kinds of attention that is there. Raises `UserError` for weights
    that don't fit.
    """
    import transformers

    made = getattr(transformers, kind)
    reason = ""
    for attention in attentions:
        fresh = copy.deepcopy(config)  # from_config writes into what it is given
        settings = {"dtype": torch.float32, "attn_implementation": attention}
        try:
            if source is None:
                net = made.from_config(fresh, **settings)
            else:
                net = _loaded(made, source, config=fresh, **settings)
        except (ValueError, ImportError) as error:
            reason = _reason(error)
            continue
        if reason:
            _log.warning("attention: %s; taking %s", reason, attention)
        net.config.architectures = [type(net).__name__]
        return net
    raise UserError(f"model '{source or config.model_type}' can't be built: {reason}")


def recompute(net: Any) -> None:
    """Recompute activations in the backward pass; `UserError` where the model can't."""
    if not net.supports_gradient_checkpointing:
        raise UserError(f"model.activation_checkpointing: {net.config.model_type} can't do it")
    net.activation_checkpointing_enable({"use_reentrant": False})


def check_length(net: Any, length: int) -> None:
    """Raise `UserError` where texts may be longer than a model has positions for."""
    room = _positions(net)
    if room is not None and length > room:
        raise UserError(f"model.max_length is {length} and this model has {room} positions")


def _positions(net: Any) -> int | None:
    """Return how many tokens a model has positions for; None where that is no matter."""
    room = getattr(net.config, "max_position_embeddings", None)
    if room is None or int(room) < 0:  # as XLNet says it
        return None
    embeddings = getattr(net.base_model, "embeddings", None)
    padding = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    # as in RoBERTa, positions may start behind the padding id
    return int(room) - (0 if padding is None else padding + 1)


def check_used(given: Mapping[str, Any], net: Any) -> None:
    """Refuse keys of a configuration that the architecture neither declares nor reads."""
    kind = type(net.config)
    known = {"model_type", *kind.attribute_map, *(k for k in vars(kind()) if k[0] != "_")}
    source = inspect.getsource(sys.modules[type(net).__module__])
    for key in given:
        if key not in known and not re.search(rf"config(?:\.|,\s*['\"]){re.escape(key)}\b", source):
            hint = nearest(key, known)
            raise UserError(f"model.config: '{kind.model_type}' has no '{key}'{hint}")


def depth(name: str) -> int | None:
    """Return a parameter's layer, from 1; 0 for embeddings, None for what is neither."""
    if match := _LAYER.search(name):
        return int(match[1]) + 1
    return 0 if "embed" in name else None


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


def _loaded(made: Any, source: Path, **settings: Any) -> Any:
    """Return a pretrained network; only what is outside its embeddings and layers may be new."""
    from safetensors import SafetensorError

    try:
        net, found = made.from_pretrained(
            source,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **settings,
        )
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{source}: its weights can't be read: {_reason(error)}") from error
    new = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    inside = "" if net.base_model is net else f"{net.base_model_prefix}."
    lost = [key for key in new if key.startswith(inside) and depth(key) is not None]
    if lost:
        raise UserError(
            f"{source}: {len(lost)} weights of the encoder are missing or of another shape,"
            f" '{lost[0]}' the first; look at the folder and at model.config"
        )
    _log.info("new weights, not pretrained: %s", ", ".join(new) or "none")
    return net


def _reason(error: Exception) -> str:
    """Return the first sentence of an error, on one line."""
    return " ".join(str(error).split()).split(". ")[0].removesuffix(".")
