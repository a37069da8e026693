"""What the kit runs our own plugins on, where their defaults don't do: see `test_kit.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framework.testing import samples
from plugins.callbacks.early_stopping import EarlyStopping
from plugins.callbacks.mlflow import Mlflow
from plugins.datasets.redsm5 import Redsm5
from plugins.datasets.text import Text
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.by_group import ByGroup
from plugins.metrics.f1 import F1
from plugins.metrics.precision import Precision
from plugins.metrics.recall import Recall
from plugins.models.hf_classifier import HfClassifier
from plugins.samplers.tokens import Tokens

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
CASES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("dataset", "redsm5"): {
        "options": Redsm5(root=DATA / "redsm5", criteria=DATA / "dsm5" / "MDD_Criteria.json")
    },
    ("dataset", "text"): {
        "options": Text(train=ANNOTATIONS, text="sentence_text", label="status", group="post_id")
    },
    ("model", "hf_classifier"): {"options": HfClassifier(max_length=96, config=CONFIG)},
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
