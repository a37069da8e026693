"""The experiment that faults are planted into."""

from tests.checks.planted import planted

__all__ = ["planted"]
