"""Documents of a retriever's test, kept for `search`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from framework.errors import RunError
from framework.hooks import hookimpl
from framework.state import State
from plugins import _index
from plugins._gaussian import Gaussians

_log = logging.getLogger("framework")
_SPLIT = "test"


@attrs.frozen
class Index:
    """Writes ids and Gaussians of the test's documents into the run, as its evaluation makes them.

    The test comes when the best weights are back in place, and so it is they that `search` asks.
    """

    def build(self) -> LiveIndex:
        """Build it."""
        return LiveIndex()


@attrs.define(eq=False)
class LiveIndex:
    """Looks at what the module returns, so that no document is encoded a second time."""

    once = True
    found: dict[str, tuple[Tensor, Tensor]] = attrs.field(factory=dict)
    handle: Any = None

    @hookimpl
    def evaluate_start(self, state: State, split: str) -> None:
        """Begin to look."""
        if split == _SPLIT:
            self.found.clear()
            module = state.model.module
            self.handle = module.register_forward_hook(self._take, with_kwargs=True)

    @hookimpl
    def evaluate_end(self, state: State, split: str) -> None:
        """Write what was seen, if there was a document; `RunError` for a disk that refuses."""
        if split != _SPLIT:
            return
        self._stop()
        if not self.found:
            return
        # as the metrics have them: of equal distances the greater id comes first
        names = sorted(self.found, reverse=True)
        rows = [self.found[name] for name in names]
        documents = Gaussians(*(torch.stack(column) for column in zip(*rows, strict=True)))
        file = state.folder / _index.NAME
        try:
            _index.Index(names, documents, _index.fingerprint(state.model)).write(file)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"{file}: can't write ({reason})") from None
        self.found.clear()

    @hookimpl
    def run_end(self, state: State) -> None:
        """Stop looking, also where an evaluation was interrupted; tell of no index."""
        self._stop()
        if state.status == "completed" and not (state.folder / _index.NAME).is_file():
            _log.warning("index: no document of a test split was met, so there is nothing for"
                         " 'search'; give the dataset a test, or drop the callback")  # fmt: skip

    def _stop(self) -> None:
        if self.handle is not None:
            self.handle.remove()
            self.handle = None

    def _take(
        self, _: nn.Module, __: Any, batch: Mapping[str, Any], outputs: Mapping[str, Tensor]
    ) -> None:
        wanted = zip(batch.get("queries", ()), batch.get("documents", ()), strict=True)
        for at, (query, document) in enumerate(wanted):
            if document and not query:
                mean_D, log_D = (outputs[k][at, 0] for k in ("mean", "log_variance"))
                self.found[document] = (mean_D.float().cpu(), log_D.float().cpu())
