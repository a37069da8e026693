"""`run EXPERIMENT [--set KEY=VALUE]…`."""

from __future__ import annotations

import argparse
import json
import os
import time

from framework.commands import _experiment, tables, terminal
from framework.run import run

EXAMPLE = "example: python -m framework run experiments/focal_bert.toml --set loss=cross_entropy"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _experiment.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print result.json at the end")


def execute(options: argparse.Namespace) -> int:
    """Run it; prints the folder and the metrics of the test split."""
    begun = time.time()
    terminal.show_log()
    experiment = _experiment.loaded(options, inputs=True)
    code, folder = run(experiment, begun, tables.writer)
    text = (folder / "result.json").read_text(encoding="utf-8")
    if options.json:
        print(text, end="")
        return code
    result = json.loads(text)
    shown = os.path.relpath(folder)
    print(f"{result['status']}: {result['reason']}")
    if result["best"]:
        best = result["best"]
        print(f"best step {best['step']}: {best['metric']} {best['value']:.4f}")
    for name, value in result["metrics"].get("test", {}).items():
        if "/" not in name:
            print(f"test/{name}  {'undefined' if value is None else f'{value:.4f}'}")
    print(f"run folder: {shown}")
    print(f"next: python -m framework evaluate {shown}")
    return code
