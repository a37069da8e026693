"""What a run says: to the terminal at once, and to `run.log` as soon as there is one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


class _Buffer(logging.Handler):
    """Keeps records until a file takes them."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.file: logging.FileHandler | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record, or pass it to the file."""
        if self.file is None:
            self.records.append(record)
        else:
            self.file.emit(record)

    def attach(self, path: Path) -> None:
        """Write what was kept to a file, and from now on everything."""
        self.file = logging.FileHandler(path, encoding="utf-8")
        self.file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        for record in self.records:
            self.file.emit(record)
        self.records.clear()

    def close(self) -> None:
        """Close the file."""
        if self.file is not None:
            self.file.close()
        super().close()


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
