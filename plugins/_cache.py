"""Entries of a cache on disk: built once, whole or not at all, and shared by processes.

An entry is a folder whose name is the digest of all that it was made of. It is built beside its
place and renamed, under a lock that ends with its process; a manifest, written last, says what its
files are. What is kept here may be private: only its owner may read it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import numpy as np
from numpy.typing import NDArray

from plugins._mapped import mapped

FAILURES = (OSError, NotImplementedError)
"""What a disk raises that can't keep an entry, or can't be locked."""
DAYS = 60
"""An entry that nobody has used for so long is removed when another is built."""
_ABANDONED = 86400
"""Seconds after which what was begun and never finished is removed, too."""
_MANIFEST = "manifest.json"
_BLOCK, _BLOCKS = 2**16, 64
"""What is read of a file to recognise it: all of it up to 4 MiB, else blocks spread over it."""
_log = logging.getLogger("framework")


def folder(option: Path | bool, kind: str) -> Path | None:  # noqa: FBT001 - as in the file
    """Return where entries of a kind lie, after an option `cache`; None: nowhere."""
    if not isinstance(option, bool):
        return option / kind
    base = os.environ.get("XDG_CACHE_HOME", "")
    # the standard wants a path that isn't absolute to be ignored
    root = Path(base) if os.path.isabs(base) else Path("~/.cache").expanduser()  # noqa: PTH117
    return root / "composable-nlp" / kind if option else None


def key(*parts: Any) -> str:
    """Return the name of what is made of these parts, as JSON."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def stamp(file: Path) -> list[Any]:
    """Return a file's size and a hash of blocks of it, by which damage and change are noticed."""
    size = file.stat().st_size
    found = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        for at in np.linspace(0, max(0, size - _BLOCK), _BLOCKS, dtype=np.int64).tolist():
            stream.seek(at)
            found.update(stream.read(_BLOCK))
    return [size, found.hexdigest()]


def create(file: Path) -> BinaryIO:
    """Open a new file for writing that nobody else may read."""
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


@attrs.frozen
class Entry:
    """What was kept."""

    folder: Path
    facts: dict[str, Any]
    """What its builder said of it, as JSON."""

    def array(self, name: str, dtype: Any) -> NDArray[Any]:
        """Map a file of numbers; nothing of it is in memory until it is used."""
        file = self.folder / name
        # a file without bytes can't be mapped
        empty = not file.stat().st_size
        return np.empty(0, dtype) if empty else np.frombuffer(mapped(file), dtype)


def opened(place: Path) -> Entry | None:
    """Return an entry that is whole; None where there is none, or a damaged one."""
    try:
        manifest = json.loads((place / _MANIFEST).read_bytes())
        files, facts = manifest["files"], manifest["facts"]
        if any(stamp(place / name) != known for name, known in files.items()):
            return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return Entry(place, facts)


def entry(root: Path, name: str, build: Callable[[Path], dict[str, Any]]) -> Entry:
    """Return an entry; where it isn't there whole, `build` fills a folder and gives its facts.

    Raises `OSError` or `NotImplementedError` where the disk can't keep it.
    """
    from filelock import FileLock

    place = root / name
    found = opened(place)
    if found is None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(root / f"{name}.lock", mode=0o600):
            # another process may have built it meanwhile
            found = opened(place) or _built(place, build)
        _prune(root, keep=name)
    with contextlib.suppress(OSError):  # it may be another's, or the disk may refuse
        os.utime(place / _MANIFEST)
    return found


def _built(place: Path, build: Callable[[Path], dict[str, Any]]) -> Entry:
    for left in place.parent.glob(f".{place.name}.*"):
        shutil.rmtree(left, ignore_errors=True)  # of a process that died
    part = place.with_name(f".{place.name}.{secrets.token_hex(4)}")
    try:
        part.mkdir(mode=0o700)
        facts = build(part)
        manifest = {"files": {file.name: stamp(file) for file in part.iterdir()}, "facts": facts}
        with create(part / _MANIFEST) as stream:
            stream.write(json.dumps(manifest).encode())
        for file in part.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Entry(place, facts)


def _prune(root: Path, keep: str) -> None:
    """Remove entries that nobody has used for long, or finished, and nothing else."""
    for old in root.iterdir():
        half = re.fullmatch(r"\.[0-9a-f]{64}\.[0-9a-f]+", old.name)
        try:
            last = (old if half else old / _MANIFEST).stat().st_mtime
        except OSError:
            continue
        if half and time.time() - last > _ABANDONED:
            shutil.rmtree(old, ignore_errors=True)
        unused = time.time() - last > DAYS * 86400
        if unused and old.name != keep and re.fullmatch("[0-9a-f]{64}", old.name):
            shutil.rmtree(old, ignore_errors=True)
            old.with_name(f"{old.name}.lock").unlink(missing_ok=True)


def reason(error: Exception) -> str:
    """Say in a few words why a disk can't keep an entry."""
    return getattr(error, "strerror", None) or type(error).__name__


@functools.cache
def warn(root: Path, why: str, instead: str) -> None:
    """Say, once in a process, that a folder can't be used as a cache."""
    _log.warning(
        "%s: can't be written (%s): %s; name another folder with the option 'cache', or set it to"
        " false",
        root,
        why,
        instead,
    )
