"""What the arguments of `generate` mean, given at its start or during a conversation."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from framework.errors import UserError
from plugins._language import Decode

_log = logging.getLogger("framework")
TOKENS = 200
"""That are generated unless something else is said."""


def chosen(options: Mapping[str, Any], tools: Any) -> Decode:
    """Build the decoding: the one that is named, else top-k or top-p, temperature, greedy.

    Raises `UserError` for values that it can't have.
    """
    given = {name: options[name] for name in ("top_k", "top_p", "temperature")}
    given = {name: value for name, value in given.items() if value is not None}
    if options["decoding"]:
        if given:
            _log.warning("a decoding is named: %s doesn't count", ", ".join(given))
        part = tools.part("decoding", options["decoding"], "--decoding")
    elif {"top_k", "top_p"} <= given.keys():
        raise UserError("give --top-k or --top-p, not both")
    elif given:
        name, value = next(iter(given.items()))
        table = {name.removeprefix("top_"): value, "use": name}
        heat = {k: v for k, v in given.items() if k == "temperature"}
        part = tools.part("decoding", table | heat, f"--{name.replace('_', '-')}")
    else:
        part = tools.part("decoding", "greedy", "--decoding")
    found: Decode = part.build()
    return found


def check(options: Mapping[str, Any]) -> None:
    """Raise `UserError` for limits that can't be."""
    if options["max_tokens"] < 1:
        raise UserError(f"--max-tokens is {options['max_tokens']}; it must be at least 1")
    if "" in options["stop"]:
        raise UserError("--stop is empty; every text would end at once")
    if options["seed"] < 0:
        raise UserError(f"--seed is {options['seed']}; it must be at least 0")
