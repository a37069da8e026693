"""The strategy `ddp`: whatever the number of ranks, a run is the run of one process."""

from __future__ import annotations

import itertools
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rank_runs import CUTS, done, farthest, shared_by, shown, signal_at, trained, weights
from support import points, table

from framework.batching import Feed
from framework.errors import UserError
from framework.testing.strategy import check_strategy
from plugins.samplers.random import LiveRandom
from plugins.samplers.tokens import Tokens
from plugins.strategies import _ranks
from plugins.strategies.auto import Auto, OneProcess
from plugins.strategies.ddp import Ddp
from tests.faults import experiments, ranks
from tests.faults.endings import ending
from tests.faults.experiments import notes, result
from tests.faults.parts import Letters, Texts

OPTIONS = Ddp(device="cpu")
CPU = "strategy={use='ddp', device='cpu'}"
DROPOUT = "model={use='fault_net', dropout=0.3, noise=0.3}"


@pytest.fixture(scope="module", autouse=True)
def _parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The small parts are found as those of an installed distribution."""
    with pytest.MonkeyPatch.context() as patch:
        experiments.install_parts(patch, tmp_path_factory.mktemp("parts") / "site")
        yield


# what one process computes, in float64 and float32


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, list[Any]]:
    """What one, two and three ranks make of all cuts: of each rank, of each cut."""
    found: dict[int, list[Any]] = {0: [[trained(c, OneProcess(torch.device("cpu"))) for c in CUTS]]}
    for many in (1, 2, 3):
        found[many] = shared_by(OPTIONS, tmp_path_factory.mktemp("ranks") / str(many), many)
    return found


@pytest.mark.parametrize("many", [1, 2, 3])
@pytest.mark.parametrize("at", range(len(CUTS)), ids=lambda at: str(CUTS[at]))
def test_ranks_compute_what_one_process_computes(
    shared: Mapping[int, list[Any]], at: int, many: int
) -> None:
    """Gradients of each step, weights and losses are those of the whole batch, on every rank."""
    exact = CUTS[at].dtype == torch.float64
    ((right, last, means),) = (rank[at] for rank in shared[0])
    for gradients, end, losses in (rank[at] for rank in shared[many]):
        assert len(gradients) == len(right) == math.ceil(CUTS[at].records / CUTS[at].batch_size)
        for one, other in zip([*gradients, end], [*right, last], strict=True):
            assert farthest(one, other) <= (1e-12 if exact else 1e-5)
        for one, other in zip(losses, means, strict=True):
            assert farthest(one, other) <= (1e-12 if exact else 1e-5)


@pytest.mark.parametrize("many", [2, 3])
def test_ranks_stay_equal(shared: Mapping[int, list[Any]], many: int) -> None:
    """All ranks end with the same bits: whatever they decide by is the same everywhere."""
    first, *others = shared[many]
    for rank in others:
        for (_, end, losses), (_, expected, means) in zip(rank, first, strict=True):
            assert all(torch.equal(end[name], expected[name]) for name in expected)
            assert losses == means


def shares(feed: Feed, many: int, windows: Callable[[Feed], Any]) -> list[list[list[Any]]]:
    """The ids of each micro-batch of each window, by rank."""
    every = [attrs.evolve(feed, rank=rank, ranks=many) for rank in range(many)]
    return [[[batch["id"] for batch in w] for w in windows(rank)] for rank in every]


@given(
    records=st.integers(1, 40),
    batch=st.integers(1, 12),
    micro=st.integers(0, 5),
    tokens=st.sampled_from([0, 1, 24, 60]),
    many=st.integers(1, 5),
)
def test_ranks_share_every_step(
    records: int, batch: int, micro: int, tokens: int, many: int
) -> None:
    """Each record is in one rank's share of its step, or of the split; all take as many steps."""
    splits = Texts(count=records).build(records)
    letters = Letters(splits.info)
    sampler = Tokens(budget=tokens).build() if tokens else LiveRandom()
    feed = Feed(letters, letters.encode(splits["train"]), sampler, batch, micro)
    (alone,) = shares(feed, 1, lambda rank: rank.epoch(1))
    steps = [[name for part in window for name in part] for window in alone]
    trained = shares(feed, many, lambda rank: rank.epoch(1))
    assert {len(windows) for windows in trained} == {len(steps)}
    for step, every in zip(steps, zip(*trained, strict=True), strict=True):
        # all ranks go forward and backward as often, even those that have nobody
        assert len({len(window) for window in every}) == 1
        assert all(every)
        found = [name for window in every for part in window for name in part]
        assert sorted(found) == sorted(step)
        assert not micro or all(len(part) <= micro for window in every for part in window)
    whole = shares(feed, many, lambda rank: rank.whole())
    found = [n for rank in whole for window in rank for part in window for n in part]
    assert sorted(found) == sorted(record["id"] for record in splits["train"])
    for every in zip(*whole, strict=True):
        assert len({len(window) for window in every}) == 1


