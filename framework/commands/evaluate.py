"""`evaluate RUN [--split SPLIT]`."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from framework import log, run

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
    log.to_terminal()
    with tempfile.TemporaryDirectory() as scratch:
        done = run.finished(options.run, Path(scratch), options.set)
        values = run.evaluate(done, options.split, options.output)
    if options.json:
        print(json.dumps(run.plain(values), indent=1))
        return 0
    for name, value in values.items():
        print(f"{options.split}/{name}  {value:.4f}")
    return 0
