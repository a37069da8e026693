"""A WordPiece vocabulary trained on a dataset's own texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train(records: Iterable[Mapping[str, Any]], size: int, *, token_types: bool) -> Any:
    """Train on the records' texts; a fast tokenizer of about `size` entries at most.

    Pairs are joined as `[CLS] a [SEP] b [SEP]` with token types 0 and 1, which it gives unasked
    where the model takes `token_types`. The same texts give the same vocabulary every time.
    """
    from tokenizers import models, processors, trainers
    from transformers import PreTrainedTokenizerFast

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
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    roles = dict(zip(names, SPECIAL, strict=True))
    inputs = ["input_ids", *(["token_type_ids"] if token_types else []), "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **roles)


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
