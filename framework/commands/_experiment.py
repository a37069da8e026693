"""What the commands on an experiment share: its arguments, and its loading."""

from __future__ import annotations

import argparse
from pathlib import Path

from framework.commands import _monitors, _requires, _search, _sets
from framework.config import experiment as config
from framework.config.experiment import Experiment, in_order
from framework.config.structure import Structurer
from framework.errors import ExperimentError, Problem, UserError

TABLES = {"requires": _requires.check, "callbacks": _monitors.check, "search": _search.check}
"""Keys of an experiment that commands check further, and how."""


def arguments(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """Declare the file and what changes it."""
    number = "?" if optional else None
    parser.add_argument("experiment", type=Path, nargs=number, help="the TOML file")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one value of it, as in loss.gamma=3; may be repeated",
    )


def loaded(options: argparse.Namespace, *, inputs: bool = False) -> Experiment:
    """Load and check it; `inputs` looks for the dataset's files before all else is imported."""
    tables = TABLES | {"dataset": find_inputs} if inputs else TABLES
    return config.load(options.experiment, [*map(_sets.parsed, options.set)], tables=tables)


def find_inputs(structurer: Structurer) -> None:
    """Let a dataset that has a `check` look for its input files; a failure ends the loading."""
    dataset = structurer.used.get(("dataset",))
    if dataset is None or not hasattr(dataset.options, "check"):
        return
    try:
        dataset.options.check()
    except UserError as error:
        # the message names the file that is missing: no line of the experiment needs showing
        found = Problem(str(error), structurer.draft.problem(("dataset",), "").where)
        raise ExperimentError([*in_order(structurer.problems), found]) from None
