"""The optimizers, against torch's own unfused AdamW and the rules for groups."""

from __future__ import annotations

import copy
import io
import logging
from typing import Any

import pytest
import torch
from torch import nn

from framework.protocols import Labelled
from plugins.optimizers.adamw import AdamW

TOP = 3
"""Depth of the head of `Net`."""


class Net(nn.Module):
    """Embeddings, two layers with norms, and a head."""

    def __init__(self) -> None:
        """Build it, the same every time."""
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(7, 4)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4)) for _ in range(TOP - 1)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [B, C] of ids [B]."""
        hidden = self.embeddings(ids)
        for layer in self.layers:
            hidden = layer(hidden)
        return self.head(hidden)

    def labelled(self) -> list[Labelled]:
        """What a model says of its parameters."""
        parts = [self.embeddings, *self.layers, self.head]
        return [
            Labelled(f"{depth}.{name}", parameter, "head" if depth == TOP else "base", depth)
            for depth, part in enumerate(parts)
            for name, parameter in part.named_parameters()
        ]


def train(net: Net, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Some steps on fixed data."""
    ids, labels = torch.arange(7), torch.arange(7) % 3
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(ids), labels).backward()
        optimizer.step()


def settings(optimizer: torch.optim.Optimizer, name: str) -> dict[int, Any]:
    """One setting of every parameter, by the parameter's identity."""
    return {id(p): group[name] for group in optimizer.param_groups for p in group["params"]}


OPTIONS = [
    AdamW(),
    AdamW(head_lr=1e-2),
    AdamW(layer_decay=0.5),
    AdamW(lr=1e-3, head_lr=3e-3, layer_decay=0.9, weight_decay=0.0),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_is_in_one_group(options: AdamW) -> None:
    """Each trainable parameter is in exactly one group, whatever the options."""
    net = Net()
    optimizer = options.build(net.labelled())
    members = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in net.parameters())
    kinds = [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
    assert len(set(kinds)) == len(kinds)
    assert all(group["initial_lr"] == group["lr"] for group in optimizer.param_groups)


def test_biases_and_norms_do_not_decay() -> None:
    """Weights decay as asked for; biases and the scales of norms don't."""
    net = Net()
    found = settings(AdamW(weight_decay=0.3).build(net.labelled()), "weight_decay")
    spared = {
        id(parameter)
        for module in net.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if name == "bias" or isinstance(module, nn.LayerNorm)
    }
    assert spared
    assert {key for key, decay in found.items() if decay == 0.0} == spared
    assert {decay for key, decay in found.items() if key not in spared} == {0.3}


def test_decay_shrinks_only_what_decays() -> None:
    """With a gradient of 0 a step shrinks weights by lr times decay and moves nothing else."""
    net = Net()
    before = copy.deepcopy(net.state_dict())
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(net.labelled())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, after in net.state_dict().items():
        factor = 0.95 if before[name].ndim > 1 else 1.0
        torch.testing.assert_close(after, before[name] * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (AdamW(lr=1e-3), [1e-3, 1e-3, 1e-3, 1e-3]),
        (AdamW(lr=1e-3, head_lr=5e-3), [1e-3, 1e-3, 1e-3, 5e-3]),
        (AdamW(lr=1e-3, layer_decay=0.5), [1.25e-4, 2.5e-4, 5e-4, 1e-3]),
        (AdamW(lr=1e-3, head_lr=4e-3, layer_decay=0.5), [1.25e-4, 2.5e-4, 5e-4, 4e-3]),
    ],
)
def test_rates_by_depth(options: AdamW, expected: list[float]) -> None:
    """A layer's rate is lr times layer_decay per layer above it; the head has its own."""
    net = Net()
    rates = settings(options.build(net.labelled()), "lr")
    for item in net.labelled():
        assert rates[id(item.parameter)] == pytest.approx(expected[item.depth], rel=1e-12)


def test_depth_counts_from_the_head_that_is_there() -> None:
    """Decay counts from the deepest trainable parameter: a frozen encoder leaves lr to the head."""
    net = Net()
    head = [item for item in net.labelled() if item.part == "head"]
    rates = settings(AdamW(lr=1e-3, layer_decay=0.5).build(head), "lr")
    assert set(rates.values()) == {1e-3}


def test_it_is_fused_and_equals_torchs_unfused() -> None:
    """On the CPU it steps fused, and 50 steps equal torch's unfused AdamW to 1e-6."""
    options = AdamW(lr=1e-2, weight_decay=0.1, beta1=0.8, beta2=0.95, eps=1e-7)
    ours, theirs = Net(), Net()
    optimizer = options.build(ours.labelled())
    assert all(group["fused"] for group in optimizer.param_groups)
    weights = [p for p in theirs.parameters() if p.ndim > 1]
    others = [p for p in theirs.parameters() if p.ndim == 1]
    reference = torch.optim.AdamW(
        [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.8, 0.95),
        eps=1e-7,
        fused=False,
        foreach=False,
    )
    start = copy.deepcopy(ours.state_dict())
    train(ours, optimizer, 50)
    train(theirs, reference, 50)
    assert (ours.head.weight - start["head.weight"]).abs().max() > 0.1
    for name, found in ours.state_dict().items():
        torch.testing.assert_close(found, theirs.state_dict()[name], rtol=0, atol=1e-6)


def test_without_a_fused_kernel_it_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """What no fused kernel takes is stepped without one, and a line in the log says why."""
    phase = nn.Parameter(torch.ones(3, 3, dtype=torch.complex64))
    with caplog.at_level(logging.INFO, logger="framework"):
        optimizer = AdamW(lr=0.5).build([Labelled("phase", phase, "base", 0)])
    assert not any(group["fused"] for group in optimizer.param_groups)
    phase.grad = torch.ones_like(phase)
    optimizer.step()
    assert phase.detach().real.max() < 0.6
    (record,) = caplog.records
    assert "no fused kernel" in record.getMessage()
    assert "\n" not in record.getMessage()


def test_state_round_trip() -> None:
    """Saved midway and loaded without unpickling, training goes on to the same bits."""
    options = AdamW(lr=1e-2, head_lr=2e-2, layer_decay=0.9)
    whole = Net()
    optimizer = options.build(whole.labelled())
    train(whole, optimizer, 5)
    stream = io.BytesIO()
    torch.save({"net": whole.state_dict(), "optimizer": optimizer.state_dict()}, stream)
    train(whole, optimizer, 5)

    stream.seek(0)
    saved = torch.load(stream, weights_only=True)
    resumed = Net()
    fresh = options.build(resumed.labelled())
    resumed.load_state_dict(saved["net"])
    fresh.load_state_dict(saved["optimizer"])
    assert all(group["fused"] and group["initial_lr"] for group in fresh.param_groups)
    train(resumed, fresh, 5)
    for name, found in resumed.state_dict().items():
        assert torch.equal(found, whole.state_dict()[name])


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("lr", 0.0),
        ("head_lr", -1e-5),
        ("layer_decay", 0.0),
        ("layer_decay", 1.1),
        ("weight_decay", -0.1),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", 0.0),
    ],
)
def test_options_out_of_range(name: str, number: float) -> None:
    """A number that no AdamW can use is refused by the option's name."""
    with pytest.raises(ValueError, match=f"'{name}'"):
        AdamW(**{name: number})
