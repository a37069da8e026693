"""Every logged point as a line of `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from framework.errors import RunError
from framework.hooks import hookimpl
from framework.state import State


@attrs.frozen
class Jsonl:
    """Writes each point to the run folder's `metrics.jsonl`; an undefined value is null."""

    def build(self) -> LiveJsonl:
        """Build it."""
        return LiveJsonl()


@attrs.define(eq=False)
class LiveJsonl:
    """Writes each line at once, so that every point is there whatever comes next.

    A checkpoint keeps the file's size: a run that goes on from it cuts off what came later.
    """

    once = True
    size: int = 0
    """Bytes of the points so far."""
    file: Path | None = None
    handle: int = -1
    """Open from the first point on: opening takes many times as long as writing."""

    @hookimpl
    def run_start(self, state: State) -> None:
        """Cut off the points behind the checkpoint that the run goes on from."""
        self.file = _file(state)
        there = self.file.stat().st_size if self.file.exists() else 0
        if there < self.size:
            told = f"{there} bytes, and the checkpoint knows of {self.size}; points are lost"
            raise RunError(f"{self.file}: {told}; restore it, or start a run of its own")
        if there > self.size:
            os.truncate(self.file, self.size)

    @hookimpl
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """Append a point."""
        defined = {k: v if math.isfinite(v) else None for k, v in point.items()}
        line = (json.dumps(defined, allow_nan=False) + "\n").encode()
        file = self.file or _file(state)
        try:
            if self.handle < 0:
                self.handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            while line:
                written = os.write(self.handle, line)
                line, self.size = line[written:], self.size + written
        except OSError as error:
            raise RunError(f"{file}: can't write ({error.strerror})") from None

    @hookimpl
    def run_end(self) -> None:
        """Close the file."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def state_dict(self) -> dict[str, Any]:
        """The size of the file, all of which is on the disk then."""
        if self.handle >= 0:
            os.fsync(self.handle)
        return {"size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a saved state."""
        self.size = state["size"]


def _file(state: State) -> Path:
    return state.folder / "metrics.jsonl"
