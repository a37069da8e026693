"""What a person sees of a search while it goes on: a line for each trial, and the best so far."""

from __future__ import annotations

import attrs
from optuna.trial import FrozenTrial

from framework.commands import _results
from framework.commands._study import Desk

_SAID = 60
"""Characters of a reason that are shown."""


@attrs.define
class Board:
    """Prints a line for each trial that has ended, whichever process ran it."""

    desk: Desk
    shown: bool = True
    told: set[int] = attrs.field(factory=set)

    def show(self) -> None:
        """Print what is new."""
        ended = [trial for trial in self.desk.trials() if trial.state.is_finished()]
        new = [trial for trial in ended if trial.number not in self.told]
        if not (new and self.shown):
            return
        names = self.desk.plan.search.metrics
        if not self.told:
            heads = "".join(f"{name:>12}" for name in [*names, "best"])
            print(f"{'trial':>7}  {'state':<9}{heads}  {'seconds':>8}  drawn")
        self.told |= {trial.number for trial in new}
        best = {trial.number for trial in _results.best(self.desk)}
        for trial in sorted(new, key=lambda trial: trial.datetime_complete):
            print(self._line(trial, best), flush=True)

    def _line(self, trial: FrozenTrial, best: set[int]) -> str:
        values = trial.values or [float("nan")] * len(self.desk.plan.search.metrics)
        shown = "".join(f"{value:>12.4f}" for value in values)
        drawn = ", ".join(f"{k} = {_short(v)}" for k, v in trial.params.items())
        said = str(trial.user_attrs.get("reason", ""))[:_SAID] or drawn
        number = f"{trial.number}{'*' if trial.number in best else ''}"
        state, seconds = trial.state.name.lower(), trial.user_attrs.get("seconds", 0.0)
        return f"{number:>7}  {state:<9}{shown}{self._top():>12}  {seconds:>8.1f}  {said}"

    def _top(self) -> str:
        found = _results.best(self.desk)
        if not found:
            return "-"
        return f"{found[0].values[0]:.4f}" if len(found) == 1 else f"{len(found)} trials"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
