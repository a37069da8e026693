"""A WordPiece vocabulary trained on a dataset's own texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train(records: Iterable[Mapping[str, Any]], size: int) -> Any:
    """Train on the records' texts; a fast tokenizer of at most `size` entries.

    Pairs are joined as `[CLS] a [SEP] b [SEP]` with token types 0 and 1.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106 - no password
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), show_progress=False
    )
    backend.train_from_iterator(_texts(records), trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, **dict(zip(names, SPECIAL, strict=True))
    )


def _texts(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    for record in records:
        yield record["text"]
        if "text_pair" in record:
            yield record["text_pair"]
