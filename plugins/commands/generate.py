"""`generate RUN --prompt TEXT`."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

import attrs

from framework.errors import UserError, listing
from plugins._language import Generative
from plugins.commands._choice import TOKENS, check, chosen
from plugins.commands._generation import Limits, generate, started
from plugins.commands._interactive import talk


@attrs.frozen
class Generate:
    """Go on with a text by a trained language model."""

    example = (
        "example: python -m framework generate runs/char-lm/20261121T101500Z-1a2b3c"
        " --prompt ROMEO: --temperature 0.8"
    )

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add = parser.add_argument
        add("run", help="a run folder, or a model's address (models:/name@alias)")
        add("--prompt", action="append", default=[], help="a text to go on with; may be repeated")
        add("--prompt-file", type=Path, help="a file whose whole text is a prompt, too")
        add("--interactive", action="store_true", help="ask for prompts; /help there says more")
        add("--temperature", type=float, help="draw tokens; below 1 likely ones more often")
        add("--top-k", type=int, help="draw among the k likeliest tokens")
        add("--top-p", type=float, help="draw among the likeliest that have probability p")
        add("--decoding", metavar="PLUGIN", help="a name, or {use=…}; the others then don't count")
        add("--stop", action="append", default=[], metavar="TEXT", help="end before this text")
        add("--max-tokens", type=int, default=TOKENS, help=f"end after so many ({TOKENS})")
        add("--seed", type=int, default=0, help="of what is drawn; the same seed, the same text")
        add("--set", action="append", default=[], metavar="KEY=VALUE", help="change the experiment")
        add("--json", action="store_true", help="print objects with text, reason and tokens")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Generate and print: prompt and text on stdout, the reason for the end on stderr."""
        tools.show_log()
        decode = chosen(vars(options), tools)
        check(vars(options))
        prompts = [*options.prompt, *_from_file(options.prompt_file)]
        given = [
            f"--{k}"
            for k in ("prompt", "prompt-file", "json")
            if vars(options)[k.replace("-", "_")]
        ]
        if options.interactive and given:
            raise UserError(
                f"--interactive asks for prompts and shows texts; leave out {listing(given)}"
            )
        if not (prompts or options.interactive):
            raise UserError("there is nothing to go on with; give --prompt, or --interactive")
        with tools.trained(options.run, options.set) as trained:
            model = generative(trained.model, options.run)
            if options.interactive:
                return talk(model, vars(options), tools)
            limits = Limits(options.max_tokens, model.context, options.stop)
            texts = started(model, prompts, limits, [options.seed])
            for _ in generate(model, texts, decode):
                pass
        if options.json:
            found = [
                {"prompt": t.prompt, "text": t.text, "reason": t.reason, "tokens": len(t.ids)}
                for t in texts
            ]
            print(json.dumps(found, indent=1))
            return 0
        for text in texts:
            print(text.prompt + text.text, flush=True)
            print(f"ended: {text.reason}", file=sys.stderr)
        return 0


def generative(model: Any, run: str) -> Generative:
    """Return a live model that can generate; `UserError` for another."""
    lacking = [name for name in ("tokenizer", "context", "reader") if not hasattr(model, name)]
    if lacking:
        raise UserError(f"{run}: its model can't generate text: it has no {', '.join(lacking)}")
    found: Generative = model
    return found


def _from_file(file: Path | None) -> list[str]:
    """Read a prompt as it stands, without a mark of byte order and the line break at its end.

    A file that holds nothing else keeps that.
    """
    try:
        text = "" if file is None else file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text (byte {error.start + 1})") from None
    except OSError as error:
        raise UserError(f"{file}: can't be read ({error.strerror})") from None
    return [] if file is None else [re.sub(r"\r?\n\Z", "", text) or text]
