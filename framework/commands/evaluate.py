"""`evaluate RUN [--split SPLIT]`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from framework import build, checkpoint
from framework.commands import _records, tables, terminal, trained
from framework.commands.trained import Finished
from framework.errors import UserError, listing
from framework.hooks import Hooks
from framework.protocols import Splits

EXAMPLE = "example: python -m framework evaluate runs/focal-bert/20261120T101500Z-1a2b3c"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", help="a run folder, or a model's address (models:/name@alias)")
    parser.add_argument("--split", default="test", help="the split to evaluate (test)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--output", type=Path, help="write the predictions to this CSV file")
    parser.add_argument("--json", action="store_true", help="print one object")


def execute(options: argparse.Namespace) -> int:
    """Evaluate and print the values; nothing is written unless `--output` is given."""
    terminal.show_log()
    with tempfile.TemporaryDirectory() as scratch:
        done = trained.finished(options.run, Path(scratch), options.set)
        values = evaluate(done, options.split, options.output)
    if options.json:
        print(json.dumps(_records.plain(values), indent=1))
        return 0
    for name, value in values.items():
        print(f"{options.split}/{name}  {value:.4f}")
    return 0


def _held_out(done: Finished, split: str, splits: Splits) -> None:
    """Raise `UserError` where a split holds what the run, by its own record, was trained on."""
    before = _records.read(done.assets.absolute().parents[2] / "splits.json")
    own, trained_on = set(before.get(split, ())), set(before.get("train", ()))
    seen = (set(splits.manifest.get(split, ())) - own) & trained_on
    if seen:
        raise UserError(
            f"{len(seen)} of the split '{split}' were trained on: the dataset cuts other splits"
            " than the run's splits.json; give --set seed=… that they were cut by"
        )


def evaluate(done: Finished, split: str, output: Path | None) -> dict[str, float]:
    """Evaluate a trained model on a split of its dataset; values without the split's name.

    Raises `UserError` when the data isn't what the run was trained on: a split cut anew would
    hold records that were trained on.
    """
    splits = build.dataset(done.experiment)
    if split not in splits.keys():  # noqa: SIM118
        raise UserError(f"the dataset has no split '{split}'; it has {listing(splits.keys())}")
    now = json.loads(json.dumps(splits.info))
    differing = [key for key in {**now, **done.info} if now.get(key) != done.info.get(key)]
    if differing:
        raise UserError(
            f"the data is not what this run was trained on: {listing(differing)} of the dataset"
            " differ, and so may its splits; give it the run's data, or use predict"
        )
    _held_out(done, split, splits)
    trainer = build.trainer(
        done.experiment,
        splits,
        Hooks({}),
        done.assets,
        lambda _: tables.writer(done.assets),
        assets=done.assets,
        only=split,
    )
    weights = done.assets / "model.safetensors"
    checkpoint.load_weights(trainer.state.model.module, weights)
    if output is None:
        values = trainer.evaluate(split)
    else:
        with tables.writer(output) as sink:
            values = trainer.evaluate(split, sink)
    return values
