"""`validate EXPERIMENT [--set KEY=VALUE]… [--show | --origin | --hooks]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from framework.commands import _experiment
from framework.commands._resolved import lines, toml, tree
from framework.config.experiment import Experiment
from framework.config.positions import Path
from framework.errors import printable
from framework.hooks import NAMES, Hooks

EXAMPLE = "example: python -m framework validate experiments/focal_bert.toml --origin"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _experiment.arguments(parser)
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--show", action="store_true", help="print it with every default")
    shown.add_argument(
        "--origin", action="store_true", help="the same, with where each value came from"
    )
    shown.add_argument(
        "--hooks", action="store_true", help="print who is called by each hook, in order, and why"
    )
    parser.add_argument("--json", action="store_true", help="print the problems as objects")


def execute(options: argparse.Namespace) -> int:
    """Check it; every mistake is told, and the exit code is 2 if there is one."""
    experiment = _experiment.loaded(options)
    if options.json:
        print(json.dumps({"problems": []}, indent=1))
    elif options.show:
        print(toml(experiment), end="")
    elif options.origin:
        print(explained(experiment), end="")
    elif options.hooks:
        print(*_hooks(experiment), sep="\n")
    else:
        print(f"{options.experiment}: no mistakes in '{experiment.name}'")
    return 0


def explained(experiment: Experiment) -> str:
    """Return the resolved experiment with a comment behind each value: where it came from."""
    told = ""
    for text, path in lines(tree(experiment)):
        # what isn't printable could end the comment
        told += f"{text}  # {printable(_origin(experiment, path))}\n" if path else f"{text}\n"
    return told


def _origin(experiment: Experiment, path: Path) -> str:
    """Say in few words where the value of a path came from: file and line, or the argument."""
    known = experiment.draft.origins
    found = known.get(path) or (known.get(path[:-1]) if path[-1] == "use" else None)
    if found is None:
        return "default"
    return f"--set {found.text}" if found.file == "--set" else f"{found.file}:{found.at.line}"


def _hooks(experiment: Experiment) -> Iterator[str]:
    """Yield, for each hook, the callbacks it calls, with their owner and what placed them."""
    parts = experiment.callbacks
    live = {label: part.options.build() for label, part in parts.items()}
    hooks = Hooks(live)
    for name in NAMES:
        yield name
        called = [found.plugin_name for found in hooks.called[name]]
        for place, label in enumerate(called, 1):
            reasons = [_origin(experiment, ("callbacks", label))]
            reasons += [f"after '{other}'" for other in getattr(live[label], "after", ())]
            reasons += [f"before '{other}'" for other in getattr(live[label], "before", ())]
            yield f"  {place}. {label:<18}  {parts[label].offer.owner:<24}  {', '.join(reasons)}"
        if not called:
            yield "  nobody"
