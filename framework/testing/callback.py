"""The suite of kind callback."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework.hooks import Hooks
from framework.state import Status
from framework.testing import tiny_run
from framework.testing.clock import clocked, timeless
from framework.testing.suite import Failure, Report, Skip, Suite, missing, reloaded, require, said
from framework.testing.values import equal, frozen_copy
from framework.testing.watching import (
    LABEL,
    TEXT,
    Bystander,
    Ending,
    Probe,
    Searcher,
    Watch,
    overheard,
)

CUTS = (3, 6, 10)
"""Steps after which a run is restarted: within epochs of four, before and after evaluations."""
ENDINGS: Sequence[tuple[Status, str]] = (
    ("stopped_early", "step_end"),
    ("interrupted", "step_end"),
    ("failed", "step_end"),
    ("interrupted", "run_start"),
    ("failed", "run_start"),
)


@attrs.frozen(kw_only=True)
class CallbackCase:
    """A callback, and a training of a few steps around it."""

    options: Any

    def watch(self) -> Watch:
        """Build the callback, under watch."""
        return Watch(self.options.build())

    def run(self, watch: Watch, **others: object) -> None:
        """Train with the callback and others; every metric that it reads is computed."""
        tiny_run.run({LABEL: watch, **others}, _metrics(watch))

    def run_clocked(self, watch: Watch, rate: float = 1.0, **others: object) -> Any:
        """Train by a clock that tells the same times in every run; the state in the end, if any."""
        with clocked(watch.live, rate) as clock:
            tiny_run.run({LABEL: watch, **others}, _metrics(watch), clock.tick)
        return frozen_copy(watch.live.state_dict()) if hasattr(watch.live, "state_dict") else {}

    def errors(self, **others: object) -> str:
        """Train, and return what its hooks raised, sink or not; nothing where all is well."""
        watch = self.watch()
        try:
            self.run(watch, **others)
        except Exception as error:  # noqa: BLE001 - whatever a plugin raises is its failure
            return "; ".join(watch.errors) or said(error)
        return "; ".join(watch.errors)


def _metrics(watch: Watch) -> list[str]:
    reads = [name.partition("/")[2] for name in getattr(watch.live, "reads", ())]
    return [name for name in reads if name]


def has_valid_hooks(case: CallbackCase) -> None:
    """Its hooks are some of those there are; `before` and `after` are collections of labels."""
    live = case.options.build()
    neighbours = {*_words(live, "before"), *_words(live, "after")}
    Hooks({**dict.fromkeys(neighbours, Bystander()), LABEL: live})


def reads_are_metrics_of_a_split(case: CallbackCase) -> None:
    """`reads` names metrics of the validation split, as in `val/loss`."""
    reads = _words(case.options.build(), "reads")
    for name in reads:
        split, _, metric = name.rpartition("val/")
        require(
            name.startswith("val/") and metric and not split,
            f"it reads {name!r}; only metrics of the validation split are computed for callbacks,"
            f" as 'val/{name.rpartition('/')[2] or 'loss'}'",
        )


def sink_is_a_flag(case: CallbackCase) -> None:
    """`sink` is True or False."""
    sink = getattr(case.options.build(), "sink", False)
    require(type(sink) is bool, f"'sink' is {sink!r}; it must be True or False")


def no_hook_fails(case: CallbackCase) -> None:
    """No hook fails in a whole run; a sink's failure would only be logged, and counts too."""
    errors = case.errors()
    require(not errors, errors)


def run_end_takes_every_ending(case: CallbackCase) -> None:
    """It takes the end of a run that stops, is interrupted or fails, also before the first step."""
    for status, at in ENDINGS:
        errors = case.errors(ending=Ending(status, at, after=(LABEL,)))
        require(not errors, f"in a run that ends as '{status}' in {at}: {errors}")


def run_end_comes_without_run_start(case: CallbackCase) -> None:
    """It takes the end of a run that failed before its own `run_start`, and begins nothing then."""
    before = _files()
    errors = case.errors(ending=Ending("failed", "run_start", before=(LABEL,)))
    require(not errors, f"in a run that fails before its own run_start: {errors}")
    left = sorted(name for name, changed in _files().items() if before.get(name) != changed)
    require(not left, f"its own run_start never came, and its run_end writes {left} in this folder")


def _files() -> dict[str, int]:
    """Return what stands in the current folder; of files, when they were changed."""
    found = {path.name: path for path in Path.cwd().iterdir()}
    # by others, the folders may be changed meanwhile
    return {name: path.stat().st_mtime_ns if path.is_file() else 0 for name, path in found.items()}


def weights_stay_as_they_are(case: CallbackCase) -> None:
    """With it, the weights after every step are those of a run without it, bit for bit."""
    alone, probe = Probe(before=()), Probe()
    tiny_run.run({"probe": alone})
    case.run(case.watch(), probe=probe)
    for step in sorted(alone.weights.keys() & probe.weights.keys()):
        for name, weights in alone.weights[step].items():
            require(
                equal(weights, probe.weights[step][name]),
                f"after step {step} the weights '{name}' are not those of a run without it;"
                " hooks observe: write to no weight, gradient or mode, draw nothing at random",
            )


