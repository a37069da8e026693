"""Check optimizer: what is stepped, what decays, and whether its state moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import torch

from framework.errors import listing
from plugins.checks._names import shown
from plugins.checks.gradient import NORMS
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE

_MOVE = "weights and states move"


@attrs.frozen
class OptimizerCheck:
    """Each parameter is stepped once, norms and biases don't decay, states move."""

    area = "optimizer"

    def observe(self, probe: Any) -> None:
        """Look at the groups, then take two steps."""
        trainer = probe.trainer
        names = {id(p): name for name, p in trainer.update.forward.module.named_parameters()}
        groups = trainer.update.optimizer.param_groups
        _groups(probe, names, groups)
        _decay(probe, names, groups)
        if why := probe.failed(TARGETS, FINITE, NORMS):
            probe.skips(_MOVE, why)
            return
        with probe.trial() as lent:
            _states(probe, names, lent)


def _groups(probe: Any, names: dict[int, str], groups: list[dict[str, Any]]) -> None:
    """Each trainable parameter stands in exactly one group."""
    trainable = {id(p) for p in probe.trainer.update.forward.module.parameters() if p.requires_grad}
    held = Counter(id(p) for group in groups for p in group["params"])
    absent = [names[key] for key in trainable if not held[key]]
    twice = [names.get(key, "?") for key, count in held.items() if count > 1]
    strange = [key for key in held if key not in names]
    row = "each parameter in one group"
    if absent:
        told = f"{len(absent)} trainable parameters are in no group: {shown(absent)}"
        probe.fails(row, told, "let the optimizer take every parameter that the model labels")
    elif twice:
        told = f"{len(twice)} parameters are stepped twice: {shown(twice)}"
        probe.fails(row, told, "label each parameter once in the model's labelled()")
    elif strange:
        told = f"{len(strange)} parameters of the optimizer are none of the model's"
        probe.fails(row, told, "build the optimizer from the model's own parameters")
    else:
        kernel = "fused" if all(group.get("fused") for group in groups) else "not fused"
        probe.passes(row, f"{len(held)} parameters in {len(groups)} groups, {kernel}")


def _decay(probe: Any, names: dict[int, str], groups: list[dict[str, Any]]) -> None:
    """Biases and the scales of norms don't decay."""
    row = "no decay on norms and biases"
    decaying = [group for group in groups if group.get("weight_decay")]
    if not decaying:
        probe.passes(row, "nothing decays")
        return
    flat = [names.get(id(p), "?") for group in decaying for p in group["params"] if p.ndim < 2]  # noqa: PLR2004 - scales and biases are vectors
    count = sum(len(group["params"]) for group in decaying)
    if flat:
        told = f"{len(flat)} norms and biases decay: {shown(flat)}"
        probe.fails(row, told, "give parameters of one dimension a weight_decay of 0")
    else:
        rates = sorted({group["weight_decay"] for group in decaying})
        probe.passes(row, f"{count} matrices decay by {listing(map(str, rates))}, no vector does")


def _states(probe: Any, names: dict[int, str], trainer: Any) -> None:
    """Steps change the weights and what the optimizer keeps of them."""
    counts = [trainer.update.loss.counts(batch) for batch in probe.window()]
    if not any(count for part in counts for count in part.values()):
        probe.skips(_MOVE, "nothing is a target: see input")
        return
    optimizer = trainer.update.optimizer
    held = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in held]
    kept_of = getattr(optimizer, "state", {})
    states = [
        {id(p): _tensors(kept_of.get(p, {})) for p in held}
        for _ in probe.steps(trainer, probe.windows(), 2)
    ]
    still = [names.get(id(p), "?") for p, old in zip(held, before, strict=True) if p.equal(old)]
    if len(still) == len(held):
        told = "two steps changed no weight at all"
        probe.fails(_MOVE, told, "look at the rate, the schedule's start and the optimizer")
        return
    stuck = all(_equal(first, states[1][key]) for key, first in states[0].items())
    if any(states[0].values()) and stuck:
        told = "what the optimizer keeps is the same after the second step"
        probe.fails(_MOVE, told, "let its step() update its state")
        return
    moved = f"{len(held) - len(still)} of {len(held)} parameters moved in two steps"
    kept = sum(map(len, states[1].values()))
    probe.passes(_MOVE, f"{moved}, with {kept} tensors of state" if kept else f"{moved}, no state")


def _tensors(state: dict[str, Any]) -> list[torch.Tensor]:
    return [v.detach().clone() for v in state.values() if isinstance(v, torch.Tensor) and v.ndim]


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    pairs = zip(one, other, strict=False)
    return len(one) == len(other) and all(a.equal(b) for a, b in pairs)
