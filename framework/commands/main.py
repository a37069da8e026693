"""What every command shares: its table, its arguments, and how it ends."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from framework import __version__
from framework.commands import _offered, terminal
from framework.errors import RunError, UserError, fault

MESSAGES = "FRAMEWORK_MESSAGES"
"""The variable that has the words of errors printed that aren't ours."""

COMMANDS: Mapping[str, str] = {
    "run": "train an experiment and test it",
    "validate": "check an experiment without running it",
    "check": "prove by a few steps that a training is sound",
    "plugins": "list the plugins that are installed",
    "schema": "write the JSON Schema of an experiment, for editors",
    "new-plugin": "write a package with a plugin of your own",
    "evaluate": "evaluate a trained model on a split of its dataset",
    "predict": "predict the records of a file with a trained model",
    "tune": "search the options of an experiment for the best",
    "sync": "deliver what a run's tracking has missed",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 failed, 2 a mistake of the user's."""
    parser = argparse.ArgumentParser(
        prog="python -m framework",
        description="Train NLP models from composable parts, named in one TOML file.",
        epilog="example: python -m framework run experiments/tiny_bert.toml",
    )
    parser.add_argument("--version", action="version", version=f"composable-nlp {__version__}")
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace()
    code: int = 0
    try:
        _declare(parser, next((word for word in words if not word.startswith("-")), ""))
        options = parser.parse_args(words)
        with terminal.reader_may_leave():
            code = options.execute(options)
            sys.stdout.flush()
    except (UserError, RunError) as error:
        if error.__cause__ is not None and isinstance(error, RunError):
            _trace(error.__cause__)
        terminal.tell(error, as_json=getattr(options, "json", False))
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises
        _trace(error)
        return 1
    return code


def _declare(parser: argparse.ArgumentParser, named: str) -> None:
    """Declare every command, ours before those of plugins, and what the named one takes."""
    commands = parser.add_subparsers(dest="command", metavar="COMMAND [ARGUMENTS]", required=True)
    # looking for plugins takes a while, which ours needn't wait for
    others = {} if named in COMMANDS else _offered.summaries(named, COMMANDS)
    for name, summary in {**COMMANDS, **others}.items():
        command = commands.add_parser(name, help=summary, description=summary)
        if name != named:
            continue
        # only the command that was asked for is imported: `--help` stays instant
        module: Any = (
            _offered.Offered(name)
            if name in others
            else importlib.import_module(f"framework.commands.{name.replace('-', '_')}")
        )
        command.epilog = module.EXAMPLE
        module.arguments(command)
        command.set_defaults(execute=module.execute)


def _trace(error: BaseException) -> None:
    """Print where an error was raised, but not its words: they may quote a record."""
    if MESSAGES in os.environ:
        traceback.print_exception(error)
        return
    while error.__cause__ or (error.__context__ and not error.__suppress_context__):
        error = error.__cause__ or error.__context__ or error
    traceback.print_tb(error.__traceback__)
    print(f"{fault(error)}; for its words, which may hold texts: {MESSAGES}=1", file=sys.stderr)
