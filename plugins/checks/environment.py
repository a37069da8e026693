"""Check environment: what a run depends on besides the experiment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import attrs

from plugins.checks._records import examples

_KEPT = 4
"""Checkpoints that lie on the disk at once: best, last, the one before, the one being written."""
_STATES = 3
"""What a checkpoint holds of a weight: itself, and the optimizer's two."""


@attrs.frozen
class EnvironmentCheck:
    """Versions are those of the last run, checkpoints have room, the tracking server answers."""

    area = "environment"
    free = True

    def observe(self, probe: Any) -> None:
        """Look around."""
        if not probe.given:  # a run writes them down itself
            _versions(probe)
            _git(probe)
            _reached(probe)
        _room(probe)


def _versions(probe: Any) -> None:
    """Compare packages with those of the experiment's newest run here."""
    row, last = "versions", _last(Path.cwd() / "runs" / probe.experiment.name)
    if last is None:
        probe.skips(row, "no run of this name is here yet")
        return
    before: Mapping[str, str] = last[1].get("packages", {})
    changed = []
    for name, then in before.items():
        try:
            now = version(name)
        except PackageNotFoundError:
            now = "none"
        if now != then:
            changed.append(f"{name} {then} → {now}")
    if changed:
        told = f"{len(changed)} packages changed since {last[0]}: {examples(changed)}"
        probe.warns(row, told, "results may differ from that run's; install its versions to repeat")
    else:
        probe.passes(row, f"{len(before)} packages are those of {last[0]}")


def _last(folder: Path) -> tuple[str, dict[str, Any]] | None:
    """Return name and record of the newest run in a folder."""
    for file in sorted(folder.glob("*/environment.json"), reverse=True):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return file.parent.name, found
    return None


def _git(probe: Any) -> None:
    row = "git"
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - fixed words
                ["git", *words],  # noqa: S607 - whichever git the person uses
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            ).stdout.split("\n")
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.SubprocessError):
        probe.skips(row, "this folder is in no git repository")
        return
    count = len([line for line in changes if line])
    state = f"{count} files changed since" if count else "nothing changed since"
    probe.passes(row, f"commit {commit[0][:12]}, {state}")


def _room(probe: Any) -> None:
    """Hold the disk's free bytes against what checkpoints take."""
    row, here = "room for checkpoints", Path.cwd()
    module = probe.trainer.update.forward.module
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    stepped = sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    needed = _KEPT * (weights + (_STATES - 1) * stepped)
    free = shutil.disk_usage(here).free
    shown = f"some {_told(needed)} for {_KEPT} of them, {_told(free)} are free in {here.name}"
    if not os.access(here, os.W_OK):
        probe.fails(row, f"{here}: can't be written", "run in a folder of your own")
    elif free < needed:
        probe.fails(row, shown, "free some room, or run on another disk")
    elif free < 2 * needed:
        probe.warns(row, shown, "free some room: other files grow, too")
    else:
        probe.passes(row, shown)


def _told(size: int) -> str:
    """Return a number of bytes in words."""
    units = ("B", "kB", "MB", "GB", "TB")
    at = min(len(units) - 1, max(0, (len(str(size)) - 1) // 3))
    return f"{size / 1000**at:.3g} {units[at]}"


def _reached(probe: Any) -> None:
    """Ask callbacks that deliver to a server whether it answers."""
    row = "tracking server"
    found = {
        label: callback.reached()
        for label, callback in probe.hooks.callbacks.items()
        if hasattr(callback, "reached")
    }
    lost = [f"{label}: {words}" for label, (there, words) in found.items() if not there]
    if not found:
        probe.skips(row, "no callback delivers to one")
    elif lost:
        probe.fails(row, "; ".join(lost), "start it, or mend the address; sync delivers later")
    else:
        probe.passes(row, "; ".join(f"{label}: {words}" for label, (_, words) in found.items()))
