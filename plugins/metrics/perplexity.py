"""The metric perplexity."""

from __future__ import annotations

import attrs

from framework.protocols import Info
from plugins.metrics._likelihood import Likelihood, perplexity


@attrs.frozen
class Perplexity:
    """e to the mean negative log-likelihood of a target token, over all tokens of the split.

    It depends on the vocabulary: compare it between models of one tokenizer alone.
    """

    def build(self, info: Info) -> Likelihood:  # noqa: ARG002 - not needed here
        """Build it."""
        return Likelihood(perplexity)
