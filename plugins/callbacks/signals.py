"""What signals do to a run: SIGTERM and SIGINT end it with a checkpoint, SIGUSR1 only saves."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import suppress
from typing import Any

import attrs

from framework.hooks import hookimpl
from framework.state import State


@attrs.frozen
class Signals:
    """Ends the run after the running step with a checkpoint; a second signal leaves at once.

    The exit code is 143 after SIGTERM, 130 after SIGINT (Ctrl+C) and 129 after SIGHUP (the terminal
    has gone, unless nohup said that it may). SIGUSR1 saves and goes on.
    """

    def build(self) -> LiveSignals:
        """Build it; nothing is handled before the run starts."""
        return LiveSignals()


@attrs.define(eq=False)
class LiveSignals:
    """Handlers only note a request; the trainer meets it at the next step."""

    received: int = 0
    """The signal that asked for the end."""
    wanted: bool = False
    """Whether a checkpoint was asked for."""

    @hookimpl
    def run_start(self, state: State) -> None:
        """Take the signals over until every callback has ended; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            return
        process = os.getpid()
        if state.strategy.world_size > 1:
            state.meet = lambda: self._agree(state)

        def ask(number: int, _: Any) -> None:
            if os.getpid() == process:  # and no worker process that has not yet shut its ears
                self._asked(state, number)

        for number in (*_ENDING, signal.SIGUSR1):
            before = signal.getsignal(number)
            # nohup has said that a terminal may go
            if not (number == signal.SIGHUP and before == signal.SIG_IGN):
                signal.signal(number, ask)
                state.closing.callback(signal.signal, number, before)

    def _asked(self, state: State, number: int) -> None:
        if number != signal.SIGUSR1 and self.received:
            _note(state)
            os._exit(128 + number)
        if number == signal.SIGUSR1:
            self.wanted = True
        else:
            self.received = number
        over = state.status in ("completed", "failed")
        if state.strategy.world_size == 1 and not over:
            self._agree(state)
        if number == self.received:
            _say(_OVER if over else _FINISHING)

    @hookimpl
    def step_end(self, state: State) -> None:
        """Do what any rank was asked for, on all of them together."""
        state.meet()

    def _agree(self, state: State) -> None:
        # one that comes while ranks wait for each other is met the next time
        wanted, self.wanted = self.wanted, False
        mine = {str(int(number)): int(number == self.received) for number in _ENDING}
        found = state.strategy.sum({**mine, "save": int(wanted)})
        if found["save"]:
            state.save("last")
        number = next((number for number in _ENDING if found[str(int(number))]), 0)
        if number and not state.halted:
            state.exit_code = 128 + number
            state.stop(f"received {signal.Signals(number).name}", "interrupted")


_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FINISHING = b"\nfinishing this step, then saving; a second signal leaves at once\n"
_OVER = b"\nthe run is over, closing its records; a second signal leaves at once\n"


def _say(text: bytes) -> None:
    with suppress(OSError):  # who would have read it has left
        os.write(2, text)


def _note(state: State) -> None:
    """Say in the result that the run was interrupted, since nobody will do so any more."""
    file = state.folder / "result.json"
    part = file.with_name(".result.json.left")
    with suppress(OSError, ValueError, TypeError):
        result = json.loads(file.read_text(encoding="utf-8"))
        result |= {"status": "interrupted", "reason": "a second signal, before all was saved"}
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        part.replace(file)
    if os.isatty(2):
        _say(b"\x1b[?25h")  # a live line has hidden the cursor
