"""`--set KEY=VALUE`, as a layer over an experiment."""

from __future__ import annotations

from pathlib import Path

from framework.commands import _toml
from framework.config.merge import Draft, Origin, parse, unread


def parsed(argument: str, source: str = "--set") -> Draft:
    """Parse `K=V`: V is a TOML value of one line, or, where it isn't one, a string.

    `source` is what it was given by, for messages.
    """
    key, equals, value = argument.partition("=")
    origin = Origin(source, Path.cwd(), argument)
    if not (key.strip() and equals) or "\n" in key or key.lstrip().startswith("#"):
        return unread(origin.problem("expected KEY=VALUE, as in --set loss.gamma=3"))
    draft = parse(argument, origin)
    if draft.problems or "\n" in value:
        return parse(f"{key}={_toml.value(value.strip())}", origin)
    return draft
