"""The experiment that faults are planted into."""

from tests.checks.planted_data import planted

__all__ = ["planted"]
