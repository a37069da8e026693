"""The metric bits_per_character."""

from __future__ import annotations

import attrs

from framework.protocols import Info
from plugins.metrics._likelihood import Likelihood, bits


@attrs.frozen
class BitsPerCharacter:
    """Negative log-likelihood in bits, over all characters that the target tokens stand for.

    It compares models of different tokenizers. A batch says under `characters` how many each
    label stands for.
    """

    def build(self, info: Info) -> Likelihood:  # noqa: ARG002 - not needed here
        """Build it."""
        return Likelihood(bits, "characters")
