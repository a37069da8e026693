"""An experiment that is sound, and the same with one fault of its data or of what a batch holds."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from framework.__main__ import main
from framework.protocols import Info, Record, option
from plugins.models.hf_classifier import HfClassifier
from tests.support import install

TEXT = """\
name = "planted"
seed = 3
dataset = "planted_pairs"
loss = "cross_entropy"
optimizer = { use = "adamw", lr = 1e-2 }
scheduler = "constant"
precision = "fp32"
metrics = ["accuracy"]

[model]
use = "planted_net"

[trainer]
epochs = 2
batch_size = 16
threads = 1
"""
OFFERS = {
    "framework.dataset": {"planted_pairs": "tests.checks.planted_data:Pairs"},
    "framework.model": {"planted_net": "tests.checks.planted_data:Net"},
}
CONFIG = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "vocab_size": 300,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
THINGS = "amber birch cloud delta ember fjord grove hazel iris jetty kelp lotus".split()  # noqa: SIM905 - as words
QUESTIONS = ("is it warm there?", "who was told of it, and when?")
SIZES = {"train": 160, "val": 40, "test": 40}


def said(draw: random.Random, label: int) -> str:
    """Say something of some things; the label is whether it is hot."""
    words = draw.choices(THINGS, k=draw.randint(5, 12))
    return f"{' '.join(words)} {('cold', 'hot')[label]} {draw.randrange(10**6)}"


def records(split: str, seed: int) -> list[dict[str, Any]]:
    """A split: pairs of a question and what is said, two of a group, labels in turn."""
    draw = random.Random(f"{split}{seed}")  # noqa: S311 - records of a test
    return [
        {
            "id": f"{split}{at}",
            "text": QUESTIONS[at % 3 % 2],
            "text_pair": said(draw, at % 2),
            "label": at % 2,
            "group": f"{split}-{at // 2}",
        }
        for at in range(SIZES[split])
    ]


def alike(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Word a record as another."""
    one |= {"text": other["text"], "text_pair": f"  {other['text_pair'].upper()} "}


