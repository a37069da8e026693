"""`trainer.compile`: a run computed by torch.compile is the usual run, in few graphs or in none."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from support import EXACT, RINGING, SHORT, install, only_run, points, table
from torch import Tensor

from framework.__main__ import main
from plugins.models import _compiled, _cpu
from plugins.models.hf_classifier import HfClassifier, LiveClassifier
from tests.faults import experiments

# the compiler's own import of torch.jit
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
compiler = pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
# one length, so that a run compiles one graph for training and one for evaluation
ONE = ("precision=fp32", "model.max_length=8", "trainer.batch_size=16", "trainer.log_every=1")
COMPILED = "trainer.compile=default"
ROOM = 24
"""Which makes three lengths: 8, 16 and 24."""
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": ROOM + 1,
    "vocab_size": 60,
    "initializer_range": 0.3,  # so that what a text says moves its logits
}
RELATIVE: dict[str, Any] = {
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 4,
    "share_att_key": True,
}
RECORDS = [
    {"id": str(at), "text": "the night was long and sleep far off " * (1 + at), "label": at % 2}
    for at in range(2)
]
INFO = {"labels": ["no", "yes"], "class_counts": [1, 1], "train": RECORDS}


@pytest.fixture(scope="module", autouse=True)
def _kernels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Kernels are compiled by one process, and are this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        with torch._inductor.config.patch(compile_threads=1):
            yield


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """No test has the graphs of another."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs are found as usual, and run by torch's own kernels: none has to be made."""
    eager = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", eager)


def graphs() -> int:
    """How many graphs were compiled in this test."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged so far, torch's own records apart."""
    return [record.getMessage() for record in caplog.records if record.name == "framework"]


def trained(folder: Path, patch: pytest.MonkeyPatch, *sets: str, code: int = 0) -> Path:
    """The folder of a small run."""
    folder.mkdir()
    patch.chdir(folder)
    (folder / "tiny.toml").write_text(SHORT, encoding="utf-8")
    words = [word for text in sets for word in ("--set", text)]
    assert main(["run", "tiny.toml", *words]) == code
    return only_run(folder, "tiny")


def weights(run: Path) -> dict[str, Tensor]:
    """The weights that a run ended with."""
    return load_file(run / "checkpoints" / "last" / "model" / "model.safetensors")


def build(kind: str = "bert", dropout: float = 0.0, **options: Any) -> LiveClassifier:
    """A small model of an architecture, the same every time."""
    torch.manual_seed(0)
    head = "classifier_dropout" if kind == "bert" else "pooler_dropout"
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", head)
    config = SMALL | dict.fromkeys(names, dropout) | {"model_type": kind}
    config |= RELATIVE if kind == "deberta-v2" else {}
    return HfClassifier(config=config, max_length=ROOM, cache=False, **options).build(INFO)


def batch(rows: int, length: int) -> dict[str, Tensor]:
    """A padded batch whose longest row has a length."""
    ids = torch.arange(rows * length).reshape(rows, length) % 40 + 5
    lengths = [max(1, length - 2 * at) for at in range(rows)]
    mask = (torch.arange(length) < torch.tensor(lengths).unsqueeze(1)).long()
    return {"input_ids": ids * mask, "attention_mask": mask}


