"""The one place where an experiment's options become live objects."""

from __future__ import annotations

import inspect
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from framework import protocols
from framework.batching import Feed
from framework.checkpoint import Keeper, ModelFiles
from framework.config.experiment import Experiment
from framework.config.structure import Part
from framework.errors import ExperimentError, UserError, located, nearest
from framework.hooks import Hooks
from framework.protocols import Info, LiveLoss, LiveModel, LiveSampler, LiveStrategy, Record, Splits
from framework.state import State
from framework.step import Forward, Recent, Update
from framework.trainer import Sink, Trainer


def live(part: Part, *given: Any) -> Any:
    """Build a part; `UserError` where the live object lacks what its kind must offer."""
    made = part.options.build(*given)
    # the protocol of a kind's options says what they build
    options = getattr(protocols, part.kind.capitalize())
    _hold(part, made, getattr(protocols, inspect.signature(options.build).return_annotation))
    return made


def _hold(part: Part, made: object, protocol: type[Any]) -> None:
    has, lacking = [name for name in dir(made) if name[0] != "_"], []
    for name in {**inspect.get_annotations(protocol), **vars(protocol)}:
        if (name[0] != "_" or name in ("__call__", "__getitem__")) and not hasattr(made, name):
            says = (inspect.getdoc(getattr(protocol, name, None)) or "an attribute").splitlines()[0]
            lacking.append(f"'{name}' ({says.rstrip('.')}{nearest(name, has)})")
    if lacking:
        owner = f"{part.kind} '{part.use}' of {part.offer.owner}"
        raise UserError(f"{owner}: {located(type(made))} lacks {', '.join(lacking)}")


def dataset(experiment: Experiment) -> Splits:
    """Build the dataset; `UserError` for an input that is missing, broken or empty."""
    splits: Splits = live(experiment.dataset, experiment.seed)
    # splits are no mapping
    if lacking := [split for split in ("train", "val") if split not in splits.keys()]:  # noqa: SIM118
        raise UserError(f"the dataset has no split '{lacking[0]}'; training needs train and val")
    if empty := [split for split in splits.keys() if not len(splits[split])]:  # noqa: SIM118
        raise UserError(f"the split '{empty[0]}' is empty; give it records or change the ratios")
    return splits


def callbacks(experiment: Experiment, rank: int = 0) -> Hooks:
    """Build a rank's callbacks; some of them only the first has."""
    made = {label: part.options.build() for label, part in experiment.callbacks.items()}
    once = {k for k, v in made.items() if getattr(v, "sink", False) or getattr(v, "once", False)}
    return Hooks(made, once if rank else set())


def metrics(
    experiment: Experiment, info: Mapping[str, Any]
) -> Callable[[], dict[str, protocols.LiveMetric]]:
    """Return the maker of one evaluation's metrics."""
    return lambda: {k: live(part, info) for k, part in experiment.metrics.items()}


def prepare(training: protocols.Training, seed: int) -> None:
    """Set what is global in the process: seeds, threads, determinism."""
    import torch

    # without it torch refuses deterministic products on CUDA; it must stand before the first
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - third parties draw from the global one
    torch.manual_seed(seed)
    if training.threads:
        torch.set_num_threads(training.threads)
    if training.deterministic != torch.are_deterministic_algorithms_enabled():
        # even to leave it as it is, it imports the whole compiler
        torch.use_deterministic_algorithms(training.deterministic)
    torch.backends.cudnn.benchmark = False


def forward(
    experiment: Experiment, info: Info, assets: Path | None, ranks: LiveStrategy | None = None
) -> tuple[LiveModel, Forward]:
    """Build the model on its device; from `assets`, a checkpoint's model folder, if given."""
    ranks = ranks or live(experiment.strategy)
    prepare(experiment.trainer, experiment.seed)
    precision = live(experiment.precision, ranks.device)
    model = live(experiment.model, info, assets)
    _hold(experiment.model, model.processor, protocols.Processor)
    if mode := experiment.trainer.compile:
        getattr(model, "compile", model.module.compile)(mode=mode)
    made = Forward(ranks.wrap(model.module), precision, ranks)
    if ranks.rank:  # all have the same weights, and now dropout of their own
        prepare(experiment.trainer, (experiment.seed + ranks.rank) % 2**63)
    return model, made


