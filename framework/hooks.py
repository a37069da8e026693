"""The hooks of a run, and the loop they stand in.

    run_start
        epoch_start
            step_start
            step_end
            log
            evaluate_start
            evaluate_end
            log
        epoch_end
        evaluate_start
        evaluate_end
        log
        save_end
    run_end

Reading it: a run is epochs of steps. `log` follows a step every `log_every` steps and every
evaluation; the first `evaluate_…` pair stands for the validation split, once an epoch or every
`eval_every` steps; the last pair is the test split, with the best weights back in place.
Checkpoints that hooks ask for are written while the run goes on: `save_end` tells of one before
the next is begun, and of the last behind the test. `run_end` comes in every case, also after an
error. A resumed run begins with `run_start` and goes on where its checkpoint stood: a callback with
a state has it back by then. A hook takes only the arguments that it uses.
"""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import attrs
import pluggy

from framework.errors import RunError, UserError, fault, listing, located, nearest
from framework.state import State

if TYPE_CHECKING:
    from torch import Tensor

hookspec = pluggy.HookspecMarker("framework")
hookimpl = pluggy.HookimplMarker("framework")
_log = logging.getLogger("framework")
_Window = Sequence[Mapping[str, Any]]


class Specs:
    """Every hook with its arguments."""

    @hookspec
    def run_start(self, state: State) -> None:
        """Everything is built and the run folder exists; nothing has run."""

    @hookspec
    def epoch_start(self, state: State) -> None:
        """An epoch begins."""

    @hookspec
    def step_start(self, state: State, window: _Window) -> None:
        """The micro-batches of an optimizer step are collated, on the host."""

    @hookspec
    def step_end(
        self, state: State, window: _Window, loss: Mapping[str, Tensor], norm: Tensor
    ) -> None:
        """The counters have moved, and the optimizer too unless `state.missed` says why not.

        `loss` holds the means of the loss's parts, `norm` is the gradient's; reading them waits
        for the device.
        """

    @hookspec
    def log(self, state: State, point: Mapping[str, Any]) -> None:
        """A point was measured: `step`, `epoch`, `time`, and values named `split/metric`."""

    @hookspec
    def evaluate_start(self, state: State, split: str) -> None:
        """An evaluation of a split begins."""

    @hookspec
    def evaluate_end(self, state: State, split: str, metrics: Mapping[str, float]) -> None:
        """An evaluation of a split ended; names are without the split."""

    @hookspec
    def epoch_end(self, state: State) -> None:
        """An epoch ended, its evaluation included."""

    @hookspec
    def save_end(self, state: State, folder: Path) -> None:
        """A checkpoint is whole and linked under its tags; it was written in the background."""

    @hookspec
    def run_end(self, state: State) -> None:
        """The run is over and its result written; `state.status` says how it ended."""


NAMES = tuple(name for name in vars(Specs) if not name.startswith("_"))


