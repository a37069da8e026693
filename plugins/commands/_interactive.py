"""A conversation with a language model at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import attrs

from framework.errors import RunError, UserError
from plugins._language import Decode, Generative
from plugins.commands._choice import TOKENS, check, chosen
from plugins.commands._generation import Limits, Text, generate, started

HELP = """\
What you write is a prompt; \\n in it is a line break. Ctrl+C ends a text, Ctrl+D or /quit the
conversation. /set KEY=VALUE changes one of {keys}; without a value it is as if not given.
Of stop every blank behind the = counts.
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

    console = Console(highlight=False, emoji=False)
    conversation = _Conversation(model, dict(given), tools, console)
    conversation.help()
    while True:
        try:
            said = console.input("[bold]> [/]")
            if said.strip() == "/quit":
                return 0
            conversation.take(said)
        except KeyboardInterrupt:
            console.print("\n/quit or Ctrl+D leaves")
        except EOFError:
            console.print()
            return 0
        except (UserError, RunError) as error:
            console.print(str(error), markup=False, style="red")


@attrs.define
class _Conversation:
    """The settings of the moment, and how many prompts there were."""

    model: Generative
    settings: dict[str, Any]
    tools: Any
    console: Any
    turn: int = 0

    def help(self) -> None:
        """Say what can be written."""
        self.console.print(HELP.format(keys=", ".join(_KEYS)), markup=False)

    def take(self, said: str) -> None:
        """Do what was written; `UserError` or `RunError` where that can't be."""
        command, _, rest = said.lstrip().partition(" ")
        command = command.rstrip()
        if command == "/set":
            self.settings = changed(self.settings, rest, self.tools)
        elif command.startswith("/"):
            self.help()
        elif said:
            self.turn += 1
            prompt = said.replace("\\n", "\n")
            settings = self.settings
            limits = Limits(settings["max_tokens"], self.model.context, settings["stop"])
            (text,) = started(self.model, [prompt], limits, [settings["seed"], self.turn])
            self._answer(text, chosen(settings, self.tools))

    def _answer(self, text: Text, decode: Decode) -> None:
        """Show a text as it comes, and why it ended; Ctrl+C ends it, and nothing else."""
        self._show(text.prompt, style="bold")
        shown = 0
        try:
            for _ in generate(self.model, [text], decode):
                sure = text.sure()
                self._show(sure[shown:])
                shown = len(sure)
        except KeyboardInterrupt:
            text.reason = "interrupted"
            self._show(text.text[shown:])
        self._show(f"\nended: {text.reason}\n", style="dim")

    def _show(self, words: str, style: str = "") -> None:
        from rich.segment import Segment, Segments

        # as it is: of text, rich changes tabs, carriage returns and names of emoji
        exact = Segments([Segment(words, self.console.get_style(style) if style else None)])
        self.console.print(exact, end="", soft_wrap=True)


def changed(settings: Mapping[str, Any], words: str, tools: Any) -> dict[str, Any]:
    """Return the settings with one of them changed; `UserError` for what can't be."""
    key, _, text = words.partition("=")
    key, value = key.strip().replace("-", "_"), text.strip()
    if key not in _KEYS:
        raise UserError(f"/set: there is no '{key}'; it knows {', '.join(_KEYS)}")
    try:
        new = _KEYS[key](value) if value else {"max_tokens": TOKENS, "seed": 0}.get(key)
    except ValueError:
        raise UserError(f"/set: '{value}' is no value of {key}") from None
    if key == "stop":
        new = [text.replace("\\n", "\n")] if text else []
    found = {**settings, key: new}
    check(found)
    chosen(found, tools)
    return found
