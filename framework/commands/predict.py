"""`predict RUN FILE [--output FILE]`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from framework import log, run

EXAMPLE = "example: python -m framework predict runs/focal-bert/20261120T101500Z-1a2b3c new.csv"


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
    output = options.output or file.with_name(f"{file.name.partition('.')[0]}.predictions.csv")
    with tempfile.TemporaryDirectory() as scratch:
        done = run.finished(options.run, Path(scratch), options.set)
        count = run.predict(done, file, output)
    print(f"{count} rows written to {output}")
    return 0
