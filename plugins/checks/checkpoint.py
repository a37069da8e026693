"""Check checkpoint: what was written gives the same outputs, and goes on to the same weights."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import attrs
import torch

from plugins.checks import _losses
from plugins.checks.gradient import NORMS
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE

_BEFORE, _AFTER = 2, 2
TRIP = "a round trip gives the same outputs"
GOES_ON = "going on from it equals going on"


@attrs.frozen
class CheckpointCheck:
    """A model that was taken up from a checkpoint is bit for bit the one that was written."""

    area = "checkpoint"

    def observe(self, probe: Any) -> None:
        """Take two steps, write a checkpoint, take it up, and take two more with both."""
        if why := probe.failed(TARGETS, FINITE, NORMS):
            probe.skips(TRIP, why)
            probe.skips(GOES_ON, why)
            return
        first = probe.build()
        windows = [*itertools.islice(probe.windows(first), _BEFORE + _AFTER)]
        torch.manual_seed(probe.experiment.seed)
        _go(probe, first, windows[:_BEFORE], 0)
        first.state.step = first.state.batch = _BEFORE
        with torch.random.fork_rng():
            other = probe.taken_up(first)
            if not _same_outputs(probe, first, other, windows[0][0]):
                probe.skips(GOES_ON, f"see checkpoint: {TRIP}")
                return
        # from here on both draw from the generators as the checkpoint has them
        other.keeper.go_on()
        _go(probe, other, windows[_BEFORE:], _BEFORE)
        other.keeper.go_on()
        _go(probe, first, windows[_BEFORE:], _BEFORE)
        _same_end(probe, first, other)


def _go(probe: Any, trainer: Any, windows: list[Any], first: int) -> None:
    trainer.update.forward.module.train()
    given = iter(copy.deepcopy(windows))
    for _ in probe.steps(trainer, given, len(windows), first):
        pass


def _same_outputs(probe: Any, one: Any, other: Any, batch: Any) -> bool:
    found = []
    for trainer in (one, other):
        trainer.update.forward.module.eval()
        found.append(_losses.exact(trainer, dict(batch))[0])
    apart = [name for name, value in found[0].items() if not torch.equal(value, found[1][name])]
    advice = "let state_dict() and save_assets() hold all that outputs depend on"
    if apart:
        off = max(float((found[0][n].float() - found[1][n].float()).abs().max()) for n in apart)
        told = f"{', '.join(apart)} differ by up to {off:.2g} from what the checkpoint was of"
        probe.fails(TRIP, told, advice)
    else:
        told = f"{', '.join(found[0])} of {len(batch['id'])} records, bit for bit"
        probe.passes(TRIP, told)
    return not apart


def _same_end(probe: Any, one: Any, other: Any) -> None:
    pairs = zip(
        one.update.forward.module.named_parameters(),
        other.update.forward.module.parameters(),
        strict=True,
    )
    apart = [name for (name, p), q in pairs if not torch.equal(p, q)]
    told = f"{_BEFORE} steps, a checkpoint, {_AFTER} more"
    if apart:
        told = f"{told}: {len(apart)} parameters differ, the first '{apart[0]}'"
        advice = "let the optimizer's, precision's and model's state_dict() hold all that moves"
        probe.fails(GOES_ON, told, advice)
    else:
        probe.passes(GOES_ON, f"{told}: every weight is the same")
