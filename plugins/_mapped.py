"""Files that are mapped into memory, of which no more stays there than is being read."""

from __future__ import annotations

import itertools
import mmap
import weakref
from pathlib import Path

_MANY = 1024
"""Records after which what was read is let go of: by then hundreds of megabytes may be resident,
for the system maps the pages around each that is touched."""
_FILES = weakref.WeakSet[mmap.mmap]()
_READS = itertools.count(1)


def mapped(file: Path) -> mmap.mmap:
    """Map a file that isn't empty, for reading."""
    with file.open("rb") as stream:
        found = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    _FILES.add(found)
    return found


def read() -> None:
    """Count a record that was read from such files; now and then, let go of all that was."""
    if next(_READS) % _MANY == 0:
        let_go()


def let_go() -> None:
    """Have no page of mapped files resident; what is read next may still be in the page cache."""
    if hasattr(mmap, "MADV_DONTNEED"):
        for file in _FILES:
            file.madvise(mmap.MADV_DONTNEED)
