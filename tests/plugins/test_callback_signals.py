"""The callback `signals`: requests at a signal, everything given back, and a way out."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from framework.hooks import Hooks
from framework.state import State
from plugins.callbacks.signals import Signals

Make = Callable[[], State]
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


def _mine(*_: Any) -> None:
    """A handler of whoever runs this process."""


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Handlers of before, which each test ends with."""
    before = [signal.signal(number, _mine) for number in NUMBERS]
    yield
    for number, handler in zip(NUMBERS, before, strict=True):
        signal.signal(number, handler)


def handlers() -> list[Any]:
    """Return who handles the signals now."""
    return [signal.getsignal(number) for number in NUMBERS]


def started(state: State) -> Any:
    """Return the hooks of a run with the callback that has started."""
    call = Hooks({"signals": Signals().build()}).call
    call.run_start(state=state)
    return call


def ended(call: Any, state: State) -> None:
    """End a run as it does: every callback, then what they want undone."""
    call.run_end(state=state)
    state.closing.close()


def raised(number: signal.Signals) -> None:
    """Send this process a signal, whose handler has run when this returns."""
    signal.raise_signal(number)


def test_nothing_is_handled_before_the_run() -> None:
    """Building the callback touches no handler."""
    Hooks({"signals": Signals().build()})
    assert handlers() == [_mine] * len(NUMBERS)


def test_handlers_are_put_back(state: Make) -> None:
    """After the run whoever handled the signals before does so again; twice is no harm."""
    now = state()
    call = started(now)
    assert _mine not in handlers()
    call.run_end(state=now)
    assert _mine not in handlers()  # other callbacks may still be ending
    for _ in range(2):
        ended(call, now)
        assert handlers() == [_mine] * len(NUMBERS)


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN, signal.default_int_handler])
def test_any_handler_is_put_back(state: Make, before: Any) -> None:
    """The system's own handlers, and none, are put back too."""
    for number in NUMBERS:
        signal.signal(number, before)
    now = state()
    ended(started(now), now)
    assert handlers() == [before] * len(NUMBERS)


def test_one_run_after_the_other(state: Make) -> None:
    """A second run in a process takes the signals as the first did."""
    for _ in range(2):
        now = state()
        call = started(now)
        raised(signal.SIGTERM)
        assert now.stopping
        ended(call, now)
        assert handlers() == [_mine] * len(NUMBERS)


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
def test_a_signal_asks_for_the_end(
    state: Make, number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The run is asked to end as interrupted, with the exit code of the signal; a line says so."""
    now = state()
    call = started(now)
    raised(number)
    ended(call, now)
    assert (now.stopping, now.status, now.exit_code) == (True, "interrupted", code)
    assert now.reason == f"received {number.name}"
    assert capfd.readouterr().err == (
        "\nfinishing this step, then saving; a second signal leaves at once\n"
    )


def test_nohup_is_heeded(state: Make) -> None:
    """Where whoever started the run has said that its terminal may go, it may."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    now = state()
    call = started(now)
    raised(signal.SIGHUP)
    assert not now.stopping
    ended(call, now)
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


@pytest.mark.parametrize("status", ["stopped_early", "completed"])
def test_a_run_that_is_interrupted_says_so(state: Make, status: Any) -> None:
    """Status and exit code agree, also where the run had stopped by itself before its test."""
    now = state()
    call = started(now)
    if status == "stopped_early":
        now.stop("enough")
    else:
        now.status = status
    raised(signal.SIGTERM)
    ended(call, now)
    assert (now.status == "interrupted") == (now.exit_code == 143)


def test_usr1_asks_for_a_checkpoint(state: Make) -> None:
    """SIGUSR1 saves and nothing else, however often it comes."""
    now = state()
    call = started(now)
    for _ in range(3):
        raised(signal.SIGUSR1)
    assert list(now.saves) == ["last"]
    assert (now.stopping, now.status, now.exit_code) == (False, "running", 0)
    ended(call, now)


def test_usr1_doesnt_count_as_a_first_signal(state: Make) -> None:
    """After SIGUSR1 the first SIGTERM still ends the run with a checkpoint."""
    now = state()
    call = started(now)
    raised(signal.SIGUSR1)
    raised(signal.SIGTERM)
    assert now.status == "interrupted"
    ended(call, now)


def test_another_thread_takes_no_signals(state: Make) -> None:
    """Outside the main thread, where Python can't, the run goes without."""
    now = state()
    found: list[Any] = []

    def run() -> None:
        call = started(now)
        found.append(handlers())
        ended(call, now)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [[_mine] * len(NUMBERS)]
    assert handlers() == [_mine] * len(NUMBERS)


def forked(work: Callable[[], None]) -> int:
    """Return the exit code of a child that does some work; 99 where it comes to its end."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 143),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
        (signal.SIGINT, signal.SIGTERM, 143),
    ],
)
def test_a_second_signal_leaves_at_once(
    state: Make, tmp_path: Path, first: signal.Signals, second: signal.Signals, code: int
) -> None:
    """Whoever asks twice isn't kept waiting; the result says that not all was saved."""
    (tmp_path / "result.json").write_text('{"status": "running", "steps": 3}')

    def work() -> None:
        started(state())
        raised(first)
        raised(second)

    assert forked(work) == code
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("interrupted", 3)
    assert "second signal" in result["reason"]
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", [None, "", "[1]", "{"])
def test_a_second_signal_leaves_whatever_the_result_is(
    state: Make, tmp_path: Path, content: str | None
) -> None:
    """A result that is missing or broken keeps nobody from leaving."""
    if content is not None:
        (tmp_path / "result.json").write_text(content)

    def work() -> None:
        started(state())
        raised(signal.SIGTERM)
        raised(signal.SIGTERM)

    assert forked(work) == 143


def test_one_signal_doesnt_leave(state: Make) -> None:
    """After the first the process goes on to its end."""

    def work() -> None:
        started(state())
        raised(signal.SIGTERM)

    assert forked(work) == 99


def test_a_worker_that_was_forked_lets_signals_pass(state: Make) -> None:
    """A child that has inherited the handlers makes no request and doesn't leave by them."""
    now = state()
    call = started(now)

    def work() -> None:
        raised(signal.SIGTERM)
        raised(signal.SIGTERM)
        if not now.stopping:
            os._exit(7)

    assert forked(work) == 7
    ended(call, now)
    assert not now.stopping
