"""Check gradient: who receives one, how large they are, and whether a part of the model is dead."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import attrs
import torch

from plugins.checks import _losses
from plugins.checks._names import shown
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE

RECEIVED = "every trainable parameter has one"
NORMS = "norms are finite"
DEAD = "no dead branch"


@attrs.frozen
class GradientCheck:
    """A backward pass of the first step reaches every parameter that is trained."""

    area = "gradient"

    def observe(self, probe: Any) -> None:
        """Go backward once, as the first step does, without taking it."""
        if why := probe.failed(TARGETS, FINITE):
            for row in (RECEIVED, NORMS, DEAD):
                probe.skips(row, why)
            return
        with probe.trial() as trainer:
            module = trainer.update.forward.module
            torch.autograd.backward(_losses.of_window(trainer.update, probe.window()))
            named = {name: p for name, p in module.named_parameters() if p.requires_grad}
            frozen = [p for p in module.parameters() if not p.requires_grad]
            _received(probe, named, frozen)
            parts = {id(x.parameter): x.part for x in trainer.state.model.labelled()}
            if _norms(probe, named, parts):
                _dead(probe, named)
            else:
                probe.skips(DEAD, f"see gradient: {NORMS}")


def _received(probe: Any, named: dict[str, Any], frozen: list[Any]) -> None:
    lacking = [name for name, p in named.items() if p.grad is None]
    if lacking:
        told = f"{len(lacking)} of {len(named)} have none: {shown(lacking)}"
        probe.fails(RECEIVED, told, "use them in forward, or freeze them (requires_grad = False)")
        return
    if any(p.grad is not None for p in frozen):
        probe.fails(RECEIVED, "frozen parameters receive one", "detach what is frozen")
        return
    more = f", {len(frozen)} frozen ones have none" if frozen else ""
    probe.passes(RECEIVED, f"{len(named)} of {len(named)}{more}")


def _norms(probe: Any, named: dict[str, Any], parts: dict[int, str]) -> bool:
    squares: dict[str, float] = defaultdict(float)
    for parameter in named.values():
        if parameter.grad is not None:
            norm = float(parameter.grad.detach().float().norm())
            squares[parts.get(id(parameter), "of no part")] += norm**2
    told = ", ".join(f"{part} {math.sqrt(square):.3g}" for part, square in squares.items())
    if all(map(math.isfinite, squares.values())):
        probe.passes(NORMS, told)
        return True
    bad = [n for n, p in named.items() if p.grad is not None and not p.grad.isfinite().all()]
    told = f"{len(bad)} parameters have a gradient that is no number: {shown(bad)}"
    probe.fails(NORMS, told, "look for a root or a quotient of 0 that the loss goes through")
    return False


def _dead(probe: Any, named: dict[str, Any]) -> None:
    """A module is dead where the gradients of all its parameters are 0."""
    alive: dict[str, bool] = defaultdict(bool)
    for name, parameter in named.items():
        module = name.rpartition(".")[0]
        # one without any is told in another row
        alive[module] |= parameter.grad is None or bool(parameter.grad.any())
    dead = [module or "the model itself" for module, lives in alive.items() if not lives]
    if dead:
        told = f"all gradients are 0 in {len(dead)} of {len(alive)} modules: {shown(dead)}"
        probe.fails(DEAD, told, "see what they are multiplied by, or where they are detached")
    else:
        probe.passes(DEAD, f"in each of {len(alive)} modules some gradient is not 0")
