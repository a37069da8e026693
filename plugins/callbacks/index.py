"""Documents of a retriever's test, kept for `search`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from framework.errors import RunError
from framework.hooks import hookimpl
from framework.protocols import option
from framework.state import State
from plugins import _index
from plugins._gaussian import Gaussians

_log = logging.getLogger("framework")


@attrs.frozen
class Index:
    """Writes ids and Gaussians of a split's documents into the run, as its evaluation makes them.

    The test comes when the best weights are back in place, and so it is they that `search` asks.
    """

    split: str = option("test", help="the split whose documents are searched")

    def build(self) -> LiveIndex:
        """Build it."""
        return LiveIndex(self.split)


@attrs.define(eq=False)
class LiveIndex:
    """Looks at what the module returns, so that no document is encoded a second time."""

    once = True
    split: str
    found: dict[str, tuple[Tensor, Tensor]] = attrs.field(factory=dict)
    handle: Any = None

    @hookimpl
    def evaluate_start(self, state: State, split: str) -> None:
        """Begin to look."""
        if split == self.split:
            self.found.clear()
            module = state.model.module
            self.handle = module.register_forward_hook(self._take, with_kwargs=True)

    @hookimpl
    def evaluate_end(self, state: State, split: str) -> None:
        """Write what was seen, if there was a document; `RunError` for a disk that refuses."""
        if split != self.split:
            return
        self._stop()
        if not self.found:
            _log.warning("index: '%s' has no document to index; drop the callback 'index'", split)
            return
        # as the metrics have them: of equal distances the greater id comes first
        names = sorted(self.found, reverse=True)
        rows = [self.found[name] for name in names]
        documents = Gaussians(*(torch.stack(column) for column in zip(*rows, strict=True)))
        weights = _index.fingerprint(state.model.module)
        file = state.folder / _index.NAME
        try:
            _index.Index(names, documents, weights).write(file)
        except OSError as error:
            raise RunError(f"{file}: can't write ({error.strerror})") from None
        self.found.clear()

    @hookimpl
    def run_end(self) -> None:
        """Stop looking, also where an evaluation was interrupted."""
        self._stop()

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
