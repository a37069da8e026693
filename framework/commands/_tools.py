"""What a plugin's command is given, so that it needs nothing of the core."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from framework.commands import _sets, _toml, terminal, trained
from framework.commands.trained import Predictor
from framework.config.structure import Structurer
from framework.errors import ExperimentError
from framework.registry import Registry


class Tools:
    """The tools of a command; each raises `UserError` for what a person got wrong."""

    def show_log(self) -> None:
        """Send the project's messages to the terminal."""
        terminal.show_log()

    @contextmanager
    def trained(self, run: str, sets: Sequence[str] = ()) -> Iterator[Predictor]:
        """Load a trained model: a run folder, a model's folder or address, `--set`s over it.

        It has `model`, the live model in evaluation mode; `forward`, which takes batches; `done`
        with the experiment and what the dataset said; and `rows(records)` as for predictions.
        """
        with tempfile.TemporaryDirectory() as scratch:
            yield Predictor(trained.finished(run, Path(scratch), sets))

    def part(self, kind: str, given: str | Mapping[str, Any], source: str) -> Any:
        """Return a plugin's options: of its name, of a table with `use`, or of its TOML.

        `source` is the argument that named it, for messages.
        """
        words = given if isinstance(given, str) else _toml.value(given)
        draft = _sets.parsed(f"{kind}={words}", source)
        structurer = Structurer(draft, Registry(), draft.problems)
        part = structurer.component(kind, draft.tree.get(kind, ""), (kind,))
        if structurer.problems or part is None:
            raise ExperimentError(structurer.problems)
        return part.options
