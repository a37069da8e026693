"""`run EXPERIMENT [--set KEY=VALUE]… [--resume [RUN]]`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

from framework.commands import _experiment, _records, _resume, terminal
from framework.commands._records import records
from framework.errors import RunError
from framework.run import run

EXAMPLE = "example: python -m framework run experiments/focal_bert.toml --set loss=cross_entropy"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _experiment.arguments(parser, optional=True)
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run from its newest whole checkpoint (with the newest run of the name);"
        " without EXPERIMENT, as the run was",
    )
    parser.set_defaults(parser=parser)
    parser.add_argument("--json", action="store_true", help="print result.json at the end")


def execute(options: argparse.Namespace) -> int:
    """Run it; prints the folder and the metrics of the test split."""
    begun = time.time()
    terminal.show_log()
    # until there is something to save, it must not end the process
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    launch = ""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) and options.resume is None:
        # torchrun has started the ranks again: the run goes on, if it had begun
        options.resume, launch = "", _records.launch()
    if options.experiment is None:
        _named_by_run(options)
    experiment = _experiment.loaded(options, inputs=True)
    folder = None if options.resume is None else _resume.find(experiment, options.resume, launch)
    if launch and folder and (code := _ended(folder)) is not None:
        return code
    # what a run writes is its owner's alone
    os.umask(0o077)
    with records() as kept:
        try:
            code, folder = run(experiment, begun, kept, folder)
        except RunError:
            if kept.folder and (kept.folder / "checkpoints" / "last").exists():
                shown = os.path.relpath(kept.folder)
                print(f"to go on: python -m framework run --resume {shown}", file=sys.stderr)
            raise
        except RuntimeError as error:
            known = kept.words(error)  # before there is a run that could fail
            if not known:
                raise
            raise RunError(known) from None
    if kept.rank:
        return code
    with terminal.reader_may_leave():
        _tell(folder, code, as_json=options.json)
    return code


def _ended(folder: Path) -> int | None:
    """Return the exit code of a run that ended on purpose: nothing is to be started again."""
    result = _records.read(folder / "result.json")
    reason = str(result.get("reason", ""))
    codes = {"completed": 0, "stopped_early": 0}
    if result.get("status") == "interrupted":
        codes["interrupted"] = 128 + getattr(signal, reason.rpartition(" ")[2], signal.SIGTERM)
    if reason.startswith("step "):  # what the guard and memory end a run by, and will again
        codes["failed"] = 1
    code = codes.get(str(result.get("status")))
    if code is not None and int(os.environ.get("RANK", "0")) == 0:
        print(f"{folder}: {result['status']} ({reason}); not started again", file=sys.stderr)
    return code


def _named_by_run(options: argparse.Namespace) -> None:
    """Take the experiment of the run that goes on, or the file that stands in RUN's place."""
    given = options.resume
    if not given:
        options.parser.error("the following arguments are required: experiment (or --resume RUN)")
    if Path(given).suffix == ".toml" and Path(given).name != "experiment.toml":
        options.experiment, options.resume = Path(given), ""
    else:
        options.experiment = _resume.around(Path(given)) / "experiment.toml"


def _tell(folder: Path, code: int, *, as_json: bool) -> None:
    text = (folder / "result.json").read_text(encoding="utf-8")
    if as_json:
        print(text, end="", flush=True)
        return
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
    following = f"run --resume {shown}" if code else f"evaluate {shown}"
    print(f"next: python -m framework {following}", flush=True)
