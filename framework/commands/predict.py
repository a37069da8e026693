"""`predict RUN FILE [--output FILE]`."""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from framework import log, run
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
    log.to_terminal()
    file: Path = options.file
    output = options.output or file.with_name(f"{_SUFFIX.sub('', file.name)}.predictions.csv")
    if output.resolve() == file.resolve():
        raise UserError(f"--output {output} is the file to predict; give another")
    with tempfile.TemporaryDirectory() as scratch:
        done = run.finished(options.run, Path(scratch), options.set)
        count = run.predict(done, file, output)
    print(f"{count} rows written to {output}")
    return 0
