"""`python -m framework COMMAND`."""

from __future__ import annotations

import sys

from framework.commands.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]

if __name__ == "__main__":
    sys.exit(main())
