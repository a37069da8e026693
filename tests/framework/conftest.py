"""What the tests of the core share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from resuming import LAST, SEVERAL, checkpoints_of, interrupt, process


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: hundreds of runs wait for no disk."""
    if not os.access("/dev/shm", os.W_OK):  # noqa: S108 - made unique below
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted with several checkpoints in its folder."""
    folder = tmp_path_factory.mktemp("run") / "run"
    process(folder, SEVERAL, LAST, interrupt)
    assert len(checkpoints_of(folder)) >= 3
    return folder
