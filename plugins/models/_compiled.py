"""A network that torch compiles for a few lengths of batches, or that runs as it was.

A graph is compiled for each length, in training and in evaluation; the number of rows may be any.
So batches are padded to the next of a few lengths, outside of the graph, and what is compiled is a
handful. Where something can't be compiled nothing of the attempt is kept: the network goes on as if
it had never been asked.
"""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from plugins.models import _cpu

LENGTHS = 6
"""How many lengths batches are padded to at most."""
_LIMIT = 64
"""Graphs that all networks of an architecture may have in a process; torch's own 8 are too few."""
_log = logging.getLogger("framework")


def lengths(most: int) -> list[int]:
    """Return the lengths: `most`, and its halves, quarters, …, each rounded up to eights."""
    halves = (-(-most // 2**power) for power in range(LENGTHS))
    return sorted({min(most, -(-half // 8) * 8) for half in halves})


@attrs.define(eq=False)
class Compiled:
    """A network of transformers, compiled whole when it is first called with a length."""

    net: Any
    mode: str
    most: int
    """The longest batch, in tokens."""
    padding: int
    """The id of padding."""
    run: Any = None
    """None: it is not compiled, any more."""

    def __attrs_post_init__(self) -> None:
        """Take out what is not torch's own, which can't be compiled."""
        _cpu.restore(self.net)
        # a part that has no graph fails here, and does not run beside the others
        settings: dict[str, Any] = {"mode": self.mode, "fullgraph": True, "dynamic": False}
        self.run = torch.compile(self.net, **settings)

    def __call__(self, given: Mapping[str, Tensor]) -> Tensor:
        """Return the logits [B, C] of `input_ids`, `attention_mask` and what else is [B, T]."""
        from torch._dynamo.exc import TorchDynamoException
        from torch.distributed.tensor import DTensor

        if self.run is None:
            return _logits(self.net, given)
        device = given["input_ids"].device
        before = _randomness(device)
        try:
            with _settings():
                return _logits(self.run, self._padded(given))[: len(given["input_ids"])]
        except TorchDynamoException as error:
            self.run, reason = None, _sentence(str(error))
        if any(isinstance(parameter, DTensor) for parameter in self.net.parameters()):
            reason = "ranks share the layers out (strategy 'fsdp'), which can't be compiled"
        _log.warning("trainer.compile: %s; going on without it", reason)
        _cpu.quicken(self.net)
        _set_randomness(device, before)
        return _logits(self.net, given)

    def _padded(self, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return tensors of one of the lengths, and of at least two rows."""
        from torch._dynamo import maybe_mark_dynamic

        rows, length = given["input_ids"].shape
        room = next(many for many in lengths(self.most) if many >= length) - length
        found = {}
        for name, values_BT in given.items():
            fill = self.padding if name == "input_ids" else 0
            padded_BT = nn.functional.pad(values_BT, (0, room), value=fill)
            # to a graph of any number of rows, a single one would be another case
            found[name] = padded_BT if rows > 1 else padded_BT.repeat(2, 1)
            maybe_mark_dynamic(found[name], 0)
        return found


def _logits(run: Any, given: Mapping[str, Tensor]) -> Tensor:
    found: Tensor = run(**given).logits
    return found


def _settings() -> ExitStack:
    """Return the compiler's settings for a call."""
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch

    stack = ExitStack()
    # transformers' warnings, that are not shown anyway, have no place in a graph
    silent = {logging.Logger.warning, getattr(logging.Logger, "warning_once", None)}
    stack.enter_context(dynamo.patch(recompile_limit=_LIMIT, ignore_logger_methods=silent))
    # a backward pass that can't be compiled is met in the forward pass
    stack.enter_context(functorch.patch(force_non_lazy_backward_lowering=True))
    return stack


def _sentence(text: str) -> str:
    """Return what an error of the compiler says first, on one line."""
    first = " ".join(text.partition("\n\n")[0].split())
    return textwrap.shorten(first.partition(". ")[0].removesuffix("."), 200)


def _randomness(device: torch.device) -> list[Tensor]:
    drawn = [torch.get_rng_state()]
    return drawn if device.type == "cpu" else [*drawn, torch.cuda.get_rng_state(device)]


def _set_randomness(device: torch.device, states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state, device)
