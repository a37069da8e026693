"""`anomalies RUN`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np

from framework.errors import UserError, listing
from framework.protocols import Record
from plugins.commands._detection import Counts, Flags, Floats, reached, threshold

_SHOWN = ("auroc", "average_precision", "precision", "recall", "f1")


@attrs.frozen
class Anomalies:
    """Say how a run's model tells abnormal sessions of the test split, beside simple answers."""

    example = "example: python -m framework anomalies runs/session-mlm/20261121T101500Z-1a2b3c"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add = parser.add_argument
        add("run", help="a run folder, or a model's address (models:/name@alias)")
        add("--positive", default="", help="label of what is abnormal (the last one)")
        add(
            "--quantile",
            type=float,
            default=0.99,
            help="of validation's scores, where it has one kind of sessions alone (0.99)",
        )
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the experiment")
        add("--json", action="store_true", help="print one object")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Score validation and test; thresholds are validation's, and never the test's."""
        tools.show_log()
        if not 0 <= options.quantile <= 1:
            raise UserError(f"--quantile is {options.quantile}; it must be from 0 to 1")
        with tools.trained(options.run, options.set) as trained:
            splits = _splits(trained.done, options.run)
            positive = _positive(trained.done.info, options)
            counts = Counts(splits["train"])
            val, test = (
                _Scored.of(splits[split], trained, counts, positive) for split in ("val", "test")
            )
        found = {
            answer: _answer(scores, test.scores[answer], val, test, options.quantile)
            for answer, scores in val.scores.items()
        }
        print(json.dumps(_plain(found), indent=1) if options.json else _table(found))
        return 0


@attrs.frozen
class _Scored:
    """Sessions of a split, each with a score of every answer."""

    scores: Mapping[str, Floats]
    abnormal: Flags
    new: Flags
    """Those of whose events in their order no session of train is."""

    @classmethod
    def of(cls, records: Sequence[Record], trained: Any, counts: Counts, positive: int) -> _Scored:
        rows = [*trained.rows(records)]
        if not all("loss" in row for row in rows):
            raise UserError("this run's model gives no loss of a session; train a session_bert")
        labels = np.asarray([record["label"] for record in records])
        new = np.asarray([record["meta"]["seen"] == "no" for record in records])
        scores = {
            "mean masked loss": np.asarray([row["loss"] for row in rows], np.float64),
            "distance to the nearest counts": counts.score(records),
            "events not seen in this order": new.astype(np.float64),
        }
        return cls(scores, labels == positive, new)


def _answer(
    validated: Floats, tested: Floats, val: _Scored, test: _Scored, quantile: float
) -> dict[str, Any]:
    """Return what one kind of scores reaches, on each of validation and test."""
    above = threshold(validated, val.abnormal, quantile)
    new = test.new
    return {
        "threshold": above,
        "val": reached(validated, val.abnormal, above),
        "test": reached(tested, test.abnormal, above),
        "test, not in train": reached(tested[new], test.abnormal[new], above),
    }


def _splits(done: Any, run: str) -> Any:
    """Build the run's dataset; `UserError` where it isn't what the run was trained on."""
    experiment = done.experiment
    splits = experiment.dataset.options.build(experiment.seed)
    if json.loads(json.dumps(splits.info)) != done.info:
        raise UserError(f"{run}: the data is not what this run was trained on; give it that")
    if "test" not in splits.keys():  # noqa: SIM118 - splits are no mapping
        raise UserError(f"{run}: its dataset has no test split; give it one")
    if not hasattr(splits["test"], "seen"):
        raise UserError(f"{run}: its dataset is none of sessions")
    return splits


def _positive(info: Mapping[str, Any], options: argparse.Namespace) -> int:
    labels = [*info.get("labels", ())]
    name = options.positive or (labels or [""])[-1]
    if name not in labels:
        raise UserError(f"--positive: no session is {name!r}; the labels are {listing(labels)}")
    return labels.index(name)


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return lines for a person."""
    lines = []
    for split in ("val", "test", "test, not in train"):
        first = next(iter(found.values()))[split]
        heading = f"{split}: {first['sessions']} sessions, {first['abnormal']} abnormal"
        lines.append(f"{heading:<48}" + "".join(f"{name[:9]:>11}" for name in _SHOWN))
        for answer, values in found.items():
            told = "".join(f"{values[split][name]:11.3f}" for name in _SHOWN)
            lines.append(f"  {answer:<46}{told}")
    chosen = ", ".join(f"{answer} > {v['threshold']:.4g}" for answer, v in found.items())
    return "\n".join([*lines, f"abnormal, by validation's best F1: {chosen}"])


def _plain(value: Any) -> Any:
    """Return a value with what JSON has no number for as null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
