"""Small and read-only file systems, in a name space of this process and its children."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_NEWNS, _NEWUSER = 0x20000, 0x10000000
_RDONLY, _REMOUNT, _PRIVATE = 1, 32, 0x44000
_libc = ctypes.CDLL(None, use_errno=True)


def possible() -> bool:
    """Enter a name space where this process may mount; False where the machine refuses.

    What is mounted goes with the last process in it.
    """
    who, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEWNS) and _libc.unshare(_NEWUSER | _NEWNS):
        return False
    if os.getuid() != who:  # as nobody, until the name space knows who that is
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {who} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return not _libc.mount(None, b"/", None, _PRIVATE, None)


def mount(folder: Path, size: int) -> None:
    """Mount a file system of so many bytes, in memory; `OSError` where that fails."""
    _called(_libc.mount(b"none", bytes(folder), b"tmpfs", 0, f"size={size}".encode()))


def close(folder: Path) -> None:
    """Let nothing be written to a file system any more."""
    _called(_libc.mount(b"none", bytes(folder), b"tmpfs", _REMOUNT | _RDONLY, None))


def _called(failed: int) -> None:
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
