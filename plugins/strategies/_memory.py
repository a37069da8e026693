"""Memory of training on CPUs: kept between steps rather than given back and asked for again."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""What glibc's malloc.h calls them."""


def keep() -> None:
    """Have the C library keep freed memory for what comes next.

    Of itself it returns large blocks at once, and each step of a training asks for the same
    again: tens of thousands of page faults, which take 6 % of MiniLM's processor time, and 30 with
    a vocabulary of 150,000. Elsewhere than on Linux with glibc nothing is done. The most that was
    ever in use stays the process's.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "mallopt"):
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
