"""What the kit runs our own plugins on, where their defaults don't do: see `test_kit.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from framework.testing import samples
from plugins.callbacks.early_stopping import EarlyStopping
from plugins.callbacks.mlflow import Mlflow
from plugins.datasets.redsm5 import Redsm5
from plugins.datasets.sections import Sections
from plugins.datasets.sessions import Sessions
from plugins.datasets.text import Text
from plugins.datasets.text_file import TextFile
from plugins.datasets.triples import Triples
from plugins.decodings.top_k import TopK
from plugins.decodings.top_p import TopP
from plugins.losses.cross_entropy import CrossEntropy
from plugins.losses.token_cross_entropy import TokenCrossEntropy
from plugins.losses.weighted_sum import WeightedSum
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.by_group import ByGroup
from plugins.metrics.f1 import F1
from plugins.metrics.of_head import OfHead
from plugins.metrics.perplexity import Perplexity
from plugins.metrics.precision import Precision
from plugins.metrics.recall import Recall
from plugins.models.gaussian_encoder import GaussianEncoder
from plugins.models.hf_classifier import HfClassifier
from plugins.models.plan_code import PlanCode
from plugins.models.session_bert import SessionBert
from plugins.models.transformer_lm import TransformerLm
from plugins.samplers.tokens import Tokens
from plugins.tokenizers.character import Character

DATA = Path(__file__).resolve().parents[2] / "data"
SCRATCH = tempfile.TemporaryDirectory()
CONFIG = {
    "vocab_size": 200,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
}
TWO = {**samples.info(), "labels": ["no", "yes"], "class_counts": [8, 4]}
"""The kit's own sample has three classes, for which a binary average is refused."""
ANNOTATIONS = DATA / "redsm5" / "redsm5_annotations.csv"
LABELS = torch.tensor([[2, 0, -100], [1, 1, 2], [0, -100, -100], [2, 2, 1]])
TOKENS = {
    "outputs": {"logits": torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))},
    "batch": {
        "id": ["a", "b", "c", "d"],
        "labels": LABELS,
        "characters": torch.where(LABELS < 0, 0, LABELS + 1),
    },
}
"""Windows of up to three tokens from a vocabulary of three, of 1 to 3 characters each."""
PLANS = [
    {
        "id": f"p{at}",
        "text": " ".join(samples.WORDS[: 1 + at % 4]),
        "plan": f"assert {samples.WORDS[at]} == {at}",
        "code": "\n".join(f"{word} = {at}" for word in samples.WORDS[at : at + 3]),
        "label": at % 3,
        "copy": at % 3 > 0,
    }
    for at in range(7)
]
"""Records with sections, some of them copies."""
HEADS = {
    "outputs": {
        "plan_logits": TOKENS["outputs"]["logits"],
        "whole_logits": torch.randn(4, 3, generator=torch.Generator().manual_seed(1)),
    },
    "batch": {
        "id": ["a", "b", "c", "d"],
        "plan_labels": LABELS,
        "whole_labels": torch.tensor([0, 2, -100, 0]),
    },
}
"""A head of tokens and one of classes."""
UNLABELLED = {
    key: value if key == "id" else torch.full_like(value, -100)
    for key, value in HEADS["batch"].items()
}
SESSIONS = Sessions(
    root=DATA / "sessions",
    train="train_all.jsonl",
    test="test.jsonl",
    texts=["text"],
    train_on="0",
    ratios=[0.8, 0.2],
)
VISITS = SESSIONS.build(0)
SCORED = {
    "info": {"labels": ["0", "1"]},
    "outputs": TOKENS["outputs"],
    "batch": {**TOKENS["batch"], "item_labels": torch.tensor([0, 1, 0, 1])},
}
"""Such windows of items that are labelled, too."""
_DRAW = torch.Generator().manual_seed(1)
_QUERIES, _POSITIVES = ("q1", "q2", "q3", "q1", "q4"), ("d1", "d2", "d3", "d4", "d1")
_NEGATIVES = ("d2", "d5", "", "d6", "d5")
_ROWS = [*zip(_QUERIES, _POSITIVES, _NEGATIVES, strict=True)]
_VALUES = {name: torch.randn(2, 4, generator=_DRAW) for name in sorted({*sum(_ROWS, ())})}
_ANSWERS = {"q1": {"d1": 1, "d4": 1}, "q2": {"d2": 1}, "q3": {"d3": 2}, "q4": {"d1": 1}}
TRIPLES = {
    "outputs": {
        "mean": torch.stack([torch.stack([_VALUES[n][0] for n in row]) for row in _ROWS]),
        "log_variance": torch.stack([torch.stack([_VALUES[n][1] for n in row]) for row in _ROWS]),
        "similarity": torch.tensor(0),
    },
    "batch": {
        "id": ["t1", "t2", "t3", "t4", "t5"],
        "queries": [*_QUERIES],
        "documents": [*_POSITIVES],
        "negatives": [*_NEGATIVES],
        "relevant": [_ANSWERS[query] for query in _QUERIES],
    },
}
"""Triples with documents that stand in the batch twice, answer two queries, or are missing."""
POOL = {
    "outputs": {
        "mean": torch.randn(7, 1, 4, generator=_DRAW),
        "log_variance": torch.randn(7, 1, 4, generator=_DRAW) / 2,
        "similarity": torch.tensor(1),
    },
    "batch": {
        "id": [f"item{at}" for at in range(7)],
        "queries": ["", "q1", "", "q2", "", "q3", ""],
        "documents": ["d1", "", "d2", "", "d3", "", "d4"],
        "relevant": [{}, {"d1": 1, "d3": 2}, {}, {"d9": 1}, {}, {}, {}],
    },
}
"""Documents and queries, one of which nothing answers, and one what isn't there."""
CASES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("dataset", "redsm5"): {
        "options": Redsm5(root=DATA / "redsm5", criteria=DATA / "dsm5" / "MDD_Criteria.json")
    },
    ("dataset", "text"): {
        "options": Text(train=ANNOTATIONS, text="sentence_text", label="status", group="post_id")
    },
    ("model", "hf_classifier"): {"options": HfClassifier(max_length=96, config=CONFIG)},
    ("dataset", "text_file"): {"options": TextFile(root=DATA / "char_lm", window=256)},
    ("model", "transformer_lm"): {
        "options": TransformerLm(
            tokenizer=Character(), context=512, layers=2, heads=2, d_model=16, cache=False
        )
    },
    ("dataset", "sections"): {
        "options": Sections(
            root=DATA / "plan_code",
            splits={"train": [601, 974], "val": [511, 600], "test": [11, 510]},
        )
    },
    ("model", "plan_code"): {
        "options": PlanCode(tokenizer=Character(), layers=2, heads=2, d_model=16),
        "info": {"labels": ["CONTINUE", "TRUNCATED", "SWAPPED"], "train": PLANS},
        "records": PLANS,
    },
    ("dataset", "sessions"): {"options": SESSIONS},
    ("model", "session_bert"): {
        "options": SessionBert(max_length=64, layers=1, heads=2, d_model=16, vocabulary=100),
        "info": {**VISITS.info, "train": VISITS["train"]},
        "records": [*VISITS["train"][:8]],
    },
    ("metric", "token_accuracy"): TOKENS,
    ("metric", "anomaly"): SCORED,
    ("dataset", "triples"): {
        "options": Triples(
            root=DATA / "triples",
            corpus="corpus.jsonl",
            queries="beir/queries.jsonl",
            train="beir/qrels/train.tsv",
            test="beir/qrels/test.tsv",
        )
    },
    ("model", "gaussian_encoder"): {
        "options": GaussianEncoder(max_length=96, config=CONFIG, output_dim=8),
        "records": [
            *(
                {**r, "positive": r["text"][::-1], "negatives": [], "query": r["id"], "wrong": []}
                | {"document": r["id"], "relevant": {}}
                for r in samples.records(4)
            ),
            {"id": "query", "text": "amber", "query": "q", "relevant": {"train1": 1}},
            {"id": "document", "text": "birch cloud delta", "document": "train1"},
        ],
    },
    ("loss", "gaussian_contrastive"): TRIPLES,
    ("metric", "retrieval"): POOL,
    ("metric", "gaussian_space"): POOL,
    ("loss", "token_cross_entropy"): TOKENS,
    ("loss", "weighted_sum"): {
        "options": WeightedSum(
            parts={"plan": TokenCrossEntropy(), "whole": CrossEntropy(label_smoothing=0.1)},
            weights={"whole": 0.5},
        ),
        **HEADS,
        "ignored": UNLABELLED,
    },
    ("metric", "of_head"): {
        "options": OfHead(head="plan", metrics={"perplexity": Perplexity()}),
        **HEADS,
    },
    ("metric", "perplexity"): TOKENS,
    ("metric", "bits_per_character"): TOKENS,
    ("decoding", "top_k"): {"options": TopK(k=3, temperature=0.7)},
    ("decoding", "top_p"): {"options": TopP(p=0.8)},
    ("sampler", "tokens"): {"options": Tokens(budget=512)},
    ("metric", "f1"): {"info": TWO},
    ("metric", "precision"): {"info": TWO},
    ("metric", "recall"): {"options": Recall(average="macro")},
    ("metric", "by_group"): {
        "options": ByGroup(
            key="source",
            metrics={"f1": F1(average="macro"), "p": Precision(average="micro"), "a": Accuracy()},
        )
    },
    ("callback", "early_stopping"): {"options": EarlyStopping(monitor="val/loss", mode="min")},
    ("callback", "mlflow"): {"options": Mlflow(uri=f"sqlite:///{SCRATCH.name}/store/mlflow.db")},
}


def pytest_framework_case(kind: str, name: str) -> Mapping[str, Any] | None:
    """Return the options and samples of those of our plugins that need some."""
    return CASES.get((kind, name))
