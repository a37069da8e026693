"""`anomalies RUN`."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from framework.errors import UserError
from framework.protocols import Record
from plugins._sessions import abnormal, digest
from plugins.commands._detection import Counts, Flags, Floats, Orders, both, reached, threshold

_SHOWN = ("auroc", "average_precision", "precision", "recall", "f1")


@attrs.frozen
class Anomalies:
    """Say how a run's model tells abnormal sessions of the test split, beside simple answers."""

    example = "example: python -m framework anomalies runs/session-mlm/20261121T101500Z-1a2b3c"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add = parser.add_argument
        add("run", help="a run folder, or a model's address (models:/name@alias)")
        add("--positive", default="", help="label of what is abnormal")
        add(
            "--not-in",
            action="append",
            default=[],
            metavar="FILE",
            type=Path,
            help="say it also of the test's sessions whose events FILE doesn't have",
        )
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
            simple = {
                "distance to the nearest counts": Counts(splits["train"]).score,
                "names not seen in this order": Orders(splits["train"]).score,
            }
            val, test = (
                _Scored.of(splits[split], trained, simple, positive) for split in ("val", "test")
            )
            cuts = _cuts(splits["test"], trained.done, options.not_in)
        found = {
            answer: _answer(answer, val, test, cuts, options.quantile) for answer in val.scores
        }
        print(json.dumps(_plain(found), indent=1) if options.json else _table(found))
        return 0


@attrs.frozen
class _Scored:
    """Sessions of a split, each with a score of every answer."""

    scores: Mapping[str, Floats]
    abnormal: Flags

    @classmethod
    def of(
        cls, records: Sequence[Record], trained: Any, simple: Mapping[str, Any], positive: int
    ) -> _Scored:
        rows = [*trained.rows(records)]
        if not all("loss" in row for row in rows):
            raise UserError("this run's model gives no loss of a session; train a session_bert")
        labels = np.asarray([record["label"] for record in records])
        losses = np.asarray([row["loss"] for row in rows], np.float64)
        scores = {name: score(records) for name, score in simple.items()}
        return cls({"mean masked loss": losses, **scores}, labels == positive)


def _cuts(records: Sequence[Record], done: Any, files: Sequence[Path]) -> dict[str, Flags]:
    """Return the parts of the test: all, and those without what stands elsewhere already."""
    seen = np.asarray([record["meta"]["seen"] for record in records])
    cuts = {
        "test": np.ones(len(seen), bool),
        "test, not in train": seen != "train",
        "test, not in train nor val": seen == "no",
    }
    for file in files:
        read = done.experiment.dataset.options.read(file, done.info)
        there = {digest(record["events"]) for record in read}
        new = [digest(record["events"]) not in there for record in records]
        cuts[f"test, not in {file.name}"] = np.asarray(new)
    return cuts


def _answer(
    answer: str, val: _Scored, test: _Scored, cuts: Mapping[str, Flags], quantile: float
) -> dict[str, Any]:
    """Return what one kind of scores reaches, on validation and each part of the test."""
    validated, tested = val.scores[answer], test.scores[answer]
    above = threshold(validated, val.abnormal, quantile)
    best = "validation's best F1"
    return {
        "threshold": above,
        "chosen_by": best if both(val.abnormal) else f"validation's quantile {quantile:g}",
        "val": reached(validated, val.abnormal, above),
        **{cut: reached(tested[rows], test.abnormal[rows], above) for cut, rows in cuts.items()},
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
    try:
        return abnormal(info, options.positive)
    except UserError as error:
        raise UserError(f"--positive: {error}") from None


def _table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Return lines for a person."""
    lines = []
    one = next(iter(found.values()))
    for split, first in one.items():
        if not isinstance(first, Mapping):
            continue
        heading = f"{split}: {first['sessions']} sessions, {first['abnormal']} abnormal"
        lines.append(f"{heading:<56}" + "".join(f"{name[:9]:>11}" for name in _SHOWN))
        for answer, values in found.items():
            told = "".join(f"{values[split][name]:11.3f}" for name in _SHOWN)
            lines.append(f"  {answer:<54}{told}")
    chosen = ", ".join(f"{answer} > {v['threshold']:.4g}" for answer, v in found.items())
    return "\n".join([*lines, f"abnormal, by {one['chosen_by']}: {chosen}"])


def _plain(value: Any) -> Any:
    """Return a value with what JSON has no number for as null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
