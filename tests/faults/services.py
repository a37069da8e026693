"""Rows 23 and 24: tracking stores that are fresh, absent or dying."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

from plugins._mlflow import bounded, connect
from tests.faults.experiments import TEXT, attempt
from tests.faults.outcome import Outcome
from tests.faults.processes import Process, command, finished, start

PROCESSES = 4
BLOCKED = 5.0
"""Seconds that a server may cost a run."""
STEPS = 40
WAYS = {"killed": signal.SIGKILL, "silent": signal.SIGSTOP, "absent": None}


def dying_server(folder: Path, rounds: int) -> Outcome:
    """Row 23: the run goes on without its server, and `sync` delivers what that has missed."""
    rng = random.Random(23)  # noqa: S311 - draws of a test
    failures, longest, delivered = [], 0.0, 0
    repeats = 1 + rounds // 10
    empty = folder / "empty.db"
    made = start(lambda: _tables(empty), folder).wait()
    if made.code:
        raise RuntimeError(made.err)
    for number in range(repeats):
        step = rng.randint(1, STEPS - 1) if number else 10
        plain = attempt(folder / f"{number}-plain", *_sets(os.getpid(), 0, step)).seconds
        for way, sent in WAYS.items():
            here = folder / f"{number}-{way}"
            here.mkdir()
            # a server that is killed while it makes its tables leaves what it can't read itself
            shutil.copy(empty, here / "mlflow.db")
            blocked, values, wrong = _tracked(here, sent, step)
            longest = max(longest, blocked - plain)
            delivered += values
            if blocked - plain > BLOCKED:
                wrong.append(f"blocked for {blocked - plain:.1f} s")
            failures += [f"server {way} at step {step}: {what}" for what in wrong]
    said = (
        f"{repeats * len(WAYS)} runs completed, at most {max(longest, 0):.1f} s longer than without"
        f" tracking; {delivered} of {delivered} values are in the store after sync, each once"
    )
    return Outcome.of(said, failures)


def _tables(file: Path) -> None:
    with bounded(60):
        connect(f"sqlite:///{file}").search_experiments()


def _sets(process: int, number: int, step: int) -> list[str]:
    signalling = f"use='fault_signal', process={process}, number={number}, step={step}"
    return [f"trainer.steps={STEPS}", "trainer.log_every=1", f"callbacks.signal={{{signalling}}}"]


def _tracked(here: Path, sent: signal.Signals | None, step: int) -> tuple[float, int, list[str]]:
    """Run against a server that goes; seconds, values to deliver, and what went wrong."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = _served(here, port) if sent else None
    pid, number = (server.pid, int(sent)) if server and sent else (os.getpid(), 0)
    uri = f"callbacks.mlflow.uri='http://127.0.0.1:{port}'"
    ended = attempt(here, *_sets(pid, number, step), uri)
    wrong = [f"the run ended with {ended.code}: {ended.last}"] * (ended.code != 0)
    wrong += ["sync was not advised"] * ("framework sync runs/" not in ended.err)
    if server:
        server.kill()
        server.wait()
    server = _served(here, port)
    (run,) = (here / "runs" / "fault").iterdir()
    try:
        synced = finished("sync", run, cwd=here)
        again = finished("sync", run, cwd=here)
    finally:
        server.kill()
        server.wait()
    wrong += [f"sync ended with {synced.code}: {synced.last}"] * (synced.code != 0)
    wrong += [f"sync again: {again.last}"] * ("nothing was missing" not in again.out)
    wanted = Counter(_values(run))
    steps = {step for _, step, _ in wanted}
    wrong += [f"{len(steps)} steps were logged"] * (steps != set(range(1, STEPS + 1)))
    with closing(sqlite3.connect(here / "mlflow.db")) as base:
        found = Counter(base.execute("SELECT key, step, value FROM metrics").fetchall())
        statuses = base.execute("SELECT status FROM runs").fetchall()
    if found != wanted:
        lost, twice = (wanted - found).total(), (found - wanted).total()
        wrong.append(f"{lost} values are not in the store and {twice} too many")
    wrong += [f"the store has runs {statuses}"] * (statuses != [("FINISHED",)])
    return ended.seconds, wanted.total(), wrong


def _values(run: Path) -> list[tuple[str, int, float]]:
    """Every value of a run's points: name, step, value."""
    points = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        (key, point["step"], value)
        for point in points
        for key, value in point.items()
        if key not in ("step", "time")
    ]


def _served(here: Path, port: int) -> Process:
    """Start MLflow's server over the folder's database; it answers when this returns."""
    from mlflow import server
    from werkzeug.serving import make_server

    def work() -> None:
        os.environ[server.BACKEND_STORE_URI_ENV_VAR] = f"sqlite:///{here}/mlflow.db"
        os.environ[server.ARTIFACT_ROOT_ENV_VAR] = str(here / "artifacts")
        make_server("127.0.0.1", port, server.app, threaded=True).serve_forever()

    process = start(work, here)
    until = time.monotonic() + 60
    while process.alive() and time.monotonic() < until:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.02)
    raise TimeoutError("MLflow's server has not started")


def fresh_database(folder: Path, rounds: int) -> Outcome:
    """Row 24: processes that start on a database which isn't there yet, at once or nearly so."""
    rng = random.Random(24)  # noqa: S311 - draws of a test
    failures = []
    repeats = max(1, rounds * 2 // 5)
    for number in range(repeats):
        here = folder / str(number)
        here.mkdir()
        # at once, and then while the first one makes the tables
        delays = [0.0 if number % 2 == 0 else 2 * rng.random() for _ in range(PROCESSES)]
        failures += _together(here, delays)
    said = (
        f"{repeats} times {PROCESSES} processes: {repeats * PROCESSES} of {repeats * PROCESSES}"
        " ended well, every point is in the database"
    )
    return Outcome.of(said, failures)


def _together(here: Path, delays: list[float]) -> list[str]:
    """Return what went wrong in runs that share a database."""
    tracked = f'{TEXT}\n[callbacks.mlflow]\nuri = "sqlite:///mlflow.db"\n'
    (here / "fault.toml").write_text(tracked)
    runs = [command("run", "fault.toml", cwd=here, delay=delay) for delay in delays]
    failures = []
    for ended in [run.wait(300.0) for run in runs]:
        if ended.code:
            failures.append(f"a process ended with {ended.code}: {ended.last}")
        failures += [line for line in ended.err.splitlines() if line.startswith("mlflow:")]
    with closing(sqlite3.connect(here / "mlflow.db")) as base:
        statuses = dict(base.execute("SELECT name, status FROM runs").fetchall())
        counts = dict(
            base.execute(
                "SELECT name, count(*) FROM (SELECT DISTINCT name, key, step, value"
                " FROM runs JOIN metrics USING (run_uuid)) GROUP BY name"
            ).fetchall()
        )
    for run in (here / "runs" / "fault").iterdir():
        # two points of one step, as of train and val, have the same `epoch`
        values = len({*_values(run)})
        if statuses.get(run.name) != "FINISHED" or counts.get(run.name) != values:
            found = f"{statuses.get(run.name)}, {counts.get(run.name)} of {values} values"
            failures.append(f"in the database {run.name} is {found}")
    return failures
