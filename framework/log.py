"""What a run says: to the terminal at once, and to `run.log` as soon as there is one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO

_logger = logging.getLogger("framework")


class _Terminal(logging.StreamHandler[TextIO]):
    """Writes to whatever `sys.stderr` is now, so that a live line can move it aside."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record to the stream of this moment."""
        self.stream = sys.stderr
        super().emit(record)


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


def to_terminal() -> None:
    """Send the project's messages to the terminal; called once, by the command line."""
    handler = _Terminal()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.setLevel(logging.INFO)
    _logger.addHandler(handler)
    _logger.setLevel(logging.DEBUG)
    _logger.propagate = False


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
