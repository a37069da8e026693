"""The probe: what it lends comes back as it was, and what it writes is taken up."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from framework import build
from framework.commands.check import chosen
from framework.commands.probe import Probe
from framework.config.experiment import load
from tests.faults import experiments


@pytest.fixture
def probe(tmp_path: Path) -> Iterator[Probe]:
    """Of the small experiment."""
    with pytest.MonkeyPatch.context() as patch:
        experiments.install_parts(patch, tmp_path / "site")
        file = tmp_path / "fault.toml"
        text = experiments.TEXT.replace("fault_sgd", "adamw").replace("lr = 0.1", "lr = 0.01")
        file.write_text(text.replace('"fault_net"', '{ use = "fault_net", dropout = 0.3 }'))
        experiment = load(file)
        (tmp_path / "scratch").mkdir()
        yield Probe(experiment, build.dataset(experiment), tmp_path / "scratch")


def state(probe: Probe) -> list[Any]:
    """All that training would begin with."""
    update = probe.trainer.update
    parts = [update.forward.module.state_dict(), update.optimizer.state_dict()["state"]]
    drawn = [random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002
    return [*copy.deepcopy(parts), *drawn, torch.get_rng_state().tolist()]


def test_checks_leave_everything_as_it_was(probe: Probe) -> None:
    """After all checks weights, states, gradients, modes and generators are those before."""
    before, module = state(probe), probe.trainer.update.forward.module
    names = [name for name, check in chosen() if not probe.observe(name, check)]
    assert len(names) >= 8
    weights, *rest = state(probe)
    assert all(torch.equal(weights[name], value) for name, value in before[0].items())
    assert rest == before[1:]
    assert module.training
    assert all(p.grad is None for p in module.parameters())


def test_a_trial_that_fails_is_undone_too(probe: Probe) -> None:
    """What raised within it goes on, and nothing of it is kept."""
    before = state(probe)

    def fail() -> None:
        with probe.trial() as lent:
            next(probe.steps(lent, probe.windows(), 1))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert all(torch.equal(state(probe)[0][name], value) for name, value in before[0].items())


def test_features_are_the_same_every_time(probe: Probe) -> None:
    """Records of every label are drawn, and are encoded alike whenever they are asked for."""
    records = probe.records(5)
    assert records == probe.records(5)
    labels = Counter(record["label"] for record in records)
    assert max(labels.values()) - min(labels.values()) <= 1
    assert len(labels) == len(probe.splits.info["labels"])
    one, other = (probe.collate(probe.features(records)) for _ in range(2))
    assert one["id"] == other["id"]
    assert torch.equal(one["letters"], other["letters"])


def test_the_first_failure_of_some_rows_is_named(probe: Probe) -> None:
    """Rows that are not asked for, or did not fail, are none."""
    probe._area = "loss"
    probe.warns("odd", "it is", "look")
    probe.fails("broken", "it is", "mend it")
    assert probe.failed("odd") == ""
    assert probe.failed("odd", "broken") == "see loss: broken"
