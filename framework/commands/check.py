"""`check EXPERIMENT`: is this training sound? Proven by running its parts for a few steps."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework import build
from framework.commands import _experiment
from framework.commands.probe import Probe, Row, Status
from framework.config.experiment import Experiment
from framework.errors import RunError, UserError, fault, nearest, printable
from framework.protocols import Splits
from framework.registry import Offer, Registry
from framework.trainer import Trainer

_log = logging.getLogger("framework")
EXAMPLE = "example: python -m framework check experiments/focal_bert.toml"
AREAS = (
    "data", "input", "loss", "gradient", "learning", "precision", "optimizer", "metrics",
    "checkpoint", "cost", "environment",
)  # fmt: skip
"""The order of the table; areas of others come behind."""
_WORDS: Mapping[Status, str] = {
    "pass": "passed",
    "warn": "warned",
    "fail": "failed",
    "skipped": "skipped",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _experiment.arguments(parser)
    parser.add_argument("--only", metavar="AREA,…", default="", help=f"of {', '.join(AREAS)}")
    parser.add_argument(
        "--show-text", action="store_true", help="show texts of records, which are left out else"
    )
    parser.add_argument(
        "--tune-speed", action="store_true", help="try batch sizes, precisions and workers, too"
    )
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def execute(options: argparse.Namespace) -> int:
    """Look at everything and print the table; 1 where a row failed."""
    begun = time.monotonic()
    experiment = _experiment.loaded(options, inputs=True)
    level = _log.level
    _log.setLevel(logging.ERROR)
    try:
        return _looked(options, experiment, begun)
    finally:
        _log.setLevel(level)


def _looked(options: argparse.Namespace, experiment: Experiment, begun: float) -> int:
    checks = list(chosen(options.only))
    with tempfile.TemporaryDirectory() as scratch:
        splits = build.dataset(experiment)
        probe = Probe(
            experiment,
            splits,
            Path(scratch),
            show_text=options.show_text,
            tune_speed=options.tune_speed,
            changed=lambda sets: _changed(options, sets),
        )
        for name, check in checks:
            observed(probe, name, check)
            if sys.stderr.isatty():
                print(f"\r\x1b[K{len(probe.rows)} rows, {name}", end="", file=sys.stderr)
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr)
    failed = any(row.status == "fail" for row in probe.rows)
    if options.json:
        counts = Counter(row.status for row in probe.rows)
        found: dict[str, Any] = {"rows": [attrs.asdict(row) for row in probe.rows]}
        found |= {"counts": dict(counts)} | ({"toml": probe.pasted} if probe.pasted else {})
        print(json.dumps(found | {"seconds": round(time.monotonic() - begun, 1)}, indent=1))
    else:
        table(probe.rows)
        print(*(f"    {line}\n" for line in probe.pasted), sep="", end="")
        print(f"{summary(probe.rows)} in {time.monotonic() - begun:.0f} s")
    return 1 if failed else 0


def _changed(options: argparse.Namespace, sets: Sequence[str]) -> Experiment:
    """Load the experiment with more values changed."""
    changed = argparse.Namespace(**vars(options) | {"set": [*options.set, *sets]})
    return _experiment.loaded(changed)


def glance(experiment: Experiment, splits: Splits, trainer: Trainer) -> None:
    """Say in one line what the checks find that cost nothing; a run never ends of it.

    All ranks look, as what is theirs together may need all of them, and the first says it.
    """
    import torch

    state = trainer.state
    try:
        probe = Probe(experiment, splits, state.folder, given=trainer)
        with torch.random.fork_rng(devices=[]):  # the run's own draws stay as they are
            for name, check in chosen():
                if getattr(check, "free", False):
                    observed(probe, name, check)
    except UserError as error:
        _log.warning("checks: %s", error)
        return
    if state.strategy.rank:
        return
    wrong = [row.name for row in probe.rows if row.status in ("warn", "fail")]
    if wrong:
        command = f"python -m framework check {os.path.relpath(state.folder)}/experiment.toml"
        told = f"{summary(probe.rows)} ({', '.join(wrong)})"
        _log.warning("checks: %s; see %s", told, command)
    else:
        _log.info("checks: %s", summary(probe.rows))


def chosen(only: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every check that is installed, made, in the table's order; of some areas alone."""
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    checks = [(offer.name, _made(offer)) for offer in Registry().of_kind("check")]
    there = list(dict.fromkeys([*AREAS, *(check.area for _, check in checks)]))
    for name in wanted:
        if name not in there:
            raise UserError(f"--only: no check has the area '{name}'{nearest(name, there)}")
    checks.sort(key=lambda item: (there.index(item[1].area), item[0]))
    yield from (item for item in checks if not wanted or item[1].area in wanted)


def _made(offer: Offer) -> Any:
    """Make a check; one that can't be made is a row of its own, and the others look."""
    owner = f"check '{offer.name}' of {offer.owner}"
    try:
        check = offer.load()()
    except UserError as error:
        return _Broken(str(error))
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        return _Broken(f"{owner} can't be made without options ({fault(error)})")
    lacking = [name for name in ("area", "observe") if not hasattr(check, name)]
    return _Broken(f"{owner} lacks '{lacking[0]}'") if lacking else check


@attrs.frozen
class _Broken:
    """Stands for a check that is none."""

    problem: str
    area: str = "environment"

    def observe(self, probe: Probe) -> None:
        """Say so."""
        probe.fails("every check can look", self.problem, "mend or uninstall it")


def observed(probe: Probe, name: str, check: Any) -> None:
    """Have one check look; what it raises is a row, and the others go on."""
    try:
        probe.observe(name, check)
    except (UserError, RunError) as error:
        probe.fails(name, str(error), "mend this first; what follows from it can't be seen")
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        probe.fails(name, f"the check could not look: {fault(error)}", f"see check '{name}'")


def summary(rows: Sequence[Row]) -> str:
    """Say how many rows ended how."""
    counts = Counter(row.status for row in rows)
    return ", ".join(
        f"{counts[status]} {word}" for status, word in _WORDS.items() if counts[status]
    )


def table(rows: Sequence[Row]) -> None:
    """Print the rows: how each ended, what was seen, and what to do."""
    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 140))
    name = max((len(row.name) for row in rows), default=0)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    codes = {"pass": "32", "warn": "33", "fail": "1;31", "skipped": "2"}
    area = ""
    for row in rows:
        if row.area != area:
            area = row.area
            print(area)
        status = (
            f"\x1b[{codes[row.status]}m{row.status:<7}\x1b[0m" if colour else f"{row.status:<7}"
        )
        indent = " " * (name + 12)
        words = textwrap.wrap(printable(row.observed), max(20, width - len(indent))) or [""]
        advice = textwrap.wrap(f"→ {printable(row.advice)}", max(20, width - len(indent)))
        words += advice if row.advice else []
        print(f"  {status} {row.name:<{name}}  {words[0]}".rstrip())
        print(*(f"{indent}{line}\n" for line in words[1:]), sep="", end="")
