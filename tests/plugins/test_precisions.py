"""The precisions: what really runs in half, and what happens around a step."""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from framework.protocols import Labelled
from plugins.optimizers.adamw import AdamW
from plugins.precisions.auto import Auto
from plugins.precisions.bf16 import Bf16
from plugins.precisions.fp16 import Fp16
from plugins.precisions.fp32 import Fp32

CPU = torch.device("cpu")
KINDS = {Fp32: torch.float32, Bf16: torch.bfloat16, Fp16: torch.float16}
every = pytest.mark.parametrize("kind", KINDS)
ROUNDING = 2**-23
"""Of a float32 weight below 1 before and after a step."""
PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default}


class Products(TorchDispatchMode):
    """Records the types of the factors of every matrix product, below autocast."""

    def __init__(self) -> None:
        """Begin with none."""
        super().__init__()
        self.seen: list[torch.dtype] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Record and run an operation."""
        if func in PRODUCTS:
            self.seen += [factor.dtype for factor in args[-2:]]
        return func(*args, **(kwargs or {}))


def net() -> nn.Module:
    """A small classifier, the same every time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3))


def loss(module: nn.Module, live: Any, scale: float = 1.0) -> torch.Tensor:
    """The loss of fixed data, under the precision."""
    inputs = torch.linspace(-1, 1, 32).view(4, 8)
    with live.autocast():
        logits = module(inputs)
    return nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])) * scale


def step(kind: Any, max_norm: float, scale: float = 1.0) -> tuple[dict[str, Any], float, bool]:
    """The gradient that one step applied, read from the weights; its norm; whether it did."""
    module, live = net(), kind().build(CPU)
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    live.backward(loss(module, live, scale))
    norm, taken = live.step(optimizer, list(module.parameters()), max_norm)
    assert all(parameter.grad is None for parameter in module.parameters())
    applied = {name: before[name] - value for name, value in module.state_dict().items()}
    return applied, float(norm), taken


@every
def test_products_run_in_its_type(kind: Any) -> None:
    """Every matrix product, forward and backward, runs in the precision; weights stay float32."""
    module, live = net(), kind().build(CPU)
    outputs = []
    module[0].register_forward_hook(lambda _, __, output: outputs.append(output.dtype))
    with Products() as products:
        live.backward(loss(module, live))
    assert outputs == [KINDS[kind]]
    assert len(products.seen) >= 10  # two layers, forward, and both gradients but the first input's
    assert set(products.seen) == {KINDS[kind]}
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in module.parameters()} == {torch.float32}
    assert live.name == kind.__name__.lower()


@every
def test_autocast_ends_with_its_context(kind: Any) -> None:
    """Outside of the context products run in float32 again."""
    module, live = net(), kind().build(CPU)
    with live.autocast():
        pass
    assert module(torch.ones(1, 8)).dtype is torch.float32


@pytest.mark.parametrize(("kind", "tolerance"), [(Bf16, 2e-2), (Fp16, 2e-3)])
def test_half_is_near_float32(kind: Any, tolerance: float) -> None:
    """Outputs in half are float32's to their type's rounding, and are not simply float32's."""
    module, inputs = net(), torch.linspace(-1, 1, 32).view(4, 8)
    with kind().build(CPU).autocast():
        half = module(inputs).float()
    full = module(inputs)
    torch.testing.assert_close(half, full, rtol=tolerance, atol=tolerance)
    assert not torch.equal(half, full)


# one rounding of a product's factors is 2^-8 and 2^-11; a gradient goes through a few
@pytest.mark.parametrize(("kind", "tolerance"), [(Bf16, 2e-2), (Fp16, 3e-3), (Fp32, 1e-6)])
@pytest.mark.parametrize("max_norm", [0.05, 0.0, 100.0])
def test_gradients_are_clipped_unscaled(kind: Any, tolerance: float, max_norm: float) -> None:
    """A step applies the true gradient, clipped by its true norm: scaling is gone before."""
    module, live = net(), Fp32().build(CPU)
    loss(module, live).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    size = float(torch.cat([g.flatten() for g in gradients.values()]).norm())
    factor = min(1.0, max_norm / size) if max_norm else 1.0
    assert (factor < 1) == (max_norm == 0.05)

    applied, norm, taken = step(kind, max_norm)
    assert taken
    assert norm == pytest.approx(size, rel=tolerance)
    for name, found in applied.items():
        torch.testing.assert_close(
            found, gradients[name] * factor, rtol=0, atol=tolerance * size * factor + ROUNDING
        )


