"""The strategy `fsdp`: ranks that share the weights out end as one process that has them all."""

from __future__ import annotations

import copy
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_runs import (
    CUTS,
    Stack,
    done,
    farthest,
    shared_by,
    shown,
    signal_at,
    trained,
    weights,
    whole,
)
from safetensors.torch import load_file, save_file
from support import points, table
from torch import Tensor, nn

from framework.checkpoint import distinct, load_weights
from framework.commands import _checkpoints
from framework.errors import RunError, UserError
from framework.testing.strategy import check_strategy
from plugins.strategies.auto import OneProcess
from plugins.strategies.fsdp import Fsdp
from tests.faults import experiments, ranks
from tests.faults.endings import ending
from tests.faults.experiments import result

OPTIONS = Fsdp(device="cpu")
CPU = "strategy={use='fsdp', device='cpu'}"
DROPOUT = "model={use='fault_net', dropout=0.3, noise=0.3}"


@pytest.fixture(scope="module", autouse=True)
def _parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small parts are found as those of an installed distribution."""
    with pytest.MonkeyPatch.context() as patch:
        experiments.install_parts(patch, tmp_path_factory.mktemp("parts") / "site")
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What three ranks make of all cuts: of each rank, of each cut."""
    return shared_by(OPTIONS, tmp_path_factory.mktemp("ranks") / "3", 3)


@pytest.mark.parametrize("at", range(len(CUTS)), ids=lambda at: str(CUTS[at]))
def test_ranks_compute_what_one_process_computes(shared: list[Any], at: int) -> None:
    """Gradients of each step, weights and losses are those of the whole batch, on every rank."""
    bound = 1e-12 if CUTS[at].dtype == torch.float64 else 1e-5
    right, last, means = trained(CUTS[at], OneProcess(torch.device("cpu")))
    for gradients, end, losses in (rank[at] for rank in shared):
        assert len(gradients) == len(right)
        for one, other in zip([*gradients, end, *losses], [*right, last, *means], strict=True):
            assert farthest(one, other) <= bound


@pytest.mark.parametrize("many", [1, 2])
def test_the_strategy_keeps_its_contract(tmp_path: Path, many: int) -> None:
    """The kit's checks hold for one rank under torchrun and for two."""

    def hold() -> str:
        check_strategy(OPTIONS)
        return "held"

    assert shown(OPTIONS, tmp_path, many, hold) == ["held"] * many


PLAIN = ("trainer.log_every=1", "trainer.eval_every=3", "trainer.batch_size=8", "dataset.count=33")
UNEVEN = ("dataset.checked=19", "sampler={use='tokens', budget=30}", "precision=fp32")
ADAM = "optimizer={use='adamw', lr=0.01}"


