"""Mapped files: what was read of them does not stay in memory."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from plugins._mapped import mapped, read

SIZE = 2**25


def resident() -> int:
    """Bytes of files that are resident in this process."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_what_was_read_is_let_go_of(tmp_path: Path) -> None:
    """After a thousand records no page that was touched is resident; all of it is still there."""
    numbers = np.arange(SIZE // 4, dtype=np.int32)
    numbers.tofile(tmp_path / "numbers")
    found = np.frombuffer(mapped(tmp_path / "numbers"), np.int32)
    before = resident()
    assert np.array_equal(found, numbers)
    assert resident() - before > 0.9 * SIZE
    for _ in range(2000):
        read()
    assert resident() - before < 0.1 * SIZE
    assert np.array_equal(found, numbers)
    assert not found.flags.writeable
