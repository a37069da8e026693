"""Real processes that start in milliseconds: forks of one that has imported torch already."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
import numpy as np
import torch

from framework.__main__ import COMMANDS, main
from framework.errors import UserError
from framework.registry import Registry
from tests.support import environment

TICK = 0.002
"""Seconds between two looks at a process."""


@attrs.frozen
class Ended:
    """How a process ended; a negative code is the signal that killed it."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line it said, for a report; what is indented explains one."""
        lines = f"{self.out}\n{self.err}".splitlines()
        return next((line for line in lines[::-1] if line[:1].strip()), "nothing said")


@attrs.define
class Process:
    """A child that runs, with the folder of what it says, which is gone as soon as this is."""

    pid: int
    said: Path
    begun: float = attrs.field(factory=time.monotonic)
    code: int | None = None

    def __attrs_post_init__(self) -> None:
        """Have the folder removed when nobody can read it any more."""
        weakref.finalize(self, shutil.rmtree, self.said, ignore_errors=True)

    def alive(self) -> bool:
        """Whether it still runs; the one that has ended is collected."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal, if it still runs."""
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, seconds: float = 120.0) -> Ended:
        """Wait for its end; `TimeoutError`, after killing it, if that takes longer."""
        until = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"a process was still running after {seconds:.0f} s")
            time.sleep(TICK)
        assert self.code is not None
        out, err = ((self.said / name).read_text(errors="replace") for name in ("out", "err"))
        return Ended(self.code, out, err, time.monotonic() - self.begun)


def warm() -> None:
    """Import what commands import, on one thread: forks are safe only while there is no other."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(mode=False)  # imports for two seconds what it doesn't need
    for name in COMMANDS:
        with suppress(SystemExit), open(os.devnull, "w") as nowhere:  # noqa: PTH123 - no file
            sys.stdout, before = nowhere, sys.stdout
            try:
                main([name, "--help"])
            finally:
                sys.stdout = before
    for offer in Registry().offers:
        with suppress(UserError):  # whatever else is installed here
            offer.load()


def start(work: Callable[[], int | None], cwd: Path, *, group: bool = False) -> Process:
    """Run something in a process of its own, in a folder; what it returns is its exit code.

    With `group` it leads a group of processes, which its own children join.
    """
    said = Path(tempfile.mkdtemp(prefix="said-"))
    # here, as the child may be killed before it could
    for name in ("out", "err"):
        (said / name).touch()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return Process(pid, said)
    code = 1
    try:
        if group:
            os.setpgid(0, 0)
        # what it covers is lost when it ends: to be traced for it would only take time
        threading.settrace(None)
        sys.settrace(None)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number, file in enumerate((os.devnull, said / "out", said / "err")):
            os.dup2(os.open(file, os.O_RDWR | os.O_CREAT), number)
        # a test's own are what pytest has put in their place
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(cwd)
        code = work() or 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - as the interpreter does at its end
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def command(*words: str | Path, cwd: Path, delay: float = 0.0) -> Process:
    """Start `python -m framework …` in a folder, some seconds from now."""

    def work() -> int:
        time.sleep(delay)
        return main([*map(str, words)])

    return start(work, cwd)


def finished(*words: str | Path, cwd: Path) -> Ended:
    """Run `python -m framework …` in a folder to its end."""
    return command(*words, cwd=cwd).wait()


def ran(
    *words: str | Path, cwd: Path, env: Mapping[str, str] = MappingProxyType({})
) -> subprocess.CompletedProcess[str]:
    """Run `python -m framework …` in a folder to its end, with more variables of the environment.

    As a new interpreter's are, its random generators are nobody else's.
    """
    return anew(lambda: main([*map(str, words)]), *words, cwd=cwd, env=env)


def anew(
    work: Callable[[], int | None], *words: str | Path, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run something to its end, which finds what a new interpreter does, its imports apart."""
    ended = start(lambda: _begun(words, env) or work(), cwd).wait(600)
    return subprocess.CompletedProcess(words, ended.code, ended.out, ended.err)


def script(source: str, *words: str | Path, cwd: Path) -> Process:
    """Start a text of Python, as `python -c` does, in a folder."""

    def work() -> None:
        _begun(words, {})
        exec(compile(source, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102

    return start(work, cwd)


def _begun(words: Sequence[str | Path], env: Mapping[str, str]) -> None:
    variables = environment() | env
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["-c", *map(str, words)]
    random.seed()
    np.random.seed()  # noqa: NPY002 - whoever draws from it
    torch.seed()
    torch.set_num_threads(1)


def call(function: Callable[..., Any], *given: Any, cwd: Path, seconds: float) -> Any:
    """Return what a function gives, called in a process of its own; none of its own survive it.

    Raises `RuntimeError` with the traceback where it failed.
    """
    with tempfile.TemporaryDirectory(prefix="call-") as folder:
        file = Path(folder, "result")

        def work() -> None:
            file.write_bytes(pickle.dumps(function(*given)))

        process = start(work, cwd, group=True)
        try:
            ended = process.wait(seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        if ended.code:
            raise RuntimeError(ended.err.strip() or f"ended with {ended.code}")
        return pickle.loads(file.read_bytes())  # noqa: S301 - our own child wrote it
