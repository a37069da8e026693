"""Which process has taken up something, told so that another one can see whether it still lives."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEAT = 20.0
"""Seconds between two signs of life."""
GRACE = 180.0
"""Seconds without one after which a process of another machine is taken to be gone."""


def mine() -> dict[str, Any]:
    """Return what tells this process from every other, and its first sign of life."""
    return {"owner": [_place(), os.getpid(), _begun(os.getpid())], "alive": time.time()}


def gone(said: Mapping[str, Any]) -> bool:
    """Return whether the process that said this has ended, as far as can be known from here."""
    owner = said.get("owner")
    if not owner:
        return True  # it was killed before it could say who it is
    place, process, begun = owner
    if place and place == _place():
        return bool(_begun(process) != begun)
    return time.time() - float(said.get("alive", 0.0)) > GRACE


def _place() -> str:
    """Name the set of processes that this one can see; empty where the system doesn't tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it is no path
    except OSError:
        return ""


def _begun(process: int) -> str:
    """Return when a process began, in ticks since the boot; empty where there is none (a zombie).

    Ids are given again; together with this they aren't.
    """
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    # the name, in brackets, may hold anything
    fields = told.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
