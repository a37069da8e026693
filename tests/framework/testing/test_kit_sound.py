"""The conformance kit: what is right and unusual passes, and one fault is told once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest
from broken.dataset_read import Readable
from broken.loss import Live, NoCounts
from broken.metric import Live as Mean
from broken.precision import Right
from broken.sound import SOUND

from framework.errors import UserError
from framework.testing import check_dataset, check_loss, check_metric, check_precision
from framework.testing.suite import ConformanceError


@pytest.mark.parametrize(
    ("kind", "options", "given"),
    SOUND,
    ids=[f"{kind}: {number}" for number, (kind, *_) in enumerate(SOUND)],
)
def test_a_sound_plugin_passes(kind: str, options: Any, given: Mapping[str, Any]) -> None:
    """A plugin that keeps its contract in an unusual way fails no check."""
    suite = importlib.import_module(f"framework.testing.{kind}").SUITE
    report = suite.run(options, **given)
    assert report.failures == []
    assert {outcome.state for outcome in report.outcomes} <= {"passed", "skipped"}


def test_the_first_check_speaks_for_the_others() -> None:
    """Where the protocol is lacking, one check fails and the others say that they were not run."""
    with pytest.raises(ConformanceError) as caught:
        check_loss(NoCounts())
    first, *others = caught.value.report.outcomes
    assert (first.check, first.state) == ("has_the_protocol", "failed")
    assert {outcome.state for outcome in others} == {"skipped"}
    assert {outcome.reason for outcome in others} == {"not run: has_the_protocol failed first"}
    head, fault, place = str(caught.value).splitlines()
    assert head == f"loss broken.loss.NoCounts: 1 failed, {len(others)} skipped"
    assert fault.startswith("  failed   has_the_protocol: ")
    assert place.endswith("tests/broken/loss.py")


def test_a_declared_failure_of_the_first_check_stops_nothing() -> None:
    """Where the first check is known to fail, the others are run."""
    with pytest.raises(ConformanceError) as caught:
        check_loss(NoCounts(), expected_failures={"has_the_protocol": "it counts elsewhere"})
    states = [outcome.state for outcome in caught.value.report.outcomes]
    assert states[0] == "expected"
    assert "failed" in states[1:]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Live, "check_loss takes an instance of the options, as in Live(…), and not the class"),
        ("focal", "check_loss takes an instance of the options, as in MyPlugin(…), and not"),
        (Live(), "Live lacks build"),
    ],
)
def test_what_is_no_options_is_said_in_one_line(options: Any, words: str) -> None:
    """A class, a name and a live object are told from options before anything is called."""
    with pytest.raises(ConformanceError, match="1 failed") as caught:
        check_loss(options)
    (failure,) = caught.value.report.failures
    assert words in failure.reason


class Refuses(Right):
    """A precision that is never built, in the words it is given."""

    def __init__(self, words: str) -> None:
        """Keep them."""
        super().__init__()
        self.words = words

    def build(self, _: Any) -> Any:
        """Refuse."""
        raise UserError(self.words)


def test_nothing_is_not_enough() -> None:
    """A plugin of which nothing could be checked fails, unless it lacks a device."""
    with pytest.raises(ConformanceError, match="nothing was checked: it can't be built"):
        check_precision(Refuses("a bug"))
    report = check_precision(Refuses("torch finds no CUDA device"))
    assert {outcome.state for outcome in report.outcomes} == {"skipped"}


def test_given_outputs_are_checked_in_float64() -> None:
    """Outputs that an author gives are of any precision; the checks are of the same figures."""
    (_, loss, given), *_ = [case for case in SOUND if "outputs" in case[2]]
    halves = {name: value.bfloat16() for name, value in given["outputs"].items()}
    check_loss(loss, **{**given, "outputs": halves})
    with pytest.raises(ConformanceError, match="give both"):
        check_metric(Mean(), batch=given["batch"])


def test_a_dataset_builds_once_where_it_can() -> None:
    """A check that reads what a dataset holds builds it once."""

    class Counted(Readable):
        builds = 0

        def build(self, seed: int) -> Any:
            self.builds += 1
            return super().build(seed)

    options = Counted()
    report = check_dataset(options)
    assert options.builds <= len(report.outcomes) + 4