def test_a_run_ends_as_that_of_one_process(tmp_path: Path) -> None:
    """Also where ranks have batches in unequal numbers: weights, points, metrics, predictions."""
    sets = (*PLAIN, *UNEVEN, ADAM)
    alone, _ = experiments.ran(tmp_path / "1", *sets)
    run, _ = done(tmp_path / "3", 3, *sets, CPU)
    assert farthest(weights(run), weights(alone)) <= 1e-5
    assert table(run / "predictions" / "test.csv") == table(alone / "predictions" / "test.csv")
    for one, other in zip(points(run), points(alone), strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    ended = experiments.processes.finished("evaluate", run, "--json", cwd=run)
    assert ended.code == 0, ended.err
    assert f'"loss": {result(run)["metrics"]["test"]["loss"]:.6f}'[:14] in ended.out


HALF = ("trainer.log_every=4", "trainer.eval_every=7", ADAM, DROPOUT, CPU)


def test_a_resumed_run_ends_identical(tmp_path: Path) -> None:
    """Interrupted between two logged points: all bits and points are as those of the whole."""
    right, _ = done(tmp_path / "right", 2, *HALF, signal_at(99, signal.SIGTERM, 1))
    folder = tmp_path / "broken"
    ended = ranks.started(folder, 2, *HALF, signal_at(6, signal.SIGTERM, 1)).wait()
    assert [each.code for each in ended] == [143] * 2, ended[-1].err
    (run,) = folder.glob("runs/fault/*")
    (file,) = run.glob("experiment.toml")
    file.write_text(file.read_text().replace("step = 6", "step = 99"))
    done(folder, 2, *HALF, signal_at(99, signal.SIGTERM, 1), resume=True)
    assert ending(run).differing(ending(right)) == []


# of four rows three ranks have two, two and none
OTHERS = ("trainer.log_every=4", ADAM, CPU, "dataset.classes=4", signal_at(4, signal.SIGTERM, 1))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was terminated on two ranks after its fifth step."""
    folder = tmp_path_factory.mktemp("broken") / "2"
    ended = ranks.started(folder, 2, *OTHERS).wait()
    assert [each.code for each in ended] == [143] * 2, ended[-1].err
    return folder


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_goes_on_with_other_ranks(tmp_path: Path, broken: Path, after: int) -> None:
    """Each takes up its part, whoever wrote it: the run ends as that of one process."""
    right, _ = experiments.ran(tmp_path / "right", ADAM, "dataset.classes=4")
    folder = shutil.copytree(broken, tmp_path / "on", symlinks=True)
    run, ended = done(folder, after, *OTHERS, resume=True)
    assert "of 2 ranks; this run may end in other bits" in ended[0].err
    assert result(run)["status"] == "completed"
    assert farthest(weights(run), weights(right)) <= 1e-5


def moments(folder: Path) -> dict[str, Tensor]:
    """What is in the files of a checkpoint's shards, each name as often as there are ranks."""
    files = sorted((folder / "shards").iterdir())
    parts = [load_file(file) for file in files]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_shards_are_parts_of_the_optimizers_state(tmp_path: Path, broken: Path) -> None:
    """Each rank's file is safetensors; behind one another they are what one process keeps."""
    sets = (ADAM, "dataset.classes=4", signal_at(5, signal.SIGTERM, 0))
    ended = experiments.attempt(tmp_path, *sets)
    assert ended.code == 143, ended.err
    (alone,) = tmp_path.glob("runs/fault/*/checkpoints/last")
    (shards,) = broken.glob("runs/fault/*/checkpoints/last")
    right = _checkpoints.read(alone)["optimizer"]["state"]
    found = moments(shards)
    assert len(found) == 2 * len(right)
    for at, states in right.items():
        for name in ("exp_avg", "exp_avg_sq"):
            assert farthest({"": found[f"{at}.{name}"]}, {"": states[name]}) <= 1e-5
    assert not {"exp_avg", "exp_avg_sq"} & set(_checkpoints.read(shards)["optimizer"]["state"][0])


def test_a_changed_shard_is_refused(tmp_path: Path, broken: Path) -> None:
    """One bit of one rank's part, and the checkpoint is set aside on all ranks."""
    folder = shutil.copytree(broken, tmp_path / "on", symlinks=True)
    (file,) = folder.glob("runs/fault/*/checkpoints/last/shards/shard-00002*")
    found = bytearray(file.read_bytes())
    found[-1] ^= 1
    file.write_bytes(found)
    ended = ranks.started(folder, 2, *OTHERS, resume=True).wait()
    assert "its bytes changed; step-5 is set aside" in ended[0].err
    assert "starting over" in ended[0].err


def test_a_shard_that_cant_be_written_ends_all(tmp_path: Path) -> None:
    """A full disk on one rank is told by both in a line, and leaves no checkpoint behind."""

    def work() -> None:
        live = OPTIONS.build()
        module = nn.Linear(4, 4)
        live.wrap(module)
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
        live.adopt(optimizer)
        module(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        if live.rank:
            # where its file would stand there is a folder
            file = "shard-00002-model-00001-of-00001.safetensors"
            Path(".step-1.shards.part", file).mkdir(parents=True)
        live.gather(None)
        with pytest.raises(RunError, match="can't write the checkpoint") as error:
            live.save(module.state_dict(), Path("step-1"))
        assert "\n" not in str(error.value)

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    """They are saved once, as in one process, and taken up by both of their owners."""

    def work() -> None:
        torch.manual_seed(3)
        live, module = OPTIONS.build(), Stack(5)
        plain = copy.deepcopy(module)
        live.wrap(module)
        live.adopt(torch.optim.SGD(module.parameters()))
        saved, _ = live.save(distinct(module), Path("step-1"))
        if not live.rank:
            assert set(saved) == set(distinct(plain))
            save_file(saved, "saved.safetensors")
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        live.gather(None)
        load_weights(module, Path("saved.safetensors"))
        found = {name: whole(value) for name, value in module.state_dict().items()}
        assert all(torch.equal(found[k], v) for k, v in plain.state_dict().items())

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


@pytest.mark.parametrize("hook", ["step_end", "evaluate_end"])
def test_an_error_on_one_rank_ends_all(tmp_path: Path, hook: str) -> None:
    """The rank says what happened, the other that a rank is gone."""
    raising = f"callbacks.bad={{use='fault_raise', hook='{hook}', rank=1}}"
    ended = ranks.started(tmp_path, 2, CPU, raising).wait(60)
    assert [each.code for each in ended] == [1, 1]
    assert f"failed in {hook}" in ended[1].err
    assert "another rank is gone" in ended[0].err


def test_an_evaluation_is_left(tmp_path: Path) -> None:
    """One rank is terminated within it: both save and leave; it is done later."""
    sets = (CPU, "trainer.batch_size=1", "trainer.steps=2", "dataset.checked=101")
    bell = "metrics=[{use='fault_bell', rank=1, batch=3}]"
    ended = ranks.started(tmp_path, 2, *sets, bell).wait(60)
    assert [each.code for each in ended] == [143, 143], ended[0].err
    (run,) = tmp_path.glob("runs/fault/*")
    file = run / "experiment.toml"
    file.write_text(file.read_text().replace("batch = 3", "batch = 99"))
    done(tmp_path, 2, *sets, bell.replace("batch=3", "batch=99"), resume=True)
    assert [p["step"] for p in points(run) if "val/loss" in p] == [2]


def test_another_optimizer_is_refused(tmp_path: Path) -> None:
    """One that isn't torch's keeps states that nobody can share out."""

    def work() -> None:
        with pytest.raises(UserError, match="needs a torch optimizer, not a object"):
            OPTIONS.build().adopt(object())

    (ended,) = ranks.together(1, work, tmp_path).wait(60)
    assert ended.code == 0, ended.err


def test_outside_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun's variables it says how a run of several ranks is started."""
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=r"'fsdp' is started by torchrun: torchrun --standalone"):
        OPTIONS.build()
