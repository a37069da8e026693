"""`validate EXPERIMENT [--set KEY=VALUE]… [--show]`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from framework.config import experiment as config
from framework.errors import ExperimentError

EXAMPLE = "example: python -m framework validate experiments/focal_bert.toml --show"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("experiment", type=Path, help="the TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--show", action="store_true", help="print it with every default")
    parser.add_argument("--json", action="store_true", help="print the problems as objects")


def execute(options: argparse.Namespace) -> int:
    """Check it; every mistake is printed, and the exit code is 2 if there is one."""
    try:
        experiment = config.load(options.experiment, options.set)
    except ExperimentError as error:
        if not options.json:
            raise
        found = [{"where": p.where, "message": p.message} for p in error.problems]
        print(json.dumps({"problems": found}, indent=1))
        return error.exit_code
    if options.json:
        print(json.dumps({"problems": []}, indent=1))
    elif options.show:
        print(experiment.toml(), end="")
    else:
        print(f"{options.experiment}: no mistakes in '{experiment.name}'")
    return 0
