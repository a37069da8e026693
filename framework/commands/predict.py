"""`predict RUN FILE [--output FILE]`."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from framework.commands import tables, terminal, trained
from framework.commands.trained import Finished, Predictor
from framework.errors import UserError

EXAMPLE = "example: python -m framework predict runs/focal-bert/20261120T101500Z-1a2b3c new.csv"


_SUFFIX = re.compile(r"\.(csv|tsv|jsonl|parquet)(\.gz)?\Z", re.IGNORECASE)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", help="a run folder, or a model's address (models:/name@alias)")
    parser.add_argument("file", type=Path, help="CSV or JSONL in the dataset's own columns")
    parser.add_argument("--output", type=Path, help="default: FILE with .predictions.csv")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def execute(options: argparse.Namespace) -> int:
    """Predict; writes ids, labels and probabilities, never the text."""
    terminal.show_log()
    file: Path = options.file
    output = options.output or file.with_name(f"{_SUFFIX.sub('', file.name)}.predictions.csv")
    if output.resolve() == file.resolve():
        raise UserError(f"--output {output} is the file to predict; give another")
    with tempfile.TemporaryDirectory() as scratch:
        done = trained.finished(options.run, Path(scratch), options.set)
        count = predict(done, file, output)
    print(f"{count} rows written to {output}")
    return 0


def predict(done: Finished, file: Path, output: Path) -> int:
    """Predict every record of a file, in its order; the number of rows written."""
    dataset = done.experiment.dataset.options
    if not hasattr(dataset, "read"):
        raise UserError("this run's dataset can't read unlabelled files")
    count = 0
    records = dataset.read(file, done.info)
    with tables.writer(output) as sink:
        for row in Predictor(done).rows(records):
            sink([row])
            count += 1
    return count
