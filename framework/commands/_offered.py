"""Commands that plugins offer: `framework.command` names them, and they work by `Tools`.

A plugin of this kind is an attrs class without options that are needed. It has `example`, the end
of its help; `arguments(parser)`, which declares what it takes; and `execute(options, tools)`, which
does it and returns the exit code. A command of ours of the same name comes before it.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Collection
from typing import Any

from framework.commands import _installed
from framework.errors import UserError
from framework.registry import Offer, Registry


def summaries(named: str, ours: Collection[str]) -> dict[str, str]:
    """Return every offered command with a line of what it does; nothing is imported for it.

    One that is named with its distribution, `dist:name`, is among them.
    """
    offers = Registry().of_kind("command")
    found = {o.name: _summary(o) for o in offers if o.name not in ours}
    return found | ({named: ""} if ":" in named else {})


def _summary(offer: Offer) -> str:
    """Return the first line of its class's docstring, as our own lines are written."""
    words, broken = _installed.look(offer)
    return f"broken: {broken}" if broken else (words[:1].lower() + words[1:]).rstrip(".")


class Offered:
    """A plugin's command, in the form of a module of ours."""

    def __init__(self, name: str) -> None:
        """Import it; `UserError` where several offer it, or it is broken."""
        offer = Registry().find("command", name)
        cls = offer.load()
        try:
            self.command = cls()
        except (TypeError, ValueError) as error:
            owner = f"command '{offer.name}' of {offer.owner}"
            raise UserError(f"{owner} can't be made without options ({error})") from error
        self.EXAMPLE: str = getattr(self.command, "example", "")

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        self.command.arguments(parser)

    def execute(self, options: argparse.Namespace) -> int:
        """Do what it does."""
        # what loads models comes with it, and a command's help must not wait for that
        tools: Any = importlib.import_module("framework.commands._tools")
        code: int = self.command.execute(options, tools.Tools())
        return code
