"""What a run says, for its `run.log`, kept until there is one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

_logger = logging.getLogger("framework")


class _Buffer(MemoryHandler):
    """Keeps records until a file takes them."""

    def __init__(self) -> None:
        super().__init__(sys.maxsize, flushLevel=logging.CRITICAL + 1)

    def attach(self, path: Path) -> None:
        """Write what was kept to a file, and from now on everything at once."""
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.setTarget(file)
        self.capacity = 1
        self.flush()

    def close(self) -> None:
        """Close the file too."""
        file = self.target
        super().close()
        if file is not None:
            file.close()


@contextmanager
def buffered() -> Iterator[_Buffer]:
    """Keep what is said in this context for the run's log."""
    buffer = _Buffer()
    _logger.addHandler(buffer)
    try:
        yield buffer
    finally:
        _logger.removeHandler(buffer)
        buffer.close()