# whole runs

PLAIN = ("trainer.log_every=1", "trainer.eval_every=3", "trainer.batch_size=8", "dataset.count=33")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, Path]:
    """The same run without dropout in one process, on two and on three ranks."""
    folder = tmp_path_factory.mktemp("runs")
    ended = experiments.ran(folder / "1", *PLAIN, CPU.replace("ddp", "auto"))
    return {1: ended[0]} | {many: done(folder / str(many), many, *PLAIN, CPU)[0] for many in (2, 3)}


@pytest.mark.parametrize("many", [2, 3])
def test_a_run_ends_as_that_of_one_process(runs: Mapping[int, Path], many: int) -> None:
    """Weights, logged points, metrics and predictions are those of one process, to rounding."""
    run, alone = runs[many], runs[1]
    assert farthest(weights(run), weights(alone)) <= 1e-5
    assert table(run / "predictions" / "test.csv") == table(alone / "predictions" / "test.csv")
    found, right = points(run), points(alone)
    assert [sorted(point) for point in found] == [sorted(point) for point in right]
    for one, other in zip(found, right, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)
    assert result(run)["metrics"] == {
        split: pytest.approx(values, rel=1e-5, abs=1e-6)
        for split, values in result(alone)["metrics"].items()
    }
    assert result(run)["status"] == "completed"


@pytest.mark.parametrize("many", [2, 3])
def test_only_the_first_rank_writes(runs: Mapping[int, Path], many: int) -> None:
    """The run folder has the files of one process's, each line of its log and points once."""
    run, alone = runs[many], runs[1]
    files = [
        {str(p.relative_to(folder)) for p in folder.rglob("*") if "watch.jsonl" not in p.name}
        for folder in (run, alone)
    ]
    assert files[0] == files[1]
    steps = [(p["step"], sorted(p)) for p in points(run)]
    assert len(set(map(str, steps))) == len(steps)
    assert [row["id"] for row in table(run / "predictions" / "test.csv")] == [
        f"test{index}" for index in range(17)
    ]
    lines = [line[24:] for line in (run / "run.log").read_text().splitlines()]
    assert len(lines) == len((alone / "run.log").read_text().splitlines())


def test_a_run_of_ranks_is_used_by_one_process(runs: Mapping[int, Path]) -> None:
    """What ranks have trained is evaluated by one process, although its strategy needs torchrun."""
    ended = experiments.processes.finished("evaluate", runs[2], "--json", cwd=runs[2])
    assert ended.code == 0, ended.err
    assert f'"loss": {result(runs[2])["metrics"]["test"]["loss"]:.6f}'[:14] in ended.out


def test_commands_on_a_trained_model_refuse_ranks(runs: Mapping[int, Path]) -> None:
    """Under torchrun they would each do all of it; they say that one process is enough."""

    def work() -> int:
        return experiments.main(["evaluate", str(runs[2])])

    for ended in ranks.together(2, work, runs[2]).wait():
        assert ended.code == 2
        assert "without torchrun" in ended.err


# resuming

HALF = ("trainer.log_every=4", "trainer.eval_every=7", "optimizer={use='adamw', lr=0.01}", DROPOUT)


