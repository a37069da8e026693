"""Where a study is kept: a journal beside the runs, or a database; and the lock that guards it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any

import attrs
import filelock
import optuna
from optuna.storages.journal import JournalFileBackend

from framework.commands._search import Plan
from framework.errors import UserError

CREATION = 120.0
"""Seconds to wait for another process that creates the tables of a database."""
_TRIES = 5
Lock = Callable[[], AbstractContextManager[Any]]


@attrs.define
class JournalLock:
    """The lock of the journal; it ends with its process, and what that wrote half is removed."""

    file: Path
    stream: IO[str] | None = None

    def acquire(self) -> bool:
        """Wait for it."""
        self.stream = self.file.with_name(f"{self.file.name}.lock").open("w", encoding="ascii")
        fcntl.lockf(self.stream, fcntl.LOCK_EX)
        _mend(self.file)
        return True

    def release(self) -> None:
        """Let others have it."""
        assert self.stream is not None
        self.stream.close()


def _mend(file: Path) -> None:
    """Cut off a line that a killed process hasn't ended: the next one would be lost with it."""
    with file.open("r+b") as stream:
        end = stream.seek(0, os.SEEK_END)
        if not end or (stream.seek(end - 1), stream.read(1))[1] == b"\n":
            return
        stream.seek(0)
        stream.truncate(stream.read().rfind(b"\n") + 1)


def opened(plan: Plan, name: str, folder: Path) -> tuple[Any, Lock]:
    """Open the storage, and return the lock under which trials are taken."""
    uri, local = plan.search.storage, filelock.FileLock(folder / ".taking.lock")
    if uri == "journal":
        file = folder / "journal.log"
        backend = JournalFileBackend(str(file), JournalLock(file))
        return optuna.storages.JournalStorage(backend), lambda: local
    if uri.startswith("sqlite:///"):
        file = plan.folder / uri.removeprefix("sqlite:///")
        file.parent.mkdir(parents=True, exist_ok=True)
        local = filelock.FileLock(f"{file}.lock", timeout=CREATION)
        with local:
            return _database(f"sqlite:///{file}"), lambda: local
    storage = _database(uri)
    return storage, lambda: _server_lock(storage, name)


def _database(uri: str) -> Any:
    """Open a database; another machine may be making its tables at the moment."""
    import sqlalchemy

    shown = sqlalchemy.make_url(uri).render_as_string(hide_password=True)
    for left in reversed(range(_TRIES)):
        try:
            # a writer waits for the others
            arguments = {"timeout": CREATION} if uri.startswith("sqlite") else {}
            return optuna.storages.RDBStorage(uri, engine_kwargs={"connect_args": arguments})
        except ImportError as error:
            wanted = getattr(error, "name", None) or "its driver"
            raise UserError(f"{shown}: needs the package {wanted}; install it") from None
        except Exception as error:  # noqa: BLE001 - drivers have errors of their own
            if uri.startswith("sqlite") or not left:
                reason = type(getattr(error, "orig", None) or error).__name__
                raise UserError(f"{shown}: can't be opened ({reason})") from None
            time.sleep(1.0)
    raise AssertionError


@contextmanager
def _server_lock(storage: Any, name: str) -> Iterator[None]:
    """Hold the server's own lock of a study's name: other machines share no file with this one."""
    import sqlalchemy

    words = {
        "postgresql": ("SELECT pg_advisory_lock(hashtext(:n))", "pg_advisory_unlock(hashtext(:n))"),
        "mysql": ("SELECT GET_LOCK(:n, -1)", "RELEASE_LOCK(:n)"),
    }
    take, leave = words[storage.engine.dialect.name]
    # MySQL takes 64 characters
    given = {"n": f"composable-nlp {name}"[:64]}
    with storage.engine.connect() as connection:
        connection.execute(sqlalchemy.text(take), given)
        try:
            yield
        finally:
            connection.execute(sqlalchemy.text(f"SELECT {leave}"), given)