def random_generators_stay_as_they_are(case: CallbackCase) -> None:
    """It draws nothing from the global random generators of torch, NumPy and Python."""
    alone, probe = Probe(before=()), Probe()
    tiny_run.run({"probe": alone})
    case.run(case.watch(), probe=probe)
    for step in sorted(alone.randomness.keys() & probe.randomness.keys()):
        for name, generator in alone.randomness[step].items():
            require(
                equal(generator, probe.randomness[step][name]),
                f"after step {step} the global random generator of {name} has moved; draw from a"
                " generator of your own",
            )


def arguments_stay_as_they_are(case: CallbackCase) -> None:
    """Its hooks change neither the batches, points and metrics they get nor the run's counters."""
    watch = case.watch()
    case.run(watch)
    require(not watch.changes, "; ".join(dict.fromkeys(watch.changes)))


def texts_stay_at_home(case: CallbackCase) -> None:
    """No text of a batch is written into the run folder, said to the log, or printed."""
    searcher = Searcher()
    with overheard() as places:
        case.run(case.watch(), searcher=searcher)
    require(not searcher.found, f"it writes texts of records into {sorted(set(searcher.found))}")
    for place, stream in places.items():
        require(TEXT not in stream.getvalue(), f"it says texts of records to {place}")


def state_comes_in_a_pair(case: CallbackCase) -> None:
    """It has both `state_dict` and `load_state_dict`, or neither."""
    lacking = missing(case.options.build(), "state_dict", "load_state_dict")
    require(len(lacking) != 1, f"it lacks {lacking[0] if lacking else ''}; have both, or neither")


def state_loads_safely(case: CallbackCase) -> None:
    """Its state is read back without running code, and a fresh callback takes it up whole."""
    watch = case.watch()
    if not hasattr(watch.live, "state_dict"):
        raise Skip("it has no state")
    case.run(watch)
    state = frozen_copy(watch.live.state_dict())
    fresh = case.options.build()
    fresh.load_state_dict(reloaded(state))
    differ = _differing(state, fresh.state_dict())
    require(not differ, f"a fresh callback that took up its state has another {differ}")


def state_survives_a_restart(case: CallbackCase) -> None:
    """A fresh callback with its state goes on as if the run had never been interrupted.

    The times in its state may be others: nobody can know how long an interruption is.
    """
    whole = case.watch()
    state = case.run_clocked(whole)
    reloaded(state)
    slow = case.run_clocked(case.watch(), rate=1.5)
    for cut in CUTS:
        watch = case.watch()
        probe = Probe(cut, functools.partial(watch.restart, case.options.build()))
        found = case.run_clocked(watch, probe=probe)
        states = [timeless(value, state, slow) for value in (state, found)]
        _alike((whole, watch), states, f"taken up again after step {cut}", "keep it in state_dict")


def builds_are_independent(case: CallbackCase) -> None:
    """What one run leaves in it reaches no callback that is built from the same options."""
    first, second = case.watch(), case.watch()
    require(first.live is not second.live, "build returns the same object twice")
    states = [case.run_clocked(first), case.run_clocked(second)]
    advice = "keep what changes in the object, not its class"
    _alike((first, second), states, "built a second time", advice)


def _alike(watches: Sequence[Watch], states: Sequence[Any], when: str, advice: str) -> None:
    """Require that two callbacks asked for the same and ended in the same state."""
    one, other = watches
    asked = [[f"{request[2]!r} in step {request[0]}" for request in w.requests] for w in watches]
    require(
        equal(one.requests, other.requests),
        f"{when} it asks for {asked[1]}, else for {asked[0]}; {advice}",
    )
    differ = _differing(*states)
    require(not differ, f"{when} it ends with another {differ}; {advice}")


def _differing(one: Any, other: Any) -> str:
    """Return the keys under which two states differ, or nothing."""
    if equal(one, other):
        return ""
    if not (isinstance(one, Mapping) and isinstance(other, Mapping)):
        return "state"
    keys = [k for k in {**one, **other} if not equal(one.get(k), other.get(k))]
    return ", ".join(f"'{key}'" for key in keys)


def _words(live: object, name: str) -> Collection[str]:
    words = getattr(live, name, ())
    if isinstance(words, str) or not isinstance(words, Collection):
        raise Failure(f"'{name}' is {words!r}; it must be a tuple of texts, as in ({words!r},)")
    require(all(isinstance(word, str) for word in words), f"'{name}' holds what is no text")
    return words


SUITE = Suite(
    "callback",
    CallbackCase,
    (
        has_valid_hooks,
        builds_are_independent,  # before others have run it, and filled what builds share
        reads_are_metrics_of_a_split,
        sink_is_a_flag,
        no_hook_fails,
        run_end_takes_every_ending,
        run_end_comes_without_run_start,
        weights_stay_as_they_are,
        random_generators_stay_as_they_are,
        arguments_stay_as_they_are,
        texts_stay_at_home,
        state_comes_in_a_pair,
        state_loads_safely,
        state_survives_a_restart,
    ),
)


def check_callback(options: Any, *, expected_failures: Mapping[str, str] | None = None) -> Report:
    """Hold a callback against its contract; `ConformanceError` tells every check that fails.

    It is put into trainings of 16 steps, with an evaluation every other step. Whatever it
    `reads` of the validation split is computed there.

    Args:
        options: The plugin's options, as in `MyStopping(monitor="val/loss")`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures)
