"""Run folders that somebody else may have filled, or is filling."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framework.errors import UserError


def check(folder: Path) -> None:
    """Raise `UserError` for a link in a folder that leads out of it: nothing there is followed."""
    root = folder.resolve()
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(root):
            raise UserError(f"{path}: this link leads out of its folder; refused")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes from going on with this run; the lock ends with the process."""
    try:
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"{folder}: can't be written ({error.strerror})") from None
    with lock as stream:
        try:
            # unlike flock's, this lock isn't shared with worker processes that outlive a kill
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: this run is still going on in another process") from None
        yield
