"""The strategy `fsdp`: ranks that share the weights out end as one process that has them all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from rank_runs import CUTS, farthest, shared_by, shown, trained

from framework.testing.strategy import check_strategy
from plugins.strategies.auto import OneProcess
from plugins.strategies.fsdp import Fsdp
from tests.faults import experiments

OPTIONS = Fsdp(device="cpu")
CPU = "strategy={use='fsdp', device='cpu'}"


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
def test_the_strategy_keeps_its_contract(tmp_path: Any, many: int) -> None:
    """The kit's checks hold for one rank under torchrun and for two."""

    def hold() -> str:
        check_strategy(OPTIONS)
        return "held"

    assert shown(OPTIONS, tmp_path, many, hold) == ["held"] * many
