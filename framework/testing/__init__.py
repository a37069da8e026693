"""The conformance kit: proves by behaviour that a plugin keeps its contract.

One line for a plugin's author, as in `check_loss(MyLoss())`; or
`pytest --framework-plugin my-dist` over everything that a distribution offers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from framework.testing.callback import check_callback
    from framework.testing.check import check_check
    from framework.testing.command import check_command
    from framework.testing.dataset import check_dataset
    from framework.testing.decoding import check_decoding
    from framework.testing.loss import check_loss
    from framework.testing.metric import check_metric
    from framework.testing.model import check_model
    from framework.testing.optimizer import check_optimizer
    from framework.testing.precision import check_precision
    from framework.testing.sampler import check_sampler
    from framework.testing.scheduler import check_scheduler
    from framework.testing.source import check_source
    from framework.testing.strategy import check_strategy
    from framework.testing.tokenizer import check_tokenizer

__all__ = [
    "check_callback",
    "check_check",
    "check_command",
    "check_dataset",
    "check_decoding",
    "check_loss",
    "check_metric",
    "check_model",
    "check_optimizer",
    "check_precision",
    "check_sampler",
    "check_scheduler",
    "check_source",
    "check_strategy",
    "check_tokenizer",
]


def __getattr__(name: str) -> Any:
    # lazily: pytest imports this package in every session, and torch takes two seconds
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{name.removeprefix('check_')}"), name)