def nearly(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Word a record nearly as another."""
    one |= {"text": other["text"], "text_pair": f"{other['text_pair']}!"}


PAIRWISE: Mapping[str, Callable[[dict[str, Any], dict[str, Any]], None]] = {
    "record": lambda one, other: one.update(other),
    "group": lambda one, other: one.update(group=other["group"]),
    "text": alike,
    "near": nearly,
}
"""What is done to four records of the test, beside as many of train."""


def faulty(splits: dict[str, list[dict[str, Any]]], fault: str) -> None:
    """Put a fault into the splits."""
    train, val, test = splits["train"], splits["val"], splits["test"]
    for at in range(4):
        if fault in PAIRWISE:
            PAIRWISE[fault](test[at], train[at])
        elif fault == "conflict":
            alike(train[at + 11], train[at])
        elif fault == "empty":
            train[at]["text_pair"] = " "
        elif fault == "range":
            val[at]["label"] = 7
    if fault == "drift":
        for record in test:
            record["label"] = 1
    if fault == "long":
        for at, record in enumerate(train):
            record["text_pair"] = " ".join(THINGS * 3) if at % 40 == 0 else "so"
            record["text_pair"] += f" {record['id']}"


@attrs.frozen
class Pairs:
    """The dataset."""

    fault: str = option("", help="what is wrong with it")

    def build(self, seed: int) -> LivePairs:
        """Make the splits."""
        splits = {split: records(split, seed) for split in SIZES}
        faulty(splits, self.fault)
        labels = ["cold", "hot", *(["never"] if self.fault == "balance" else [])]
        counted = [r["label"] for r in splits["train"]]
        if self.fault == "counts":
            counted = [r["label"] for split in splits.values() for r in split]
        info = {"labels": labels, "class_counts": [counted.count(at) for at in range(len(labels))]}
        return LivePairs(info, splits)


@attrs.frozen
class LivePairs:
    """The splits."""

    info: Mapping[str, Any]
    splits: Mapping[str, Sequence[Record]] = attrs.field(repr=False)
    files: Sequence[Path] = ()

    @property
    def manifest(self) -> Mapping[str, Sequence[str]]:
        """Who went where."""
        return {name: [record["id"] for record in split] for name, split in self.splits.items()}

    def keys(self) -> list[str]:
        """Names."""
        return list(self.splits)

    def __getitem__(self, split: str) -> Sequence[Record]:
        """Records."""
        return self.splits[split]


@attrs.frozen
class Net:
    """A tiny encoder whose processor has a fault."""

    fault: str = option("", help="what is wrong with its batches")
    max_length: int = option(64, help="tokens of a record")

    def build(self, info: Info, assets: Path | None = None) -> Any:
        """Build the classifier, and put the fault around its processor."""
        config = dict(CONFIG)
        options = HfClassifier(config=config, max_length=self.max_length, cache=False)
        live = options.build(info, assets)
        return attrs.evolve(live, processor=Faulty(live.processor, self.fault))


@attrs.frozen
class Faulty:
    """The classifier's processor, with a fault."""

    pairs: Any
    fault: str
    augments: bool = False

    @property
    def tokenizer(self) -> Any:
        """The classifier's."""
        return self.pairs.tokenizer

    def encode(self, records: Sequence[Record]) -> list[Any]:
        """Encode, maybe without special tokens, or a token of each alone."""
        found = self.pairs.encode(records)
        return [self._changed(found[at]) for at in range(len(records))]

    def _changed(self, features: Any) -> Any:
        special = torch.isin(
            torch.as_tensor(features["input_ids"].astype("int64")),
            torch.tensor(self.tokenizer.all_special_ids),
        ).numpy()
        kept = ~special if self.fault == "special" else special | True
        if self.fault == "one":
            first = (~special).argmax() if (~special).any() else -1
            kept = special.copy()
            kept[first] = True
        cut = {key: features[key][kept] for key in ("input_ids", "token_type_ids")}
        return {**features, **cut, "length": int(kept.sum())}

    def augment(self, features: Any, rng: Any) -> Any:
        """Nothing is changed."""
        return features

    def collate(self, features: Sequence[Any]) -> dict[str, Any]:
        """Collate, with the fault."""
        batch = self.pairs.collate(features)
        if self.fault == "mask":
            batch["attention_mask"] = torch.ones_like(batch["attention_mask"])
        elif self.fault == "types":
            batch["token_type_ids"] = torch.zeros_like(batch["token_type_ids"])
        elif self.fault == "targets":
            batch["labels"] = torch.full_like(batch["labels"], -100)
        elif self.fault == "finite":
            batch["weights"] = torch.full((len(batch["id"]),), torch.nan)
        return batch

    def decode(self, outputs: Any, batch: Any) -> Any:
        """The classifier's rows."""
        return self.pairs.decode(outputs, batch)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The experiment's file, in the current folder, with its parts offered."""
    monkeypatch.chdir(tmp_path)
    install(monkeypatch, tmp_path / "site", "planted-parts 1.0", OFFERS)
    (tmp_path / "planted.toml").write_text(TEXT, encoding="utf-8")
    return tmp_path / "planted.toml"


def looked(
    capsys: pytest.CaptureFixture[str], file: Path, *sets: str, only: str = ""
) -> tuple[int, list[dict[str, Any]]]:
    """Run the command on all areas; its exit code and the rows."""
    capsys.readouterr()
    words = [word for value in sets for word in ("--set", value)]
    words += ["--only", only] if only else []
    code = main(["check", str(file), "--json", *words])
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["rows"]
    return code, rows


def ended(rows: Sequence[Mapping[str, Any]], *statuses: str) -> set[tuple[str, str]]:
    """Area and name of the rows that ended so."""
    return {(row["area"], row["name"]) for row in rows if row["status"] in statuses}
