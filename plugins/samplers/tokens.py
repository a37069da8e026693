"""A budget of tokens for each micro-batch."""

from __future__ import annotations

import attrs
from attrs.validators import ge

from framework.protocols import option
from plugins.samplers._bucketed import LiveBucketed


@attrs.frozen
class Tokens:
    """Steps as `bucket` makes them, cut into micro-batches of at most so many tokens.

    Many short records or few long ones are computed at once; the loss is that of the whole step.
    """

    budget: int = option(
        help="tokens of a micro-batch, padding counted; a longer record stands alone",
        validator=ge(1),
    )

    def build(self) -> LiveBucketed:
        """Build it."""
        return LiveBucketed(self.budget)
