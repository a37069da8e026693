"""The suite of kind check: what can be known of one before it looks at anything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from framework.testing.suite import Failure, Report, Suite, require, require_takes


@attrs.frozen(kw_only=True)
class CheckCase:
    """A check."""

    options: Any


def has_the_protocol(case: CheckCase) -> None:
    """It has `area`, one word, and `observe(probe)`; `free`, if it has it, is True or False."""
    check = case.options
    area = getattr(check, "area", None)
    require(isinstance(area, str) and area.split() == [area], "its 'area' is not one word")
    require(callable(getattr(check, "observe", None)), "it lacks observe(probe)")
    require_takes(check.observe, "observe", "probe")
    require(isinstance(getattr(check, "free", False), bool), "its 'free' is not True or False")


def it_needs_no_options(case: CheckCase) -> None:
    """Its class is called without arguments: nothing in an experiment names it."""
    try:
        type(case.options)()
    except (TypeError, ValueError) as error:
        raise Failure(f"it can't be made without options: {error}") from error


SUITE = Suite("check", CheckCase, (has_the_protocol, it_needs_no_options), method="observe")


def check_check(options: Any, *, expected_failures: Mapping[str, str] | None = None) -> Report:
    """Hold a check against its contract; `ConformanceError` tells what fails.

    Whether it finds what it is for is for its own tests: `python -m framework check` on an
    experiment that has the fault, and on one that hasn't.

    Args:
        options: The plugin, as in `MyCheck()`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures)
