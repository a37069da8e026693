"""A Hypothesis profile, real commands, and a small experiment, for every test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from support import ROOT, TINY, Command, environment

# the same examples every time, and no deadline: a busy machine is no defect
hypothesis.settings.register_profile("project", derandomize=True, deadline=None)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `python -m framework …` as a process of its own."""

    def call(*words: str | Path, cwd: Path, **settings: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "framework", *map(str, words)],
            cwd=cwd,
            env=environment() | settings.pop("env", {}),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            stdin=subprocess.DEVNULL,
            **settings,
        )

    return call


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A file that trains a one-layer BERT for twenty steps on the shipped corpus."""
    file = tmp_path / "tiny.toml"
    file.write_text(TINY.replace("ROOT", str(ROOT)), encoding="utf-8")
    return file
