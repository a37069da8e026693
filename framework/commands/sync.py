"""`sync RUN [--json]`."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from framework.commands import _inside, terminal
from framework.config import merge
from framework.config.structure import Structurer
from framework.errors import ExperimentError, RunError, UserError, fault, listing, located
from framework.registry import Registry

EXAMPLE = "example: python -m framework sync runs/focal-bert/20261120T101500Z-1a2b3c"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--json", action="store_true", help="print one object")


def execute(options: argparse.Namespace) -> int:
    """Let each callback that can deliver what is missing, and print what that was."""
    terminal.show_log()
    os.umask(0o077)  # as the run itself
    folder: Path = options.run
    done: dict[str, str] = {}
    failed: list[str] = []
    for label, callback in _callbacks(folder).items():
        try:
            with _inside.alone(folder):
                done[label] = callback.sync(folder)
        except RunError as error:
            failed.append(f"{label}: {error}")
        except UserError:
            raise
        except Exception as error:
            where = f"callback '{label}' ({located(type(callback))})"
            raise RunError(f"{where} failed in sync: {fault(error)}") from error
        else:
            if not options.json:
                print(f"{label}: {done[label]}")
    if failed:
        raise RunError("\n".join(failed))
    if options.json:
        print(json.dumps({"delivered": done}, indent=1))
    return 0


def _callbacks(folder: Path) -> dict[str, Any]:
    """Build the callbacks of a run that can deliver; no other part of it is imported."""
    file = folder / "experiment.toml"
    if not file.is_file():
        raise UserError(f"{folder}: there is no run folder here; 'runs/NAME/TIME' is one")
    _inside.check(folder)
    draft = merge.read(file)
    structurer = Structurer(draft, Registry(), draft.problems)
    parts = structurer.components("callback", draft.tree["callbacks"], ("callbacks",))
    if structurer.problems:
        raise ExperimentError(structurer.problems)
    live = {label: part.options.build() for label, part in parts.items()}
    able = {label: made for label, made in live.items() if hasattr(made, "sync")}
    if not able:
        raise UserError(
            f"{folder}: none of this run's callbacks has anything to deliver; they are"
            f" {listing(live)}"
        )
    return able
