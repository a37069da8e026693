"""A model that writes down every random number it is given, by rank."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor, nn

from framework.protocols import Features, Info, Outputs, Record
from tests.faults.parts import Layers, Letters, LiveNet


@attrs.frozen
class Streams:
    """A network that notes what each batch drew: of records, of global generators, of dropout."""

    def build(self, info: Info, assets: Path | None = None) -> LiveNet:
        """Build it."""
        return LiveNet(Noting(len(info["labels"]), 0.5), Drawing(info))  # type: ignore[arg-type]


@attrs.frozen
class Drawing:
    """Adds to each record's features what was drawn for it."""

    info: Info

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Number their letters."""
        return Letters(self.info).encode(records)

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Draw from the record's own generator, and from those that third parties use."""
        worker = torch.utils.data.get_worker_info()
        drawn = {
            "record": int(rng.integers(2**62)),
            "python": random.getrandbits(62),
            "numpy": int(np.random.randint(2**62)),  # noqa: NPY002 - what third parties draw from
            "torch": int(torch.randint(2**62, ())),
            "worker": -1 if worker is None else worker.id,
        }
        return {**features, "drawn": drawn}

    def collate(self, features: Sequence[Features]) -> dict[str, Any]:
        """Pad, and hand on what was drawn."""
        drawn = [item["drawn"] for item in features if "drawn" in item]
        return Letters(self.info).collate(features) | {"drawn": drawn}

    def decode(self, outputs: Outputs, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Label and prediction."""
        return Letters(self.info).decode(outputs, batch)


class Noting(Layers):
    """The network."""

    def forward(  # type: ignore[override]
        self, letters: Tensor, drawn: Sequence[Mapping[str, int]], **_: Any
    ) -> dict[str, Tensor]:
        """Return `logits` [B, C]; in training a line in the current folder says what was drawn."""
        if self.training:
            mask = nn.functional.dropout(torch.ones(128), 0.5).bool().int().tolist()
            line = {"drawn": drawn, "dropout": int("".join(map(str, mask)), 2)}
            with Path(f"streams-{os.environ['RANK']}.jsonl").open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        return super().forward(letters)
