"""The strategy `fsdp`: ranks that share the weights out end as one process that has them all."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rank_runs import CUTS, done, farthest, shared_by, shown, signal_at, trained, weights
from support import points, table

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
def shared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, list[Any]]:
    """What one process, two ranks and three make of all cuts: of each rank, of each cut."""
    folder = tmp_path_factory.mktemp("ranks")
    alone = [trained(cut, OneProcess(torch.device("cpu"))) for cut in CUTS]
    return {0: [alone]} | {n: shared_by(OPTIONS, folder / str(n), n) for n in (2, 3)}


@pytest.mark.parametrize("many", [2, 3])
@pytest.mark.parametrize("at", range(len(CUTS)), ids=lambda at: str(CUTS[at]))
def test_ranks_compute_what_one_process_computes(
    shared: Mapping[int, list[Any]], at: int, many: int
) -> None:
    """Gradients of each step, weights and losses are those of the whole batch, on every rank."""
    bound = 1e-12 if CUTS[at].dtype == torch.float64 else 1e-5
    ((right, last, means),) = (rank[at] for rank in shared[0])
    for gradients, end, losses in (rank[at] for rank in shared[many]):
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
    whole, _ = done(tmp_path / "whole", 2, *HALF, signal_at(99, signal.SIGTERM, 1))
    folder = tmp_path / "broken"
    ended = ranks.started(folder, 2, *HALF, signal_at(6, signal.SIGTERM, 1)).wait()
    assert [each.code for each in ended] == [143] * 2, ended[-1].err
    (run,) = folder.glob("runs/fault/*")
    (file,) = run.glob("experiment.toml")
    file.write_text(file.read_text().replace("step = 6", "step = 99"))
    done(folder, 2, *HALF, signal_at(99, signal.SIGTERM, 1), resume=True)
    assert ending(run).differing(ending(whole)) == []


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_goes_on_with_other_ranks(tmp_path: Path, after: int) -> None:
    """Without dropout, it ends on one rank and on three as it would have on two."""
    sets = (*HALF[:3], CPU)
    whole, _ = experiments.ran(tmp_path / "whole", *sets[:3])
    ended = ranks.started(tmp_path / "2", 2, *sets, signal_at(4, signal.SIGTERM, 1)).wait()
    assert [each.code for each in ended] == [143] * 2, ended[-1].err
    run, ended = done(tmp_path / "2", after, *sets, resume=True)
    assert "of 2 ranks; this run may end in other bits" in ended[0].err
    assert result(run)["status"] == "completed"
    assert farthest(weights(run), weights(whole)) <= 1e-5
