"""Models whose weights are wrong on purpose: gradients, frozen ones, what is saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from broken import Defect
from broken.tiny_model import Live, Model, Net, Words, forward, one
from framework.protocols import Info


def forgotten_part(self: Net) -> None:
    """Hold numbers that are in no checkpoint."""
    Net.__init__(self)
    self.scale = torch.rand(3)


def written(self: Live, folder: Path) -> None:
    """Write the weights, too."""
    (folder / "model.safetensors").write_bytes(b"")


def frozen_head(self: Net) -> None:
    """Train no bias."""
    Net.__init__(self)
    self.head.bias.requires_grad_(requires_grad=False)


def thawing(self: Net, **batch: Any) -> Any:
    """Train the bias from the first pass on."""
    self.head.bias.requires_grad_(requires_grad=self.training)
    return Net.forward(self, **batch)


def trained_mean(self: Net, **batch: Any) -> Any:
    """Subtract what was seen in training, which is in no checkpoint."""
    found = Net.forward(self, **batch)["logits"]
    if self.training:
        self.seen = found.detach().mean(0)
    return {"logits": found - getattr(self, "seen", 0.0)}


def rooted(found: dict[str, Tensor], net: Net) -> Any:
    """Take the root of zeros."""
    return {"logits": (0 * found["logits"]).sqrt()}


class NeedsTraining(Model):
    """It can't be built without training records."""

    def build(self, info: Info, assets: Path | None = None) -> Any:
        """Build it."""
        Words().encode(info["train"])
        return Live(Net(), Words())


DEFECTS = [
    one(
        "labels_every_parameter_once",
        "FrozenToo",
        "'head.bias' is not trainable",
        Net,
        __init__=frozen_head,
    ),
    one(
        "gradients_reach_every_parameter",
        "Thawing",
        "'head.bias' is frozen and gets a gradient",
        Net,
        __init__=frozen_head,
        forward=thawing,
    ),
    one(
        "gradients_reach_every_parameter",
        "Rooted",
        "the gradient of 'embed.weight' is not finite",
        Net,
        forward=forward(rooted),
    ),
    one(
        "survives_saving",
        "SeenInTraining",
        "persistent buffers or assets",
        Net,
        forward=trained_mean,
    ),
    one(
        "survives_saving",
        "Forgets",
        "'logits' is another when it is loaded",
        Net,
        __init__=forgotten_part,
        forward=forward(lambda x, net: {"logits": x["logits"] * net.scale}),
    ),
    one(
        "survives_saving", "WritesWeights", "the weights are the core's", Live, save_assets=written
    ),
    Defect("survives_saving", NeedsTraining(), "KeyError: 'train'"),
]
