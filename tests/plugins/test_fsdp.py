"""The strategy `fsdp`: ranks that share the weights out end as one process that has them all."""

from __future__ import annotations

import copy
import io
import logging
import resource
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
from plugins.models.hf_classifier import HfClassifier, LiveClassifier
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
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        with pytest.raises(RunError, match="can't write the checkpoint") as error:
            live.save(module.state_dict(), Path("step-1"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        assert "\n" not in str(error.value)

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err
    assert not [*tmp_path.glob(".step*")]


def test_nothing_is_left_beside_checkpoints(tmp_path: Path) -> None:
    """Neither of an optimizer that keeps nothing, nor of files that are taken up or are not."""

    def work() -> None:
        live, module = OPTIONS.build(), nn.Linear(4, 4)
        live.wrap(module)
        old = Path(".step-2.shards.part", "shard-00007.safetensors")  # of one that was killed
        old.parent.mkdir(exist_ok=True)
        old.touch()
        live.gather(None)
        for momentum, files in ((0.0, 0), (0.9, 2)):
            optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=momentum)
            live.adopt(optimizer)
            module(torch.ones(1, 4)).sum().backward()
            optimizer.step()
            _, parts = live.save(module.state_dict(), Path("step-2"))
            assert len(parts) == (0 if live.rank else files)
        for name in [*parts][1:]:
            parts[name].write(Path("step-1", name))
        del parts
        live.gather(None)
        assert not [*Path().glob(".step*")]

    (tmp_path / "step-1").mkdir()
    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


class Rows(torch.optim.SGD):
    """Keeps a number of each row."""

    def step(self, closure: Any = None) -> None:
        """Note down the numbers."""
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["rows"] = parameter.grad.sum(1)


def test_an_optimizer_with_states_of_other_shapes(tmp_path: Path) -> None:
    """What couldn't be taken up again is refused when it would be saved, in words."""

    def work() -> None:
        live, module = OPTIONS.build(), nn.Linear(4, 4, bias=False)
        live.wrap(module)
        optimizer = Rows(module.parameters())
        live.adopt(optimizer)
        module(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        with pytest.raises(UserError, match=r"can't keep Rows's 'rows'.*take AdamW"):
            live.save(module.state_dict(), Path("step-1"))

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


class Heads(nn.Module):
    """Of its heads each record takes those that it names."""

    def __init__(self, *, listed: bool) -> None:
        """Make the heads, as layers or as none."""
        super().__init__()
        heads = {name: nn.Linear(4, 4) for name in "abcd"}
        self.first = nn.Linear(4, 4)
        self.heads: Any = nn.ModuleList(heads.values()) if listed else nn.ModuleDict(heads)

    def forward(self, rows_BH: Tensor, names: list[str]) -> Tensor:
        """Return a sum."""
        keys = names if isinstance(self.heads, nn.ModuleDict) else ["abcd".index(n) for n in names]
        hidden_BH = self.first(rows_BH)
        parts = [self.heads[key](hidden_BH[[at]]).sum() for at, key in enumerate(keys)]
        return sum(parts, hidden_BH.sum() * 0)


def test_ranks_use_different_parameters(tmp_path: Path) -> None:
    """Gradients are those of one process with all of the records; who is used by none has none."""

    def work() -> None:
        torch.manual_seed(3)
        live, module = OPTIONS.build(), Heads(listed=False).double()
        alone, rows = copy.deepcopy(module), torch.randn(6, 4, dtype=torch.float64)
        shared = live.wrap(module)
        # one of three ranks is the first that has nobody
        names = ["b", "c", "c", "a", "c", "c"]
        for step in range(2):
            for at in range(2):
                own = slice(at * 3 + live.rank, at * 3 + live.rank + (live.rank < 2))
                with live.accumulate(shared, last=at == 1):
                    shared(rows[own], names[own]).backward()
            alone(rows[[0, 1, 3, 4]], ["b", "c", "a", "c"]).backward()
            for (name, one), other in zip(
                module.named_parameters(), alone.parameters(), strict=True
            ):
                assert (one.grad is None) == (other.grad is None), (step, name)
                if other.grad is not None:
                    assert farthest({"": whole(one.grad)}, {"": other.grad}) <= 1e-12, name
            module.zero_grad()
            alone.zero_grad()

    for ended in ranks.together(3, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


def test_ranks_that_use_different_layers_are_refused(tmp_path: Path) -> None:
    """Each would compute with parts of both: it is said before a step is taken."""

    def work() -> None:
        live, module = OPTIONS.build(), Heads(listed=True)
        shared = live.wrap(module)
        with live.accumulate(shared, last=True):
            shared(torch.ones(1, 4), ["a"]).backward()
        with (
            pytest.raises(UserError, match=r"ranks use different layers.*take 'ddp' with unused"),
            live.accumulate(shared, last=True),
        ):
            shared(torch.ones(1, 4), ["bc"[live.rank]]).backward()

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


TINY_DEBERTA: dict[str, Any] = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "vocab_size": 60,
    "max_position_embeddings": 32,
}


def classifier(**options: Any) -> tuple[LiveClassifier, dict[str, Any]]:
    """A small DeBERTa with a batch."""
    torch.manual_seed(3)
    texts = ["he wakes at four", "no", "it is light"]
    records = [{"id": t, "text": t, "text_pair": "", "label": 0} for t in texts]
    info = {"labels": ["no", "yes"], "class_counts": [2, 1], "train": records}
    model = HfClassifier(config=TINY_DEBERTA, max_length=16, cache=False, **options).build(info)
    return model, model.processor.collate(model.processor.encode(records))


@pytest.mark.parametrize("recompute", [False, True])
def test_packed_deberta_is_shared_out(tmp_path: Path, recompute: bool) -> None:  # noqa: FBT001
    """Its layers compute texts behind one another, and have their weights whole for it."""

    def work() -> None:
        live = OPTIONS.build()
        model, batch = classifier(packing=True, activation_checkpointing=recompute)
        module = model.module.train()
        alone = copy.deepcopy(module)
        shared = live.wrap(module)
        with live.accumulate(shared, last=True):
            (shared(**batch)["logits"].square().sum() / live.world_size).backward()
        alone(**batch)["logits"].square().sum().backward()
        named = {k: p.grad for k, p in alone.named_parameters() if p.grad is not None}
        found = {k: p.grad for k, p in module.named_parameters() if p.grad is not None}
        assert set(found) == set(named)
        assert farthest({k: whole(v) for k, v in found.items()}, named) <= 1e-4

    for ended in ranks.together(2, work, tmp_path).wait(60):
        assert ended.code == 0, ended.err


def test_what_is_shared_out_isnt_compiled(tmp_path: Path) -> None:
    """One line names the strategy, and the model computes what it does without."""

    def work() -> None:
        live, lines = OPTIONS.build(), io.StringIO()
        logging.getLogger("framework").addHandler(logging.StreamHandler(lines))
        model, batch = classifier()
        right = model.module.eval()(**batch)["logits"].detach()
        model.compile("default")
        shared = live.wrap(model.module)
        with torch.inference_mode():
            found = shared(**batch)["logits"]
        assert farthest({"": found}, {"": right}) <= 1e-5
        assert "trainer.compile: ranks share the layers out (strategy 'fsdp')" in lines.getvalue()

    (ended,) = ranks.together(1, work, tmp_path).wait(60)
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
