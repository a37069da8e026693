"""The metric accuracy."""

from __future__ import annotations

import attrs

from framework.protocols import Info
from plugins.metrics._confusion import Confusion, confusion


@attrs.frozen
class Accuracy:
    """The share of items whose highest logit is their label's."""

    def build(self, info: Info) -> Confusion:
        """Build it for a dataset's labels."""
        return confusion("accuracy", "micro", info)