@pytest.mark.parametrize(
    ("many", "more"), [(2, ("trainer.workers=1",)), (3, ())], ids=["2, with workers", "3"]
)
def test_a_resumed_run_ends_identical(tmp_path: Path, many: int, more: Sequence[str]) -> None:
    """Interrupted between two logged points, on the last rank: all bits and points are as whole."""
    sets = (*HALF, CPU, *more)
    # the watching callbacks may differ: they are the same, but for the step that never comes
    whole, _ = done(tmp_path / "whole", many, *sets, signal_at(99, signal.SIGTERM, many - 1))
    folder = tmp_path / "broken"
    ended = ranks.started(folder, many, *sets, signal_at(6, signal.SIGTERM, many - 1)).wait()
    assert [each.code for each in ended] == [143] * many, ended[-1].err
    (run,) = folder.glob("runs/fault/*")
    (file,) = run.glob("experiment.toml")
    file.write_text(file.read_text().replace("step = 6", "step = 99"))
    done(folder, many, *sets, signal_at(99, signal.SIGTERM, many - 1), resume=True)
    assert ending(run).differing(ending(whole)) == []


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_a_run_goes_on_with_other_ranks(tmp_path: Path, before: int, after: int) -> None:
    """It says that its bits may be others, and goes on to the end of its steps."""
    sets = (*HALF, CPU, signal_at(4, signal.SIGTERM, before - 1))
    ended = ranks.started(tmp_path, before, *sets).wait()
    assert [each.code for each in ended] == [143] * before
    run, ended = done(tmp_path, after, *sets, resume=True)
    assert f"of {before} ranks; this run may end in other bits" in ended[0].err
    assert result(run)["status"] == "completed"
    assert [p["step"] for p in points(run) if "train/loss" in p] == [4, 5, 8, 10]


def test_a_restart_goes_on_with_what_it_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks that torchrun has started again take their own run, and never an older one.

    What was stopped by a signal stays so.
    """
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    sets = (CPU, signal_at(4, signal.SIGTERM, 0))
    ranks.started(tmp_path, 2, *sets).wait()
    (older,) = tmp_path.glob("runs/fault/*")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "second")
    ended = ranks.started(tmp_path, 2, CPU).wait()
    assert [each.code for each in ended] == [0, 0], ended[0].err
    assert "starting one" in ended[0].err
    (newer,) = set(tmp_path.glob("runs/fault/*")) - {older}
    assert (result(older)["status"], result(newer)["status"]) == ("interrupted", "completed")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "first")
    ended = ranks.started(tmp_path, 2, *sets).wait()
    assert [each.code for each in ended] == [143, 143]
    assert f"{older}: interrupted (received SIGTERM); not started again" in ended[0].err
    assert (result(older)["status"], result(older)["steps"]) == ("interrupted", 5)


def test_ranks_that_start_again_meet_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torchrun gives them the store of those before, where the addresses of the dead still are."""

    def work() -> int:
        if os.environ["RANK"] == "1":
            time.sleep(0.3)  # so that the first finds what is there of the other
        return sum(Ddp(device="cpu").build().gather(1)) - 2

    store = None
    for attempt in range(3):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(attempt))
        pair = ranks.together(2, work, tmp_path, store)
        store = pair.store
        assert [each.code for each in pair.wait(60)] == [0, 0]


def test_a_folder_that_cant_be_made_ends_all(tmp_path: Path) -> None:
    """The first rank says why, and the other, which waits for it, no more than a line."""
    (tmp_path / "runs").touch()
    ended = ranks.started(tmp_path, 2, CPU).wait()
    assert [each.code for each in ended] == [2, 1]
    assert "can't create the run folder" in ended[0].err
    assert ended[1].err.strip() == "another rank is gone"


# what one rank meets, all do


def test_early_stopping_stops_all(tmp_path: Path) -> None:
    """Ranks that decide by a sum of floats decide alike, and leave after the same step."""
    sets = ("metrics=['fault_moody']", "trainer.epochs=20", "trainer.eval_every=1", CPU)
    stopping = "{monitor='val/fault_moody', mode='max', patience=3}"
    run, _ = done(tmp_path, 3, *sets, f"callbacks.early_stopping={stopping}")
    found = result(run)
    assert found["status"] == "stopped_early"
    names = ["watch.jsonl", "1-watch.jsonl", "2-watch.jsonl"]
    assert [len(notes(run, "step_end", name)) for name in names] == [found["steps"]] * 3


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("hook", ["step_end", "evaluate_end"])
def test_an_error_on_one_rank_ends_all(tmp_path: Path, rank: int, hook: str) -> None:
    """The rank says what happened, the other that a rank is gone; the run has failed."""
    raising = f"callbacks.bad={{use='fault_raise', hook='{hook}', rank={rank}}}"
    ended = ranks.started(tmp_path, 2, CPU, raising).wait()
    assert [each.code for each in ended] == [1, 1]
    assert f"failed in {hook}" in ended[rank].err
    assert "another rank is gone" in ended[1 - rank].err
    (run,) = tmp_path.glob("runs/fault/*")
    assert result(run)["status"] == "failed"


