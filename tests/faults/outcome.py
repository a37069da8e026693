"""What injecting a fault comes to."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

SHOWN = 3


@attrs.frozen
class Outcome:
    """Whether a row's criterion held, and the figures."""

    passed: bool
    said: str

    @classmethod
    def of(cls, said: str, failures: Sequence[str]) -> Outcome:
        """Passed, with its figures, where nothing failed; else the number and the first ones."""
        if not failures:
            return cls(passed=True, said=said)
        told = [*failures[:SHOWN]] + ["…"] * (len(failures) > SHOWN)
        return cls(passed=False, said=f"{len(failures)} failures: {'; '.join(told)}")
