"""Check precision: what products really run in, and how gradients are scaled and clipped."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from plugins.checks import _losses
from plugins.checks.gradient import NORMS
from plugins.checks.input import TARGETS
from plugins.checks.loss import FINITE

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "convolution", "mkldnn")
_HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SHORT = {torch.float32: "float32", torch.float64: "float64"}
_OFF = 0.1
"""Share by which outputs of 16 bits may differ from float32's."""
PRODUCTS = "what products run in"
SCALER = "the scaler adapts"
CLIPPED = "gradients are unscaled, then clipped"
AGREES = "agrees with float32"


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts matrix products by the type that they are computed in."""

    def __init__(self) -> None:
        """Start from none."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Look at what an operation is given, and have it computed."""
        name = func.__name__.partition(".")[0].lstrip("_")
        if name.startswith(_PRODUCTS) or "attention" in name:
            given = [x.dtype for x in args if isinstance(x, Tensor) and x.is_floating_point()]
            self.seen.update(given[-1:])
        return func(*args, **(kwargs or {}))


@attrs.frozen
class PrecisionCheck:
    """The precision is the one that it is called, and its steps are those of plain gradients."""

    area = "precision"

    def observe(self, probe: Any) -> None:
        """Watch products in a forward pass, then gradients in a step."""
        with probe.trial() as trainer:
            trainer.update.forward.module.eval()
            seen = _products(probe, trainer)
            _agrees(probe, trainer)
        if why := probe.failed(TARGETS, FINITE, NORMS):
            probe.skips(CLIPPED, why)
            probe.skips(SCALER, why)
            return
        with probe.trial() as trainer:
            _clipped(probe, trainer)
        with probe.trial() as trainer:
            _scaler(probe, trainer, seen)


def _products(probe: Any, trainer: Any) -> Counter[torch.dtype]:
    forward, products = trainer.update.forward, Products()
    with torch.no_grad(), products:
        forward(probe.window()[0])
    seen, name = products.seen, forward.precision.name
    told = ", ".join(f"{n} in {_named(dtype)}" for dtype, n in seen.most_common()) or "none at all"
    told = f"{name}: {told}"
    half = _HALVES.get(name)
    if half and not seen[half]:
        advice = "let autocast() enter torch.autocast of that type, on the device in use"
        probe.fails(PRODUCTS, told, advice)
    elif name == "fp32" and any(seen[dtype] for dtype in _HALVES.values()):
        probe.fails(PRODUCTS, told, "keep the model and its inputs in float32, or name the type")
    else:
        probe.passes(PRODUCTS, told)
    return seen


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _agrees(probe: Any, trainer: Any) -> None:
    forward, batch = trainer.update.forward, probe.window()[0]
    with torch.no_grad():
        found, _ = forward(batch)
    right, _ = _losses.exact(trainer, batch)
    worst = 0.0
    for name, value in right.items():
        if value.is_floating_point() and value.numel():
            scale = float(value.float().norm()) or 1.0
            worst = max(worst, float((found[name].float() - value.float()).norm()) / scale)
    told = f"outputs differ from float32's by {worst:.2g} of their size"
    if worst <= _OFF:
        probe.passes(AGREES, told)
    else:
        probe.fails(AGREES, told, "compute what loses digits (norms, softmax) in float32")


def _clipped(probe: Any, trainer: Any) -> None:
    """Hold the gradients that a step is taken by against those of a plain backward pass."""
    update, window = trainer.update, probe.window()
    update.forward.module.eval()  # the same twice, without dropout
    optimizer = update.optimizer
    if not hasattr(optimizer, "register_step_pre_hook"):
        probe.skips(CLIPPED, "the optimizer lets nobody look before its step")
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plain = _plain(update, window, parameters)
    if not 0 < plain < math.inf:
        probe.skips(CLIPPED, f"the gradient's norm is {plain:.3g}")
        return
    bound, seen = plain / 2, []
    hook = optimizer.register_step_pre_hook(lambda *_: seen.append(_norm(parameters)))
    told_norm = math.inf
    for number in range(_WINDOWS):  # a scaler may begin with a scale that overflows
        _, norm, missed = attrs.evolve(update, max_norm=bound, factor=lambda _: 0.0)(window, number)
        told_norm = float(norm)
        if not missed:
            break
    hook.remove()
    told = f"norm {plain:.3g}, told as {told_norm:.3g}; bound to {bound:.3g} a step sees "
    # the first: an optimizer may change them on its way to a step that it inherits
    told += f"{seen[0]:.3g}" if seen else "none"
    if not seen or abs(told_norm - plain) > _OFF * plain or abs(seen[0] - bound) > _OFF * bound:
        advice = "unscale once before the norm is taken, then clip, then step"
        probe.fails(CLIPPED, told, advice)
    else:
        probe.passes(CLIPPED, told)


_WINDOWS = 20


def _plain(update: Any, window: Any, parameters: list[Tensor]) -> float:
    """Return the norm of a window's gradients, without the precision's scaling."""
    torch.autograd.backward(_losses.of_window(update, window))
    norm = _norm(parameters)
    for parameter in parameters:
        parameter.grad = None
    return norm


def _norm(parameters: list[Tensor]) -> float:
    found = [p.grad.detach().float().norm() for p in parameters if p.grad is not None]
    return float(torch.stack(found).norm()) if found else 0.0


def _scaler(probe: Any, trainer: Any, seen: Counter[torch.dtype]) -> None:
    """Have a step overflow: it must not be taken, and the scale must fall."""
    update = trainer.update
    precision = update.forward.precision
    if not precision.scaled:
        if seen[torch.float16]:
            told = "products run in float16, and nothing scales their gradients"
            probe.fails(SCALER, told, "use a gradient scaler: small gradients are lost as 0")
        else:
            probe.skips(SCALER, "no scaler, which only float16 needs")
        return
    held = [p for group in update.optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in held]
    scale = _numbers(precision.state_dict())
    hooks = [p.register_hook(lambda gradient: gradient * math.inf) for p in held[:1]]
    _, _, missed = update(probe.window(), 0)
    for hook in hooks:
        hook.remove()
    moved = any(not p.equal(old) for p, old in zip(held, before, strict=True))
    after = _numbers(precision.state_dict())
    told = f"after a step that overflowed: {scale} → {after}"
    if moved or not missed:
        probe.fails(SCALER, f"{told}; the step was taken", "leave out steps that overflow")
    elif after == scale:
        probe.fails(SCALER, f"{told}; nothing changed", "call the scaler's update() each step")
    else:
        probe.passes(SCALER, told)


def _numbers(state: dict[str, Any]) -> str:
    numbers = {k: v for k, v in state.items() if isinstance(v, int | float)}
    return ", ".join(f"{k} {v:g}" for k, v in numbers.items() if "scale" in k) or str(numbers)
