"""A finished run taken up again, to evaluate it or to predict with it."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from framework import build, checkpoint
from framework.batching import SPAN, in_order
from framework.commands import _checkpoints, _inside, _requires, _sets
from framework.config import experiment as config
from framework.config.experiment import Experiment
from framework.errors import UserError, listing
from framework.protocols import LiveModel, Record, Row
from framework.registry import Registry
from framework.step import Forward

_log = logging.getLogger("framework")
MODEL_FILES = ("model.safetensors", "info.json", "experiment.toml")
"""What a model folder must hold, besides the model's own assets."""
AT_ONCE = 2048
"""Records that are predicted at once at most: so few that no model caches anything of them."""


@attrs.frozen
class Finished:
    """A trained model with the experiment that made it."""

    experiment: Experiment
    assets: Path
    """The model folder: weights, what the model needs beside them, `info.json`."""
    info: dict[str, Any]


def finished(address: str, scratch: Path, sets: Sequence[str] = ()) -> Finished:
    """Find a trained model: a run folder, a model folder, or an address with a scheme."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("a trained model is used by one process; start this without torchrun")
    scheme, colon, _ = address.partition(":/")
    if colon and not Path(address).exists():
        folder = _fetched(scheme, address, scratch)
    else:
        folder = Path(address)
    if not folder.is_dir():
        raise UserError(f"{address}: there is no run folder here; 'runs/NAME/TIME' is one")
    _inside.check(folder)
    if (folder / "checkpoints").is_dir():
        folder = _whole(folder) / "model"
    lacking = [name for name in MODEL_FILES if not (folder / name).is_file()]
    if lacking:
        raise UserError(f"{folder}: neither a run folder nor a model: {listing(lacking)} not in it")
    info = _info(folder / "info.json")
    file, tables = folder / "experiment.toml", {"requires": _requires.check}
    experiment = config.load(file, [*map(_sets.parsed, sets)], tables=tables)
    alone = getattr(experiment.strategy.options, "alone", "")
    if alone:
        over = map(_sets.parsed, [f"strategy={alone}", *sets])
        experiment = config.load(file, [*over], tables=tables)
    return Finished(experiment, folder, info)


def _fetched(scheme: str, address: str, scratch: Path) -> Path:
    """Have the source that a scheme names fetch a model."""
    offer = Registry().find("source", scheme)
    owner = f"source '{offer.name}' of {offer.owner}"
    cls = offer.load()
    try:
        source = cls()
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{owner} can't be made without options ({error}), and an address gives none"
        ) from error
    folder = source.fetch(address, scratch)
    if not (isinstance(folder, Path) and folder.is_dir()):
        raise UserError(f"{address}: {owner} has fetched no folder but {folder!r}")
    return folder


def _info(file: Path) -> dict[str, Any]:
    """Read what a model was told of its data."""
    try:
        info = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: can't be read as JSON ({error})") from error
    if not isinstance(info, dict):
        raise UserError(f"{file}: not an object of JSON")
    return info


def _whole(folder: Path) -> Path:
    """Return a run's best checkpoint, or, where that is damaged or absent, its last."""
    for tag in ("best", "last"):
        step = folder / "checkpoints" / tag
        if step.exists():
            try:
                _checkpoints.verify(step)
            except UserError as error:
                _log.warning("%s", error)
            else:
                return step
    raise UserError(f"{folder}: this run has no whole checkpoint to load")


@attrs.define
class Predictor:
    """A trained model, ready for records: `Predictor(finished(…))`."""

    done: Finished
    model: LiveModel = attrs.field(init=False)
    forward: Forward = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Build the model from what was saved beside its weights, and load those."""
        self.model, self.forward = build.forward(
            self.done.experiment, self.done.info, self.done.assets
        )
        checkpoint.load_weights(self.model.module, self.done.assets / "model.safetensors")
        self.model.module.eval()

    def rows(self, records: Iterable[Record]) -> Iterator[Row]:
        """Yield a row per record, in their order, holding a few hundred at a time.

        Records that have a `whole` are parts of one text, and are encoded together.
        """
        import torch

        experiment, decode = self.done.experiment, self.model.processor.decode
        sampler = build.live(experiment.sampler)
        feed = build.feeder(experiment, self.model, self.forward.strategy, sampler)
        at_once, stream = min(SPAN * experiment.trainer.batch_size, AT_ONCE), iter(records)
        chunks = iter(lambda: list(itertools.islice(stream, at_once)), [])
        together: Iterable[Any] = [records] if hasattr(records, "whole") else chunks
        # each window is of records that follow those of the last
        for window in itertools.chain.from_iterable(feed(chunk).whole() for chunk in together):
            rows: list[tuple[int, Row]] = []
            with torch.inference_mode():
                for batch in window:
                    rows += zip(batch.pop("_index"), decode(*self.forward(batch)), strict=True)
            yield from in_order(rows)