def test_a_loss_that_is_not_finite_stops_all(tmp_path: Path) -> None:
    """Whichever rank has the record: all stop at its step, and the first rank's result names it."""
    steps: list[int] = []
    for record in ("train0", "train1", "train2"):
        poison = f"loss={{use='fault_poison', record='{record}', value=nan, where='loss'}}"
        folder = tmp_path / record
        ended = ranks.started(folder, 2, CPU, poison).wait()
        assert [each.code for each in ended] == [1, 1]
        (run,) = folder.glob("runs/fault/*")
        found = result(run)
        assert (found["status"], record in found["reason"]) == ("failed", True), found["reason"]
        assert "loss (ce nan)" in found["reason"]
        names = ["watch.jsonl", "1-watch.jsonl"]
        assert [len(notes(run, "step_end", name)) for name in names] == [found["steps"]] * 2
        windows = [notes(run, "step_start", name)[-1]["ids"] for name in names]
        steps.append([record in itertools.chain(*ids) for ids in windows].index(True))
    assert set(steps) == {0, 1}  # both ranks were the one that had it


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_step_is_left_out_by_all(tmp_path: Path, where: str) -> None:
    """Where it is to be skipped, all ranks skip it and end with what one process has then."""
    poison = f"loss={{use='fault_poison', record='train5', value=nan, where='{where}'}}"
    sets = (*PLAIN, poison, "trainer.on_nonfinite=skip")
    alone, _ = experiments.ran(tmp_path / "1", *sets)
    run, _ = done(tmp_path / "2", 2, *sets, CPU)
    assert notes(run, "step_end")[-1]["skipped"] == 2  # once an epoch
    assert farthest(weights(run), weights(alone)) <= 1e-5
    for one, other in zip(points(run), points(alone), strict=True):
        plain, right = ({k: -1 if v is None else v for k, v in p.items()} for p in (one, other))
        assert plain == pytest.approx(right, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rank", [0, 1])
def test_an_evaluation_is_left(tmp_path: Path, rank: int) -> None:
    """Whichever rank is terminated within one, both save and leave it; it is done later."""
    sets = (CPU, "trainer.batch_size=1", "trainer.steps=2", "dataset.checked=101")
    bell = f"metrics=[{{use='fault_bell', rank={rank}, batch=3}}]"
    ended = ranks.started(tmp_path, 2, *sets, bell).wait()
    assert [each.code for each in ended] == [143, 143], ended[0].err
    (run,) = tmp_path.glob("runs/fault/*")
    assert (result(run)["status"], result(run)["metrics"]) == ("interrupted", {})
    file = run / "experiment.toml"
    file.write_text(file.read_text().replace("batch = 3", "batch = 99"))
    done(tmp_path, 2, *sets, bell.replace("batch=3", "batch=99"), resume=True)
    assert result(run)["status"] == "completed"
    assert [p["step"] for p in points(run) if "val/loss" in p] == [2]


def test_usr1_to_one_rank_saves(tmp_path: Path) -> None:
    """Whichever rank is asked, the first step that sees it is saved, and the run goes on."""
    more = "callbacks.checkpoint={every_epochs=0, keep=9}"
    for rank in range(2):
        run, _ = done(tmp_path / str(rank), 2, CPU, more, signal_at(3, signal.SIGUSR1, rank))
        assert (run / "checkpoints" / "step-4" / "manifest.json").exists()
        assert result(run)["status"] == "completed"


# what is refused, and what is asked for


def refused(folder: Path, *sets: str) -> str:
    """Run on two ranks what is refused before anything is written; what the first says."""
    ended = ranks.started(folder, 2, *sets).wait()
    assert [each.code for each in ended] == [2, 2], ended[0].err
    assert not (folder / "runs").exists()
    return ended[0].err


def test_what_ranks_would_change_is_refused(tmp_path: Path) -> None:
    """Splitting a batch for want of memory, and losses within a batch, are told with a way out."""
    said = refused(tmp_path, CPU, "trainer.on_oom=split")
    assert "trainer.micro_batch" in said
    assert "coupled within a batch" in refused(tmp_path, CPU, "loss=fault_coupled")


def test_parameters_that_compute_nothing(tmp_path: Path) -> None:
    """They are named with the option that allows them; with it, all is as in one process."""
    idle = ("model={use='fault_net', idle=true}", "trainer.steps=3", "trainer.micro_batch=4")
    ended = ranks.started(tmp_path / "refused", 2, CPU, *idle).wait()
    assert [each.code for each in ended] == [1, 1]
    assert "'idle.weight', 'idle.bias'; set strategy.unused to true" in ended[0].err
    (run,) = tmp_path.glob("refused/runs/fault/*")
    assert not notes(run, "step_end")  # no step was taken with gradients that nobody summed
    allowed = CPU.replace("}", ", unused=true}")
    run, _ = done(tmp_path / "2", 2, allowed, *idle)
    alone, _ = experiments.ran(tmp_path / "1", *idle)
    assert farthest(weights(run), weights(alone)) <= 1e-5


@pytest.mark.parametrize("options", [Ddp(device="cpu"), Auto(device="cpu")])
def test_outside_torchrun(options: Ddp | Auto, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torchrun's variables it says how a run of several ranks is started."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(UserError, match=r"torchrun --standalone --nproc-per-node 2") as error:
        options.build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("device", "there"), [("cuda", 0), ("cuda", 1), ("auto", 1)])
def test_more_ranks_than_devices(monkeypatch: pytest.MonkeyPatch, device: Any, there: int) -> None:
    """Ranks that can't have a device each are told so; none trains on a CPU unasked."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match=f"2 processes and {there} CUDA devices"):
        Ddp(device=device).build()


@pytest.mark.parametrize(
    ("many", "asked", "expected"), [(2, "1", "3"), (4, "1", "1"), (2, "4", "9"), (1, "1", "9")]
)
def test_ranks_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int, asked: str, expected: str
) -> None:
    """Where torchrun has set one thread they get their share; what a person has set stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(7))
    before = torch.get_num_threads()
    torch.set_num_threads(9)
    try:
        assert shown(OPTIONS, tmp_path, many, torch.get_num_threads) == [expected] * many
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("many", [1, 2])
def test_the_strategy_keeps_its_contract(tmp_path: Path, many: int) -> None:
    """The kit's checks hold for one rank under torchrun and for two."""

    def hold() -> str:
        check_strategy(Ddp(device="cpu"))
        return "held"

    assert shown(OPTIONS, tmp_path, many, hold) == ["held"] * many


