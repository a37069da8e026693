"""A WordPiece vocabulary trained on a dataset's own texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plugins import _cache

_FILE, _VERSION = "tokenizer.json", 1
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train(
    records: Iterable[Mapping[str, Any]], size: int, *, token_types: bool, cache: Path | None = None
) -> Any:
    """Train on the records' texts; a fast tokenizer of about `size` entries at most.

    Pairs are joined as `[CLS] a [SEP] b [SEP]` with token types 0 and 1, which it gives unasked
    where the model takes `token_types`. The same texts give the same vocabulary every time; that
    of records with a `key` is kept in the cache, if there is one.
    """
    from transformers import PreTrainedTokenizerFast

    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    roles = dict(zip(names, SPECIAL, strict=True))
    inputs = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    backend = _kept(records, size, cache) if cache else _trained(records, size)
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **roles)


def _kept(records: Iterable[Mapping[str, Any]], size: int, root: Path) -> Any:
    """Train, or find what was trained before on the same records."""
    from tokenizers import Tokenizer, __version__

    known = getattr(records, "key", "")
    if not known:
        return _trained(records, size)

    def build(folder: Path) -> dict[str, Any]:
        with _cache.create(folder / _FILE) as stream:
            stream.write(_trained(records, size).to_str().encode())
        return {}

    try:
        found = _cache.entry(root, _cache.key(_VERSION, _FILE, __version__, known, size), build)
        return Tokenizer.from_file(str(found.folder / _FILE))
    except _cache.FAILURES as error:
        _cache.warn(root, _cache.reason(error), "the vocabulary is trained at every start")
        return _trained(records, size)


def _trained(records: Iterable[Mapping[str, Any]], size: int) -> Any:
    from tokenizers import models, processors, trainers

    first, inner = _alphabet(records)
    # The library numbers inner characters in the order of a randomly seeded hash table, and
    # ties between merges fall by number: giving them as special tokens fixes the numbers.
    # A second tokenizer then takes the vocabulary without their being special.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*SPECIAL, *(f"##{character}" for character in inner)],
        limit_alphabet=len(first) + len(inner),
        initial_alphabet=first,
        show_progress=False,
    )
    draft = _backend(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    draft.train_from_iterator(_texts(records), trainer)
    vocabulary = draft.get_vocab()
    backend = _backend(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return backend


def ids(tokenizer: Any) -> dict[str, int]:
    """Return what a configuration says of a vocabulary, under its names there."""
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }


def _backend(model: Any) -> Any:
    from tokenizers import Tokenizer, normalizers, pre_tokenizers

    backend = Tokenizer(model)
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return backend


def _alphabet(records: Iterable[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
    """Return the characters that begin words and those inside them, sorted."""
    from tokenizers import models

    backend = _backend(models.WordPiece())
    first: set[str] = set()
    inner: set[str] = set()
    for text in _texts(records):
        plain = backend.normalizer.normalize_str(text)
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(plain):
            first.add(word[0])
            inner.update(word[1:])
    return sorted(first), sorted(inner)


def _texts(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        yield record["text"]
        if "text_pair" in record:
            yield record["text_pair"]
