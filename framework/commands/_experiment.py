"""What the commands on an experiment share: its arguments, and its loading."""

from __future__ import annotations

import argparse
from pathlib import Path

from framework.commands._search import check
from framework.config import experiment as config
from framework.config.experiment import Experiment

TABLES = {"search": check}
"""Tables of an experiment that belong to commands, and how they are checked."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the file and what changes it."""
    parser.add_argument("experiment", type=Path, help="the TOML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of it, as in loss.gamma=3; may be repeated",
    )


def loaded(options: argparse.Namespace, *, inputs: bool = False) -> Experiment:
    """Load and check it; `inputs` looks for the dataset's files before all else is imported."""
    return config.load(options.experiment, options.set, tables=TABLES, inputs=inputs)