def test_a_rank_leaves_when_its_threads_hold_nothing(tmp_path: Path) -> None:
    """What was sent is let go of while the interpreter is there for it: else it would abort."""

    def leave() -> bool:
        tensor, asked, sleep = torch.ones(2), threading.Event(), time.sleep
        holding, seen = [tensor], weakref.ref(tensor)

        def late() -> None:
            asked.wait()
            holding.clear()

        def waiting(seconds: float) -> None:
            asked.set()
            sleep(seconds)

        _ranks._watch(holding)
        del tensor
        thread = threading.Thread(target=late)
        thread.start()
        time.sleep = waiting  # in this process alone, which ends
        _ranks._part()
        gone = seen() is None
        asked.set()
        thread.join()
        return gone

    assert shown(OPTIONS, tmp_path, 1, leave) == ["True"]


def test_objects_of_any_length_are_gathered(tmp_path: Path) -> None:
    """What ranks tell each other comes in their order, as it was, whoever has the longest."""
    said = [None, "x" * 5000, {"a": [1, b"\0\0"]}]

    def tell() -> list[Any]:
        live = Ddp(device="cpu").build()
        return [live.gather(value)[live.rank - 1] for value in (said[live.rank], live.rank)]

    found = shown(OPTIONS, tmp_path, 3, tell)
    assert found == [str([said[rank - 1], (rank - 1) % 3]) for rank in range(3)]


def test_ranks_draw_dropout_of_their_own(tmp_path: Path) -> None:
    """All start with the same weights and go on with random numbers of their own."""
    run, _ = done(tmp_path, 2, CPU, "model=fault_streams", "trainer.steps=2")
    assert run.exists()
    drawn = [(tmp_path / f"streams-{rank}.jsonl").read_text() for rank in range(2)]
    assert not set(drawn[0].splitlines()) & set(drawn[1].splitlines())
    assert np.isfinite(result(run)["metrics"]["test"]["loss"])
