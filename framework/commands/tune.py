"""`tune EXPERIMENT [--set KEY=VALUE]… [--workers N]`: the search that `[search]` describes."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framework.commands import _experiment, _records, _results, _search, _sets, _study, terminal
from framework.commands._board import Board
from framework.commands._search import Plan
from framework.commands._trial import Bench, Interrupted
from framework.commands._worker import Worker
from framework.config import experiment as config
from framework.config.experiment import Experiment
from framework.config.structure import Structurer
from framework.errors import RunError, UserError

EXAMPLE = "example: python -m framework tune experiments/focal_search.toml --workers 2"
_LEAVE = 60.0
"""Seconds that the other processes have to save what they were doing."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _experiment.arguments(parser)
    parser.add_argument(
        "--workers",
        type=_positive,
        default=1,
        metavar="N",
        help="processes on this machine; more on other machines share the storage",
    )
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print study.json at the end")


def execute(options: argparse.Namespace) -> int:
    """Search; prints each trial as it ends, and at the end the best."""
    terminal.show_log(quiet=True)
    experiment, plan = _loaded(options)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("each trial is trained by one process; start this without torchrun")
    os.umask(0o077)  # as a run itself
    folder = Path.cwd() / "runs" / experiment.name / "study"
    facts = _study.facts(experiment, plan)
    try:
        with _signals():
            desk = _study.opened(plan, experiment.name, folder, experiment.seed, facts)
            trackers = _results.trackers(experiment)
            parents = {k: live.study(folder, experiment.name) for k, live in trackers.items()}
            bench = Bench(plan, experiment.seed, parents)
            worker = Worker(desk, bench, options.experiment, _drafts(options), facts, folder.parent)
            if options.worker:
                worker.parent = options.worker
                worker.work(lambda: None)
                return 0
            board = Board(desk, shown=not options.json)
            with _helpers(options, folder):
                worker.work(board.show)
            found = _results.ended(worker, folder)
            _results.tracked(found, plan.search, trackers, folder)
    except KeyboardInterrupt as error:
        code = getattr(error, "code", 130)
        print("interrupted; the same command goes on with the rest", file=sys.stderr)
        return code
    return _tell(found, folder, as_json=options.json)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _drafts(options: argparse.Namespace) -> list[Any]:
    return [*map(_sets.parsed, options.set)]


def _loaded(options: argparse.Namespace) -> tuple[Experiment, Plan]:
    """Load the experiment and what it says of the search.

    Several processes share the cores out among them: on each other's they would wait for each other
    in every product. It stands in the trials' experiments, whose bits hang on it.
    """
    plans: list[Plan | None] = []

    def check(structurer: Structurer) -> None:
        plans.append(_search.plan(structurer))

    tables = _experiment.TABLES | {"search": check, "dataset": _experiment.find_inputs}
    experiment = config.load(options.experiment, _drafts(options), tables=tables)
    if options.workers > 1 and not experiment.trainer.threads:
        there = getattr(os, "sched_getaffinity", None)
        cores = len(there(0)) if there else os.cpu_count() or 1
        options.set.append(f"trainer.threads={max(1, cores // options.workers)}")
        experiment = config.load(options.experiment, _drafts(options), tables=tables)
    if not plans or plans[0] is None:
        raise UserError(
            f"{options.experiment}: says nothing of what to search; write a table [search], with"
            " metric, direction and space"
        )
    if not plans[0].dimensions:
        raise UserError(f"{options.experiment}: search.space is empty; name an option to vary")
    return experiment, plans[0]


@contextmanager
def _signals() -> Iterator[None]:
    """Have the signals that end a process interrupt it; while a run trains they are its own."""

    def ask(number: int, _: Any) -> None:
        raise Interrupted(128 + number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _helpers(options: argparse.Namespace, folder: Path) -> Iterator[None]:
    """Start the other processes of this machine; they end with this one, or by themselves."""
    sets = [word for value in options.set for word in ("--set", value)]
    words = [sys.executable, "-m", "framework", "tune", str(options.experiment), *sets]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for number in range(1, options.workers):
            with (folder / f"worker-{number}.log").open("ab") as log:
                started.append(
                    subprocess.Popen(  # noqa: S603 - this very program
                        [*words, "--worker", str(os.getpid())],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # Ctrl+C is this one's, which asks them once
                    )
                )
        yield
    finally:
        _ended(started, folder, asked=sys.exc_info()[0] is not None)


def _ended(started: Sequence[subprocess.Popen[bytes]], folder: Path, *, asked: bool) -> None:
    """Wait for the other processes; where this one is asked to end, they are too."""
    for process in started if asked else ():
        if process.poll() is None:
            process.terminate()
    for number, process in enumerate(started, 1):
        try:
            code = process.wait(_LEAVE)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if code and not asked:
            log = os.path.relpath(folder / f"worker-{number}.log")
            print(f"process {number} ended with {code}; what it said is in {log}", file=sys.stderr)


def _tell(found: dict[str, Any], folder: Path, *, as_json: bool) -> int:
    shown = os.path.relpath(folder)
    best = found["best"]
    if as_json:
        print(json.dumps(_records.plain(found), indent=1))
        return 0 if best else 1
    if not best:
        reasons = [t["reason"] for t in found["trials"] if t["reason"]]
        last = f"; the last failed: {reasons[-1]}" if reasons else ""
        raise RunError(f"{shown}: of {len(found['trials'])} trials none is a result{last}")
    for each in best:
        values = zip(found["metrics"], each["values"], strict=True)
        print(f"best trial {each['number']}: " + ", ".join(f"{k} {v:.4f}" for k, v in values))
        print("  " + ", ".join(f"{key} = {value}" for key, value in each["params"].items()))
    for name, value in found["retrained"].get("test", {}).items():
        if "/" not in name:
            number = sum(not each["reason"] for each in found["retrained"]["seeds"].values())
            print(f"test/{name}  {value['mean']:.4f} ± {value['std']:.4f} over {number} seeds")
    for seed, each in found["retrained"].get("seeds", {}).items():
        if each["reason"]:
            print(f"seed {seed} failed: {each['reason']}; the same command tries it again")
    print(f"study: {shown}")
    print(f"next: python -m framework run {shown}/{best[0]['file']}", flush=True)
    return 0
