"""The check of the environment: a server and a disk that fail a row each; versions that changed."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import socket
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from framework.__main__ import main
from tests.checks.planted_data import ended, looked
from tests.faults import mounts


def test_a_server_that_does_not_answer_fails_its_row(
    planted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where nothing listens the row fails; where something does it passes, and is sent nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = f"http://127.0.0.1:{server.getsockname()[1]}"
        code, rows = looked(capsys, planted, f'callbacks.mlflow={{uri="{there}"}}')
        assert (ended(rows, "fail", "warn"), code) == (set(), 0)
    code, rows = looked(capsys, planted, f'callbacks.mlflow={{uri="{there}"}}')
    assert ended(rows, "fail", "warn") == {("environment", "tracking server")}
    assert code == 1


def _small(folder: Path, file: Path, answer: Any) -> None:
    """Run the command in a file system that has no room for checkpoints."""
    if not mounts.possible():
        answer.send(None)
        return
    mounts.mount(folder, 100_000)
    os.chdir(folder)
    with contextlib.redirect_stdout(io.StringIO()) as report:
        code = main(["check", str(file), "--json"])
    answer.send((code, report.getvalue()))


def test_a_disk_without_room_fails_its_row(planted: Path, tmp_path: Path) -> None:
    """Checkpoints of 100 kB and more don't fit into 100 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    fork = multiprocessing.get_context("fork")
    mine, theirs = fork.Pipe(duplex=False)
    process = fork.Process(target=_small, args=(folder, planted, theirs))
    process.start()
    theirs.close()
    found = mine.recv()
    process.join()
    if found is None:
        pytest.skip("nothing can be mounted here")
    code, text = found
    rows = json.loads(text)["rows"]
    assert ended(rows, "fail", "warn") == {("environment", "room for checkpoints")}
    assert code == 1


def test_packages_that_changed_are_told(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Against the newest run of the experiment's name, as a warning; of the same ones it passes."""
    folder = planted.parent / "runs" / "planted"
    for name, packages in (
        ("20260101T000000Z-aaaaaa", {"numpy": "0.9", "torch": "0.4"}),
        ("20260201T000000Z-bbbbbb", {"numpy": version("numpy"), "gone": "1.0"}),
    ):
        (folder / name).mkdir(parents=True)
        file = folder / name / "environment.json"
        file.write_text(json.dumps({"packages": packages}))
    code, rows = looked(capsys, planted, only="environment")
    (told,) = (row for row in rows if row["status"] == "warn")
    assert told["observed"] == "1 packages changed since 20260201T000000Z-bbbbbb: 'gone 1.0 → none'"
    assert code == 0
    file.write_text(json.dumps({"packages": {"numpy": version("numpy")}}))
    assert not ended(looked(capsys, planted, only="environment")[1], "fail", "warn")


@pytest.fixture
def logged(planted: Path) -> Callable[..., str]:
    """Run a few steps; what its log says of the checks."""

    def run(*sets: str) -> str:
        words = [word for value in ("trainer.steps=2", *sets) for word in ("--set", value)]
        assert main(["run", str(planted), *words]) == 0
        newest = max((planted.parent / "runs" / "planted").iterdir(), key=os.path.getmtime)
        lines = (newest / "run.log").read_text().splitlines()
        (line,) = (line for line in lines if " checks: " in line)
        return line.replace(str(newest.relative_to(planted.parent)), "RUN")

    return run


def test_a_run_says_what_is_seen_at_once(logged: Callable[..., str]) -> None:
    """One line before training, of rows that need no step; a warning names what to look at."""
    assert logged().endswith("INFO checks: 5 passed")
    assert logged("dataset.fault=drift").endswith(
        "WARNING checks: 4 passed, 1 failed (label drift); see python -m framework check"
        " RUN/experiment.toml"
    )