@attrs.define
class Hooks:
    """The callbacks of a run by label, called in order, each failure under its owner's name."""

    callbacks: Mapping[str, object]
    silent: Collection[str] = ()
    """Labels of those that are another rank's to call."""
    call: Any = attrs.field(init=False)
    """`hooks.call.step_end(state=…)` and so on."""
    called: Mapping[str, Sequence[pluggy.HookImpl]] = attrs.field(init=False)
    """Who implements each hook, in the order of calls."""
    broken: set[str] = attrs.field(factory=set, init=False)
    """Labels of sinks that have failed, each told once."""

    def __attrs_post_init__(self) -> None:
        """Register every callback; a misspelt hook or argument is an error here."""
        manager = pluggy.PluginManager("framework")
        manager.add_hookspecs(Specs)
        for label, live in ordered(self.callbacks).items():
            if label not in self.silent:
                manager.register(self._guarded(label, live), name=label)
        self.called = {name: getattr(manager.hook, name).get_hookimpls() for name in NAMES}
        self.call = SimpleNamespace(**{name: _plain(each) for name, each in self.called.items()})

    def finish(self, state: State) -> None:
        """Call `run_end` of every callback, whatever happens in one; then raise the first error."""
        first: Exception | None = None
        for hook in self.called["run_end"]:
            try:
                hook.function(*[state][: len(hook.argnames)])
            except (RunError, UserError) as error:
                first = first or error
        if first is not None:
            raise first

    def state_dict(self) -> dict[str, Any]:
        """States of the callbacks that have one, by label."""
        saved = {k: live for k, live in self.callbacks.items() if hasattr(live, "state_dict")}
        states = {k: self._guard(k, live, live.state_dict)() for k, live in saved.items()}
        return {label: state for label, state in states.items() if state is not None}

    def load_state_dict(self, states: Mapping[str, Any]) -> None:
        """Give callbacks their states back; one that joined since has none."""
        for label, live in self.callbacks.items():
            if label in states and hasattr(live, "load_state_dict"):
                self._guard(label, live, live.load_state_dict)(states[label])

    def _guarded(self, label: str, live: object) -> SimpleNamespace:
        """Return the callback's hooks, wrapped so that an error names the callback."""
        where = f"callback '{label}' ({located(type(live))})"
        hooks = {}
        # statically: a property of the callback must not be computed here
        for name, found in inspect.getmembers_static(live):
            settings = getattr(found, "framework_impl", None)
            if settings is None and (name not in NAMES or not callable(found)):
                continue
            method = getattr(live, name)
            known = list(inspect.signature(getattr(Specs, name, Specs.run_start)).parameters)[1:]
            taken = inspect.signature(method).parameters.values()
            unknown = next((p.name for p in taken if p.name not in known), None)
            plain = all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in taken)
            wrong = ""
            if name not in NAMES:
                wrong = f"there is no hook '{name}'{nearest(name, NAMES, 'the hooks are')}"
            elif settings is None:
                wrong = f"'{name}' is never called; mark it with @hookimpl"
            elif unknown:
                hint = nearest(unknown, known, "it is called with")
                wrong = f"'{name}' has no argument '{unknown}'{hint}"
            elif not plain or any(settings.values()) or inspect.iscoroutinefunction(method):
                wrong = f"'{name}' must be plain: no default, no setting of @hookimpl, not async"
            if wrong:
                raise UserError(f"{where}: {wrong}")
            hooks[name] = self._guard(label, live, method)
        if not hooks:
            raise UserError(f"{where} implements no hook; mark its methods with @hookimpl")
        return SimpleNamespace(**hooks)

    def _guard(self, label: str, live: object, method: Any) -> Any:
        where = f"callback '{label}' ({type(live).__module__}.{type(live).__qualname__})"

        @functools.wraps(method)
        def call(*args: Any) -> Any:
            if label in self.broken:
                return None
            try:
                return method(*args)
            except Exception as error:
                if getattr(live, "sink", False):
                    self.broken.add(label)
                    _log.warning("%s failed; the run goes on without it: %s", where, fault(error))
                elif isinstance(error, (RunError, UserError)):
                    raise
                else:
                    message = f"{where} failed in {method.__name__}: {fault(error)}"
                    raise RunError(message) from error

        return call


def _plain(called: Sequence[pluggy.HookImpl]) -> Callable[..., None]:
    """Return a function that calls a hook, without the time that gathering results takes."""
    calls = [(impl.function, impl.argnames) for impl in called]

    def call(**given: Any) -> None:
        for function, names in calls:
            function(*[given[name] for name in names])

    return call


def ordered(callbacks: Mapping[str, object]) -> dict[str, object]:
    """Return the callbacks in the file's order, moved where `before` and `after` say so."""
    waits: dict[str, set[str]] = {label: set() for label in callbacks}
    for label, live in callbacks.items():
        for side in ("before", "after"):
            for other in getattr(live, side, ()):
                if other not in callbacks:
                    hint = nearest(other, callbacks, "there are")
                    message = f"wants to come {side} '{other}', which is no callback here{hint}"
                    raise UserError(f"callback '{label}' ({located(type(live))}) {message}")
                first, second = (label, other) if side == "before" else (other, label)
                waits[second].add(first)
    order: dict[str, object] = {}
    while len(order) < len(callbacks):
        ready = [k for k in callbacks if k not in order and waits[k] <= set(order)]
        if not ready:
            left = listing(label for label in callbacks if label not in order)
            raise UserError(f"callbacks wait for each other by 'before' and 'after': {left}")
        order[ready[0]] = callbacks[ready[0]]
    return order
