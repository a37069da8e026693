"""A study's pictures, and the page that holds them and its table: one file, nothing to fetch."""

from __future__ import annotations

import base64
import html
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framework.commands import _records, _study

if TYPE_CHECKING:
    import optuna

_log = logging.getLogger("framework")
_STYLE = (
    "body{font:14px sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:.2em .5em;text-align:left}img{max-width:100%}"
    "tr.best{font-weight:bold}"
)
_HEADS = ("trial", "state", "values", "drawn", "steps", "seconds", "runs", "reason")


def write(study: optuna.Study, found: Mapping[str, Any], folder: Path) -> None:
    """Draw what can be drawn of a study, as PNG, and write `study.html`."""
    pictures = {name: file for name in _PLOTS if (file := _drawn(study, found, name, folder))}
    _records.replace(folder / "study.html", _page(found, pictures))


def _drawn(study: optuna.Study, found: Mapping[str, Any], name: str, folder: Path) -> Path | None:
    """Draw one picture; None where there are too few trials for it."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    file = folder / f"{name}.png"
    try:
        with _study.quiet():
            made = _PLOTS[name](study, found)
            figure = plt.gcf() if made is None else _figure(made)
            figure.tight_layout()
            figure.savefig(file, dpi=100)
    except (ValueError, RuntimeError, ImportError) as error:
        _log.debug("%s: not drawn (%s)", name, error)
        return None
    finally:
        plt.close("all")
    return file


def _figure(made: Any) -> Any:
    """Return the figure of one picture's axes, or of the first of several."""
    return (made if hasattr(made, "figure") else made.flat[0]).figure


def _history(study: optuna.Study, found: Mapping[str, Any]) -> Any:
    from optuna.visualization import matplotlib as plots

    if len(found["metrics"]) > 1:
        return plots.plot_pareto_front(study, target_names=found["metrics"])
    return plots.plot_optimization_history(study, target_name=found["metrics"][0])


def _importance(study: optuna.Study, found: Mapping[str, Any]) -> Any:
    from optuna.visualization import matplotlib as plots

    return plots.plot_param_importances(study, **_target(found))


def _slice(study: optuna.Study, found: Mapping[str, Any]) -> Any:
    from optuna.visualization import matplotlib as plots

    return plots.plot_slice(study, **_target(found))


def _target(found: Mapping[str, Any]) -> dict[str, Any]:
    """Say which value is drawn: of several metrics the first."""
    told: dict[str, Any] = {"target_name": found["metrics"][0]}
    if len(found["metrics"]) > 1:
        told["target"] = lambda trial: trial.values[0]
    return told


_PLOTS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "history": _history,
    "importance": _importance,
    "slice": _slice,
}


def _page(found: Mapping[str, Any], pictures: Mapping[str, Path]) -> str:
    name = html.escape(found["name"])
    best = {trial["number"] for trial in found["best"]}
    rows = [_row([*_cells(t)], best=t["number"] in best) for t in found["trials"]]
    drawn = [
        f'<h2>{title}</h2><img alt="{title}" src="data:image/png;base64,'
        f'{base64.b64encode(file.read_bytes()).decode("ascii")}">'
        for title, file in pictures.items()
    ]
    tested = [
        _row([k, f"{v['mean']:.4f}", f"{v['std']:.4f}"])
        for k, v in found["retrained"].get("test", {}).items()
    ]
    seeds = sum(not each["reason"] for each in found["retrained"].get("seeds", {}).values())
    again = [
        f"<h2>the best again, over {seeds} seeds, on the test split</h2><table>",
        _row(["metric", "mean", "standard deviation"], cell="th"),
        *tested,
        "</table>",
    ]
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>',
            f"<style>{_STYLE}</style></head><body><h1>{name}</h1>",
            *(again if tested else ()),
            *drawn,
            "<h2>trials</h2><table>",
            _row(_HEADS, cell="th"),
            *rows,
            "</table></body></html>\n",
        ]
    )


def _cells(trial: Mapping[str, Any]) -> list[str]:
    values = ", ".join(f"{value:.4f}" for value in trial["values"] or ())
    drawn = ", ".join(f"{key} = {value}" for key, value in trial["params"].items())
    seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.1f}"
    told = (trial["number"], trial["state"], values, drawn, trial["steps"], seconds)
    return [*map(str, told), ", ".join(trial["runs"] or ()), trial["reason"]]


def _row(cells: Sequence[str], *, cell: str = "td", best: bool = False) -> str:
    inner = "".join(f"<{cell}>{html.escape(each)}</{cell}>" for each in cells)
    return f'<tr class="best">{inner}</tr>' if best else f"<tr>{inner}</tr>"
