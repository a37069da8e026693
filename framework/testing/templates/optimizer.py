"""Stochastic gradient descent with momentum."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import attrs
import torch

from framework.protocols import Labelled, option


@attrs.frozen
class Template:
    """SGD with Nesterov's momentum (Sutskever et al., ICML 2013).

    Parameters of one dimension (biases, the scales of norms) do not decay.
    """

    lr: float = option(0.01, help="learning rate", validator=attrs.validators.gt(0.0))
    head_factor: float = option(
        1.0, help="the head's rate, in learning rates", validator=attrs.validators.gt(0.0)
    )
    momentum: float = option(
        0.9,
        help="share of the last step that is kept",
        validator=[attrs.validators.gt(0.0), attrs.validators.lt(1.0)],
    )
    weight_decay: float = option(0.0, help="decay of weights", validator=attrs.validators.ge(0.0))

    def build(self, parameters: Sequence[Labelled]) -> torch.optim.SGD:
        """Build it with a group for each rate and decay."""
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = defaultdict(list)
        for item in parameters:
            rate = self.lr * (self.head_factor if item.part == "head" else 1.0)
            decay = self.weight_decay if item.parameter.ndim > 1 else 0.0
            groups[rate, decay].append(item.parameter)
        return torch.optim.SGD(
            [
                {"params": members, "lr": rate, "weight_decay": decay}
                for (rate, decay), members in groups.items()
            ],
            lr=self.lr,
            momentum=self.momentum,
            nesterov=True,
        )
