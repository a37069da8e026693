"""A conversation with a language model at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from framework.errors import RunError, UserError
from plugins._language import Generative
from plugins.commands._choice import TOKENS, check, chosen
from plugins.commands._generation import Limits, Text, generate, started

HELP = """\
What you write is a prompt; \\n in it is a line break. Ctrl+C ends a text, Ctrl+D or /quit the
conversation. /set KEY=VALUE changes one of {keys}; without a value it is as if not given.
"""
_KEYS = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "decoding": str,
    "stop": str,
    "max_tokens": int,
    "seed": int,
}


def talk(model: Generative, given: Mapping[str, Any], tools: Any) -> int:
    """Ask for prompts and go on with each, until there are no more."""
    from rich.console import Console

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - it gives the prompt its history

    console, settings, turn = Console(highlight=False), dict(given), 0
    console.print(HELP.format(keys=", ".join(_KEYS)), markup=False)
    while True:
        try:
            said = console.input("[bold]> [/]")
        except KeyboardInterrupt:
            console.print("\n/quit or Ctrl+D leaves")
            continue
        except EOFError:
            console.print()
            return 0
        command, _, rest = said.strip().partition(" ")
        if command == "/quit":
            return 0
        try:
            if command == "/set":
                settings = changed(settings, rest.strip(), tools)
            elif command.startswith("/"):
                console.print(HELP.format(keys=", ".join(_KEYS)), markup=False)
            elif said:
                turn += 1
                prompt = said.replace("\\n", "\n")
                limits = Limits(settings["max_tokens"], model.context, settings["stop"])
                (text,) = started(model, [prompt], limits, [settings["seed"], turn])
                _answer(model, text, chosen(settings, tools), console)
        except (UserError, RunError) as error:
            console.print(str(error), markup=False, style="red")


def _answer(model: Generative, text: Text, decode: Any, console: Any) -> None:
    """Show a text as it comes, and why it ended."""
    shown = 0

    def show() -> None:
        nonlocal shown
        sure = text.sure()
        console.print(sure[shown:], end="", markup=False, soft_wrap=True)
        shown = max(shown, len(sure))

    console.print(text.prompt, end="", markup=False, soft_wrap=True, style="bold")
    try:
        for _ in generate(model, [text], decode):
            show()
    except KeyboardInterrupt:
        text.reason = "interrupted"
        show()
    console.print(f"\n[dim]ended: {text.reason}[/]")


def changed(settings: Mapping[str, Any], words: str, tools: Any) -> dict[str, Any]:
    """Return the settings with one of them changed; `UserError` for what can't be."""
    key, _, value = (part.strip() for part in words.partition("="))
    key = key.replace("-", "_")
    if key not in _KEYS:
        raise UserError(f"/set: there is no '{key}'; it knows {', '.join(_KEYS)}")
    try:
        new = _KEYS[key](value) if value else {"max_tokens": TOKENS, "seed": 0}.get(key)
    except ValueError:
        raise UserError(f"/set: '{value}' is no value of {key}") from None
    if key == "stop":
        new = [value.replace("\\n", "\n")] if value else []
    found = {**settings, key: new}
    check(found)
    chosen(found, tools)
    return found