@every
@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
def test_a_step_that_is_not_finite_is_not_taken(kind: Any, scale: float) -> None:
    """Where the gradient's norm is not finite the weights stay as they were, and it says so."""
    applied, norm, taken = step(kind, 1.0, scale)
    assert not taken
    assert not torch.tensor(norm).isfinite()
    assert not any(difference.any() for difference in applied.values())


@every
def test_a_norm_that_overflows_is_not_taken(kind: Any) -> None:
    """Gradients that are finite, with a norm that is not, are no step either."""
    module, live = net(), kind().build(CPU)
    before = copy.deepcopy(module.state_dict())
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    live.backward(loss(module, live))
    for parameter in module.parameters():
        parameter.grad.fill_(3e38)
    norm, taken = live.step(optimizer, list(module.parameters()), 1.0)
    assert (bool(norm.isinf()), taken) == (True, False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_overflow_halves_the_scale_and_training_goes_on() -> None:
    """In float16 an overflow is skipped by the fused optimizer, halves the scale, and passes."""
    module, live = net(), Fp16().build(CPU)
    labelled = [Labelled(name, p, "base", 0) for name, p in module.named_parameters()]
    optimizer = AdamW(lr=1e-2).build(labelled)
    parameters = list(module.parameters())
    before = copy.deepcopy(module.state_dict())
    scale = live.state_dict()["scale"]
    assert live.scaled

    # 65504 is float16's largest: this times the scale overflows in the product's gradient
    live.backward(loss(module, live, 1e4))
    _, taken = live.step(optimizer, parameters, 1.0)
    assert not taken
    assert live.state_dict()["scale"] == scale / 2
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(state["step"] for state in optimizer.state.values())

    live.backward(loss(module, live))
    _, taken = live.step(optimizer, parameters, 1.0)
    assert taken
    assert live.state_dict()["scale"] == scale / 2
    assert any(not torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_scaler_state_round_trip() -> None:
    """The scaler's state loads without unpickling, and its scale goes on from there."""
    module, live = net(), Fp16().build(CPU)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.0)

    def overflow(precision: Any) -> float:
        precision.backward(loss(module, precision, float("inf")))
        precision.step(optimizer, list(module.parameters()), 1.0)
        return precision.state_dict()["scale"]

    overflow(live)
    stream = io.BytesIO()
    torch.save(live.state_dict(), stream)
    stream.seek(0)
    resumed = Fp16().build(CPU)
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    assert resumed.state_dict() == live.state_dict() != Fp16().build(CPU).state_dict()
    assert overflow(resumed) == overflow(live) == Fp16().build(CPU).state_dict()["scale"] / 4


@pytest.mark.parametrize("kind", [Fp32, Bf16])
def test_nothing_to_save_without_a_scaler(kind: Any) -> None:
    """Float32 and bfloat16 have no state, skip no step as part of their working, and load none."""
    live = kind().build(CPU)
    assert live.state_dict() == {}
    assert live.scaled is False
    live.load_state_dict({})
    assert live.state_dict() == {}


@pytest.mark.parametrize(
    ("capabilities", "name"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ],
)
def test_auto_follows_the_processor(
    capabilities: dict[str, bool],
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`auto` is bf16 exactly where the processor computes in it, else fp32, and says which."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with caplog.at_level(logging.INFO, logger="framework"):
        live = Auto().build(CPU)
    assert live.name == name
    assert [record.getMessage() for record in caplog.records] == [f"precision: {name} on cpu"]
    with Products() as products:
        live.backward(loss(net(), live))
    assert set(products.seen) == {torch.bfloat16 if name == "bf16" else torch.float32}


def test_auto_on_this_machine() -> None:
    """Here, `auto` is what this processor's own capabilities say."""
    found = torch.cpu.get_capabilities()
    computes = found.get("avx512_bf16") or found.get("amx_bf16")
    assert Auto().build(CPU).name == ("bf16" if computes else "fp32")


@pytest.fixture
def _tf32() -> Iterator[None]:
    """Put the process-wide settings for CUDA back."""
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.fp32_precision for backend in backends]
    yield
    for backend, setting in zip(backends, before, strict=True):
        backend.fp32_precision = setting


@pytest.mark.usefixtures("_tf32")
@pytest.mark.parametrize(("computes", "name"), [(True, "bf16"), (False, "fp16")])
@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*:UserWarning")
def test_auto_on_cuda(computes: bool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """On CUDA `auto` is bf16 where the device computes in it, else fp16; the rest is TF32."""
    asked = []

    def answer(**settings: Any) -> bool:
        asked.append(settings)
        return computes

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", answer)
    assert Auto().build(torch.device("cuda")).name == name
    assert asked == [{"including_emulation": False}]
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    assert torch.backends.cudnn.fp32_precision == "tf32"
