"""The metric precision."""

from __future__ import annotations

import attrs

from framework.protocols import Info, option
from plugins.metrics._confusion import Average, Confusion, confusion


@attrs.frozen
class Precision:
    """The share of the positive predictions that are right, as scikit-learn's score of that name.

    `labels` are all classes and `zero_division=0`: an absent class scores 0 and is averaged in.
    """

    average: Average = option(
        "binary", help="over classes; binary: of the last of two labels, the positive one"
    )

    def build(self, info: Info) -> Confusion:
        """Build it for a dataset's labels; `UserError` where the average doesn't fit them."""
        return confusion("precision", self.average, info)
