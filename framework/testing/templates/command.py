"""A command that counts a model's parameters."""

from __future__ import annotations

import argparse
from typing import Any

import attrs


@attrs.frozen
class Template:
    """Print how many parameters a trained model has."""

    example = "example: python -m framework COMMAND runs/NAME/TIME"

    def arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare what stands on the command line."""
        parser.add_argument("run", help="a run folder, or a model's address")

    def execute(self, options: argparse.Namespace, tools: Any) -> int:
        """Do it, and return the exit code; `tools` loads models and makes plugins by name."""
        with tools.trained(options.run) as trained:
            print(sum(p.numel() for p in trained.model.module.parameters()))
        return 0
