"""Every logged point as a line of `metrics.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import attrs

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
    """Opens the file for each line, so that every point is there whatever comes next."""

    @hookimpl
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """Append a point."""
        defined = {k: v if math.isfinite(v) else None for k, v in point.items()}
        with (state.folder / "metrics.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(defined, allow_nan=False) + "\n")