def trainer(
    experiment: Experiment,
    splits: Splits,
    hooks: Hooks,
    folder: Path,
    rows: Callable[[str], AbstractContextManager[Sink]],
    *,
    text: str = "",
    assets: Path | None = None,
    only: str | None = None,
    ranks: LiveStrategy | None = None,
    **given: Any,
) -> Trainer:
    """Build everything that trains, or evaluates the split `only`; nothing is written.

    `text` is the resolved experiment, for what stands beside saved weights.
    """
    training = experiment.trainer
    info = {**splits.info, "train": splits["train"]}
    model, run = forward(experiment, info, assets, ranks)
    sampler = live(experiment.sampler)
    loss = _loss(experiment, info, run.strategy, sampler.budget)
    feed = feeder(experiment, model, run.strategy, sampler)
    feeds = {k: feed(splits[k]) for k in splits.keys() if only in {None, k}}  # noqa: SIM118
    optimizer = live(experiment.optimizer, model.labelled())
    getattr(run.strategy, "adopt", lambda _: None)(optimizer)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    items = len(splits["train"])
    steps = math.ceil(items / training.batch_size)
    total = training.steps or training.epochs * steps
    state = State(
        folder=folder,
        name=experiment.name,
        model=model,
        optimizer=optimizer,
        schedule=live(experiment.scheduler, total),
        training=training,
        strategy=run.strategy,
        epochs=math.ceil(total / steps),
        steps_per_epoch=steps,
        total_steps=total,
        items_per_epoch=items,
        micro_batch=training.micro_batch,
    )
    return assembled(
        ModelFiles(splits.info, text),
        state=state,
        update=Update(run, loss, optimizer, state.schedule, training.max_grad_norm),
        hooks=hooks,
        feeds=feeds,
        metrics=metrics(experiment, splits.info),
        rows=rows,
        **given,
    )


def assembled(
    files: ModelFiles, *, state: State, update: Update, hooks: Hooks, **rest: Any
) -> Trainer:
    """Make a trainer of its parts: with the keeper of its checkpoints, and what these keep.

    `verify` is the keeper's; without it the best checkpoint is taken as it is found.
    """
    verify = rest.pop("verify", lambda *_: None)
    strategy = update.forward.strategy
    recent = Recent(strategy.device)
    live: dict[str, Any] = {"optimizer": update.optimizer, "precision": update.forward.precision}
    live |= {"hooks": hooks, "recent": recent}
    keeper = Keeper(
        live, files, strategy, verify, lambda path: hooks.call.save_end(state=state, folder=path)
    )
    return Trainer(state=state, update=update, hooks=hooks, keeper=keeper, recent=recent, **rest)


def _loss(experiment: Experiment, info: Info, ranks: LiveStrategy, budget: int) -> LiveLoss:
    """Build the loss; `UserError` where micro-batches or ranks would change it."""
    training = experiment.trainer
    loss: LiveLoss = live(experiment.loss, info)
    cuts = {
        ("trainer", "micro_batch"): 0 < training.micro_batch < training.batch_size,
        ("trainer", "on_oom"): training.on_oom == "split",
        ("sampler",): budget,
    }
    for path in (path for path, cut in cuts.items() if cut and loss.coupled):
        message = f"this loss is coupled within a batch: {path[-1]} would change it; remove it"
        raise ExperimentError([experiment.draft.problem(path, message)])
    if ranks.world_size > 1 and loss.coupled:
        raise UserError("this loss is coupled within a batch: several ranks would change it")
    if ranks.world_size > 1 and training.on_oom == "split":
        message = "one rank can't split its batch alone; remove it, and set trainer.micro_batch"
        raise ExperimentError([experiment.draft.problem(("trainer", "on_oom"), message)])
    return loss


def feeder(
    experiment: Experiment, model: LiveModel, ranks: LiveStrategy, sampler: LiveSampler
) -> Callable[[Sequence[Record]], Feed]:
    """Return what encodes the records of a split, and makes the feed of its batches."""
    training, processor = experiment.trainer, model.processor
    share = ranks.rank, ranks.world_size, ranks.device.type == "cuda"
    sizes = training.batch_size, training.micro_batch, experiment.seed, training.workers
    return lambda records: Feed(processor, processor.encode(records), sampler, *sizes, *share)