def step(live: LiveClassifier, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The logits of a batch in training, and every gradient of theirs."""
    live.module.train()
    live.module.zero_grad()
    torch.manual_seed(1)
    logits = live.module(**given)["logits"]
    torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)) % 2).backward()
    named = live.module.named_parameters()
    return {"logits": logits.detach()} | {n: p.grad for n, p in named if p.grad is not None}


def near(found: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> None:
    """Hold that tensors are equal but for what float32 rounds when sums are of another order."""
    assert found.keys() == right.keys()
    for name, value in right.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)


# few graphs


@given(st.integers(8, 4096))
def test_lengths_are_few_and_never_wasteful(most: int) -> None:
    """At most six lengths, the last of them the longest batch's, each about half of the next."""
    found = _compiled.lengths(most)
    assert len(found) <= _compiled.LENGTHS
    assert found[-1] == most
    assert all(length % 8 == 0 for length in found[:-1])
    for shorter, longer in itertools.pairwise(found):
        assert shorter < longer <= 2 * shorter
    assert found[0] <= max(8, most // 2 ** (_compiled.LENGTHS - 1) + 8)


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_an_epoch_of_many_lengths_compiles_a_handful(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole epochs, evaluations and a test compile a graph for each length and mode at most."""
    shapes = set()
    call = _compiled.Compiled.__call__

    def seen(self: _compiled.Compiled, given: Mapping[str, Tensor]) -> Tensor:
        shapes.add(given["input_ids"].shape)
        return call(self, given)

    monkeypatch.setattr(_compiled.Compiled, "__call__", seen)
    many = ("trainer.steps=0", "trainer.eval_every=0", "trainer.batch_size=8", *ONE[:1])
    trained(tmp_path / "run", monkeypatch, COMPILED, *many, "trainer.micro_batch=5")
    assert "trainer.compile" not in capsys.readouterr().err
    assert len({length for _, length in shapes}) > 10
    assert len({rows for rows, _ in shapes}) > 2
    assert 2 <= graphs() <= 2 * len(_compiled.lengths(64)) == 8


# the same numbers


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("kind", "options"), [("bert", {"activation_checkpointing": True}), ("deberta-v2", {})]
)
def test_any_number_of_rows_is_one_graph(
    kind: str, options: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the rows, logits and gradients are those without; a single row, too."""
    usual, live = (build(kind, **options) for _ in range(2))
    live.compile("default")
    for rows in (3, 1):
        near(step(live, batch(rows, 13)), step(usual, batch(rows, 13)))
    assert graphs() == 1
    for made in (usual, live):
        made.module.eval()
    with torch.inference_mode():
        found, right = (made.module(**batch(2, 9))["logits"] for made in (live, usual))
    assert found.shape == (2, 2)
    torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)
    assert graphs() == 2
    assert not [line for line in said(caplog) if "trainer.compile" in line]


@pytest.mark.slow
@compiler
def test_a_compiled_run_is_the_usual_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Losses, metrics, predictions and weights are those of a run without, and have their names."""
    usual = trained(tmp_path / "usual", monkeypatch, *ONE, *EXACT)
    run = trained(tmp_path / "compiled", monkeypatch, *ONE, *EXACT, COMPILED)
    assert "trainer.compile" not in capsys.readouterr().err
    assert 0 < graphs() <= 2
    for ours, theirs in zip(points(run), points(usual), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    found, right = weights(run), weights(usual)
    assert found.keys() == right.keys()
    for name, value in right.items():
        # Adam divides by the gradient's size: where that is mere rounding, a step is of any sign
        assert (found[name] - value).abs().max() <= 6 * 1e-3, name
        assert (found[name] - value).abs().mean() < 1e-5, name
    names = ("id", "probability_evidence")
    told = [[row[name] for row in table(run / "predictions" / "test.csv")] for name in names]
    known = [[row[name] for row in table(usual / "predictions" / "test.csv")] for name in names]
    assert told[0] == known[0]
    assert [*map(float, told[1])] == pytest.approx([*map(float, known[1])], abs=1e-5)
    # the command builds it again, compiled as the run was
    assert main(["evaluate", str(run)]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_a_compiled_run_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted and resumed, with dropout, it ends as one that never was."""
    offers = {"framework.callback": {"ring": "ring_compiled:Ring"}}
    install(monkeypatch, tmp_path / "site", "ring 1.0", offers, ring_compiled=RINGING)
    whole = trained(tmp_path / "whole", monkeypatch, *ONE, COMPILED)
    sets = (*ONE, COMPILED, "callbacks.ring={}")
    halted = trained(tmp_path / "halted", monkeypatch, *sets, code=143)
    words = [word for text in (*ONE, COMPILED) for word in ("--set", text)]
    assert main(["run", "tiny.toml", *words, "--resume"]) == 0
    assert points(halted) == points(whole)
    found, right = weights(halted), weights(whole)
    assert all(torch.equal(found[name], right[name]) for name in right)


# falling back


def test_without_a_compiler_it_is_the_usual_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where there is no C++ compiler one line says so, and the run is the usual one bit for bit."""
    usual = trained(tmp_path / "usual", monkeypatch, *ONE[:1])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "kernels"))
    capsys.readouterr()
    with torch._inductor.config.patch({"cpp.cxx": ("/nowhere/g++",)}):
        run = trained(tmp_path / "run", monkeypatch, *ONE[:1], COMPILED)
    (line,) = [x for x in capsys.readouterr().err.splitlines() if "trainer.compile" in x]
    assert "No working C++ compiler" in line
    assert line.endswith("; going on without it")
    assert points(run) == points(usual)
    found, right = weights(run), weights(usual)
    assert all(torch.equal(found[name], right[name]) for name in right)


class _Fails(torch.autograd.Function):
    """Computes nothing, and can't be traced backward."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        assert not torch.compiler.is_compiling()
        return gradients[0]


def _breaks(_: Any, __: Any, output: Tensor) -> Tensor:
    torch._dynamo.graph_break()
    return output


def _late(module: torch.nn.Module, given: Any, output: Tensor) -> Tensor:
    return output if module.training else _breaks(module, given, output)


def _backward(_: Any, __: Any, output: Tensor) -> Tensor:
    found: Tensor = _Fails.apply(output)
    return found


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("hook", [_breaks, _late, _backward])
def test_what_cant_be_compiled_is_as_it_was(
    hook: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Whenever it turns out, dropout and gradients from there on are those without, bit for bit."""
    usual, live = build(dropout=0.3), build(dropout=0.3)
    for made in (usual, live):
        made.module.net.classifier.register_forward_hook(hook)
    live.compile("default")
    if hook is _late:
        step(live, batch(3, 13))
        assert said(caplog) == []
        live.module.eval()
        with torch.inference_mode():
            live.module(**batch(3, 13))
    for _ in range(2):
        found, right = step(live, batch(3, 13)), step(usual, batch(3, 13))
        assert all(torch.equal(found[name], right[name]) for name in right)
    (line,) = said(caplog)
    assert line.startswith("trainer.compile: ")
    assert "\n" not in line
    assert len(line) < 260
    assert live.module.net.config._attn_implementation == _cpu.NAME


@pytest.mark.usefixtures("traced")
def test_what_fails_in_the_model_itself_is_told_as_it_is() -> None:
    """An error of the computation is no matter of compiling: memory, ids that are none."""
    live = build()
    live.compile("default")
    ids = {"input_ids": torch.full((2, 8), 10_000), "attention_mask": torch.ones(2, 8).long()}
    with pytest.raises(IndexError, match="out of range"):
        live.module(**ids)


# the option


def test_packing_cant_be_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Packed batches have no few lengths: it is one line before anything is written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(SHORT, encoding="utf-8")
    words = ["--set", COMPILED, "--set", "model.packing=true"]
    assert main(["run", "tiny.toml", *words]) == 2
    assert "set it or model.packing to false" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("value", "told"),
    [("true", "found true"), ('"defualt"', "did you mean 'default'"), ("0", "found 0")],
)
def test_a_mode_is_one_of_torchs(
    value: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is false or a mode's name, and any other value an error at its place."""
    file = tmp_path / "tiny.toml"
    file.write_text(SHORT.replace("steps = 6", f"compile = {value}\nsteps = 6"))
    assert main(["validate", str(file)]) == 2
    said = capsys.readouterr().err
    line = file.read_text().splitlines().index(f"compile = {value}") + 1
    assert f"tiny.toml:{line}:11: 'compile': expected one of" in said
    assert told in said


@pytest.mark.usefixtures("traced")
def test_a_model_that_knows_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without `compile` is compiled as it is, and computes the same."""
    experiments.install_parts(monkeypatch, tmp_path / "site")
    found = []
    for sets in ((), ("--set", COMPILED)):
        folder = tmp_path / str(len(sets))
        folder.mkdir()
        monkeypatch.chdir(folder)
        (folder / "fault.toml").write_text(experiments.TEXT)
        assert graphs() == 0
        assert main(["run", "fault.toml", *sets]) == 0
        found.append(only_run(folder, "fault"))
    assert 0 < graphs() <= 8
    usual, run = map(points, found)
    for ours, theirs in zip(run, usual, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-6)
    assert weights(found[1]).keys() == weights(found[0]).keys()
