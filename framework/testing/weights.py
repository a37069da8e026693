"""The checks of a model's weights: their labels, start, gradients, and what is saved of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from framework import checkpoint
from framework.image import Image
from framework.protocols import LiveModel
from framework.testing.processor import ModelCase, encoded, outputs_of, plain
from framework.testing.suite import Failure, require
from framework.testing.values import equal, frozen_copy, seeded

SHAKE = 0.05
"""Standard deviation of what is added to parameters."""
WILDEST = 16.0
"""How many times as far they are moved where no gradient reaches some otherwise."""
PASSES = 64
"""Forward passes in one of which, at the latest, a gradient must reach each parameter."""


def _shake(live: LiveModel, seed: int, scale: float = 1.0) -> None:
    """Move every parameter a little, as if trained: away from zeros, and from what was read."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in live.module.parameters():
            moved = SHAKE * scale * torch.randn(parameter.shape, generator=generator)
            parameter.add_(moved.to(parameter))


def labels_every_parameter_once(case: ModelCase) -> None:
    """`labelled` gives each trainable parameter once, with its name, part and depth."""
    live = case.build()
    named, seen = dict(live.module.named_parameters()), set()
    for name, parameter, part, depth in live.labelled():
        require(
            named.get(name) is parameter, f"'{name}' is not the module's parameter of that name"
        )
        require(parameter.requires_grad, f"'{name}' is not trainable; leave it out")
        require(name not in seen, f"'{name}' is given twice")
        require(part in ("base", "head"), f"the part of '{name}' is {part!r}; 'base' or 'head'")
        require(
            type(depth) is int and depth >= 0,
            f"the depth of '{name}' is {depth!r}; count from 0, the embeddings",
        )
        seen.add(name)
    left = [name for name, p in named.items() if p.requires_grad and name not in seen]
    require(not left, f"it leaves {left[:3]} out, which no optimizer will then train")


def same_seed_same_model(case: ModelCase) -> None:
    """Two builds after one seed give the same weights and features, bit for bit."""
    builds = []
    for _ in range(2):
        with seeded(3):
            live = case.build()
            builds.append((live.module.state_dict(), plain(encoded(live, case.few))))
    (weights, features), (others, again) = builds
    differ = [name for name in weights if not equal(weights[name], others.get(name))]
    require(not differ, f"after the same seed it starts with other weights in {differ[:3]}")
    require(equal(features, again), "built again, its processor encodes records otherwise")


def gradients_reach_every_parameter(case: ModelCase) -> None:
    """In training each trainable parameter gets a gradient that is not zero, a frozen one none."""
    live = case.build()
    frozen = {n for n, p in live.module.named_parameters() if not p.requires_grad}
    live.module.train()
    start = frozen_copy(dict(live.module.named_parameters()))
    for attempt in range(PASSES):  # for what starts at zero, sleeps by chance or by the record
        with torch.no_grad():
            for name, parameter in live.module.named_parameters():
                parameter.copy_(start[name])
        _shake(live, attempt, min(1.0 + attempt, WILDEST))
        _backward(live, case, attempt)
        asleep = [
            name
            for name, parameter in live.module.named_parameters()
            if name not in frozen and (parameter.grad is None or not parameter.grad.any())
        ]
        if not asleep:
            break
    for name, parameter in live.module.named_parameters():
        gradient = parameter.grad
        if name in frozen:
            require(gradient is None, f"'{name}' is frozen and gets a gradient")
        else:
            finite = gradient is None or gradient.isfinite().all()
            require(finite, f"the gradient of '{name}' is not finite")
    for name in asleep:
        unused = live.module.get_parameter(name).grad is None
        raise Failure(
            (f"no gradient reaches '{name}'" if unused else f"the gradient of '{name}' is zero")
            + f" in {PASSES} passes of moved parameters; use it, or freeze it; what only other"
            " records can wake belongs into expected_failures"
        )


def _backward(live: LiveModel, case: ModelCase, seed: int) -> None:
    """Add the gradients of a random sum of the outputs, in a batch of all records."""
    processor = live.processor
    features = encoded(live, case.records)
    draw = np.random.default_rng(seed)
    batch = processor.collate([processor.augment(item, draw) for item in features])
    generator = torch.Generator().manual_seed(seed)
    parts = [
        (value * torch.randn(value.shape, generator=generator)).sum()
        for value in live.module(**batch).values()
        if value.is_floating_point()
    ]
    total = torch.stack(parts).sum()
    require(total.requires_grad, "no gradient reaches the outputs; are they detached?")
    torch.autograd.backward(total)


def survives_saving(case: ModelCase) -> None:
    """Built again from its assets and weights, without training records, it is bit for bit it."""
    live = case.build()
    _shake(live, PASSES)
    live.module.train()
    outputs_of(live, case.few)  # statistics of training are kept, too
    live.module.eval()
    before = outputs_of(live, case.few)
    info = json.loads(json.dumps({k: v for k, v in case.info.items() if k != "train"}))
    with tempfile.TemporaryDirectory() as folder, seeded(9):
        file = Path(folder) / "model.safetensors"
        live.save_assets(Path(folder))
        require(not file.exists(), f"save_assets writes {file.name}; the weights are the core's")
        image = Image()
        image.fill(checkpoint.distinct(live.module))
        image.write(file)
        again: LiveModel = case.options.build(info, Path(folder))
        checkpoint.load_weights(again.module, file)
        again.module.eval()
        after = outputs_of(again, case.few)
    for name, value in before.items():
        require(
            equal(value, after.get(name)),
            f"'{name}' is another when it is loaded again; keep all it needs in parameters,"
            " persistent buffers or assets",
        )
