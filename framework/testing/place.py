"""Where a plugin's class is defined."""

from __future__ import annotations

import inspect
import sys
from typing import Any


def place(cls: type[Any]) -> tuple[str, int]:
    """Return a class's file and line.

    The line is 0 where there is no source to count in, as of a compiled module or a class made
    at run time, and the file is empty where there is none either.
    """
    try:
        return inspect.getsourcefile(cls) or "", inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):
        return getattr(sys.modules.get(cls.__module__), "__file__", None) or "", 0
