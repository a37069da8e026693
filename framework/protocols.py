"""The contracts between the core and its plugins: what each kind of part must offer.

A plugin is a frozen attrs class of *options*; its `build` returns the *live object* that the
protocols below describe. Legend of shapes: B items of a micro-batch, C classes.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import attrs

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

Record = Mapping[str, Any]
"""`id`, `text`, `text_pair`?, `label`? (class index), `group`?, `meta`? ; a task may add keys."""
Features = Mapping[str, Any]
"""What `encode` made of one record: `id` and `length` (in tokens), the rest is the model's."""
Batch = dict[str, Any]
"""What `collate` made: tensors and lists; record ids under `id`.

Names that begin with `_` are the core's. Of several ranks all have as many batches, in training
and in evaluation: one without has a batch whose `id` is empty, of which nothing counts."""
Outputs = Mapping[str, "Tensor"]
Info = Mapping[str, Any]
"""What a dataset says of itself, as JSON: label names, class counts of train: opaque to the core.

At build time the key `train` is added to it: the training split, as lazy records."""
Row = dict[str, Any]
"""One line of a predictions file: `id`, then what the model's `decode` names; never the text."""


def option(
    default: Any = attrs.NOTHING,
    *,
    help: str,  # noqa: A002 - the field's word for it, as in argparse
    validator: Any = None,
    kind: str | None = None,
    metric: bool = False,
) -> Any:
    """Declare one option of a plugin: a field whose name is its TOML key.

    `help` is one line. `kind` makes the option a nested component of that kind, or, with a
    mapping as the default, several under labels. A `Path` is taken relative to the file that
    wrote it; in a `Path | str`, text is a path when it begins with `.`, `/` or `~`. `metric`
    says that the text is the name of a metric with its split, as in `val/f1`.
    """
    if isinstance(default, (list, dict)):
        default = attrs.Factory(functools.partial(copy.copy, default))
    metadata = {"help": help, "kind": kind, "metric": metric}
    return attrs.field(default=default, validator=validator, metadata=metadata, kw_only=True)


_ge = attrs.validators.ge


@attrs.frozen
class Training:
    """The `[trainer]` table. Its defaults stand in `framework/defaults.toml`."""

    epochs: int = option(help="passes over the training data; or give `steps`", validator=_ge(1))
    steps: int = option(help="optimizer steps in all; 0: `epochs` counts", validator=_ge(0))
    batch_size: int = option(help="items per optimizer step, over all ranks", validator=_ge(1))
    micro_batch: int = option(help="items per forward pass; 0: the whole batch", validator=_ge(0))
    eval_every: int = option(help="steps between evaluations; 0: once an epoch", validator=_ge(0))
    log_every: int = option(help="optimizer steps between logged points", validator=_ge(1))
    max_grad_norm: float = option(help="gradients are clipped to it; 0: not", validator=_ge(0.0))
    deterministic: bool = option(help="only algorithms that give the same bits every time")
    workers: int = option(help="processes that collate batches; 0: this one", validator=_ge(0))
    threads: int = option(help="CPU threads of torch; 0: torch's own choice", validator=_ge(0))
    compile: Literal[
        False, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"
    ] = option(help="false, or the mode in which torch.compile compiles the model")
    on_oom: Literal["stop", "split"] = option(
        help="out of memory: stop, or split the batch into smaller micro-batches and go on"
    )
    on_nonfinite: Literal["stop", "skip"] = option(
        help="a loss or gradient that isn't finite: stop, or leave the step out and go on"
    )


class Labelled(NamedTuple):
    """A trainable parameter and what the model says of it, for optimizers to map to rates."""

    name: str
    parameter: nn.Parameter
    part: Literal["base", "head"]
    depth: int
    """Distance from the input: 0 for embeddings, then a layer each; the head is deepest."""


class Splits(Protocol):
    """The live dataset: `Dataset.build(seed)`."""

    info: Info
    files: Sequence[Path]
    """The files that were read; their SHA-256, maybe known as `hashes`, goes into the record."""
    manifest: Mapping[str, Sequence[str]]
    """Ids of what was assigned to each split (groups where there are any): pins the split."""

    def keys(self) -> Collection[str]:
        """Names of the splits there are: `train`, `val`, and `test` where there is one."""

    def __getitem__(self, split: str) -> Sequence[Record]:
        """Records of one split: lazy, in order; a `key` they may have stands for all they hold."""


class Dataset(Protocol):
    """Options of a dataset."""

    def build(self, seed: int) -> Splits:
        """Read and split; `UserError` names file, row and column of what is wrong."""

    def check(self) -> None:
        """Raise `UserError` for input that isn't there: at once, before anything is imported."""

    def read(self, file: Path, info: Info) -> Sequence[Record]:
        """Records of an unlabelled file in this dataset's own columns, for prediction."""


class Processor(Protocol):
    """Turns records into batches, and outputs into rows.

    It may also have `augments`: False where `augment` never changes anything, and so is not called.
    """

    def encode(self, records: Sequence[Record]) -> Sequence[Features]:
        """Features of each record; pure, each with its `id` and `length`.

        Both are whole splits and may be lazy. The features may know all `lengths`, as an array.
        """

    def augment(self, features: Features, rng: np.random.Generator) -> Features:
        """Features changed at random, in training only; `rng` is the record's own."""

    def collate(self, features: Sequence[Features]) -> Batch:
        """One batch of the features, in their order."""

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """One row per item, in their order."""


class LiveModel(Protocol):
    """The live model: `Model.build(info)`.

    It may also have `compile(mode)`, called before the first batch where `trainer.compile` is set:
    it has the module computed by `torch.compile`, in few graphs whatever the batches, and goes on
    without, saying why, where that fails. Of a model that has none, the module is compiled as it
    is, and what fails ends the run.
    """

    module: nn.Module
    """`forward(**batch) -> Outputs`; takes what it uses and ignores the rest of the batch."""
    processor: Processor

    def labelled(self) -> list[Labelled]:
        """Every trainable parameter once."""

    def save_assets(self, folder: Path) -> None:
        """Write all but the weights that building it again needs (configuration, vocabulary)."""


class Model(Protocol):
    """Options of a model."""

    def build(self, info: Info, assets: Path | None = None) -> LiveModel:
        """Build it; from `assets` (what `save_assets` wrote) nothing pretrained is read."""


class LiveLoss(Protocol):
    """The live loss: `Loss.build(info)`.

    It may also have `facts`: what the run's record should say of it, as JSON.
    """

    coupled: bool
    """True for in-batch terms (negatives, isotropy): exact per micro-batch only."""

    def counts(self, batch: Batch) -> dict[str, int]:
        """Items per named part, known before the forward pass."""

    def __call__(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """Sums over those items (scalars, float32 or better), part weights folded in."""


class Loss(Protocol):
    """Options of a loss."""

    def build(self, info: Info) -> LiveLoss:
        """Build it for a dataset."""


class LiveOptimizer(Protocol):
    """What is used of a `torch.optim.Optimizer`.

    Where it has `register_step_pre_hook` too, its gradients can be looked at before each step.
    """

    param_groups: list[dict[str, Any]]
    """Each with `lr`; an `initial_lr` beside it is what schedules start from."""

    def step(self) -> Any:
        """Change the parameters by their gradients; those without one stay."""

    def zero_grad(self, set_to_none: bool = True) -> None:  # noqa: FBT001, FBT002 - torch's
        """Clear the gradients."""

    def state_dict(self) -> dict[str, Any]:
        """State of every parameter."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state."""


class Optimizer(Protocol):
    """Options of an optimizer."""

    def build(self, parameters: Sequence[Labelled]) -> LiveOptimizer:
        """Build it, mapping parts and depths to learning rates and decay."""


class LiveScheduler(Protocol):
    """A pure function; `steady = True` says that it is not meant to move the rate."""

    def __call__(self, step: int, /) -> float:
        """Factor of the learning rate at a step; 0 is the first."""


class Scheduler(Protocol):
    """Options of a scheduler."""

    def build(self, total_steps: int) -> LiveScheduler:
        """Build the pure function from a step (0 is the first) to a factor of the rate."""


class LiveSampler(Protocol):
    """The live sampler: `Sampler.build()`; a pure function."""

    budget: int
    """Tokens of a micro-batch, padding counted; 0: `trainer.micro_batch` alone cuts steps."""

    def __call__(
        self, lengths: NDArray[np.int64], batch_size: int, rng: np.random.Generator, /
    ) -> Sequence[NDArray[np.int64]]:
        """Records of each optimizer step of an epoch, by their number.

        Each stands in one step; steps hold `batch_size` of them, but for the last.
        """


class Sampler(Protocol):
    """Options of a sampler."""

    def build(self) -> LiveSampler:
        """Build it."""


class LivePrecision(Protocol):
    """The live precision: all that is known of autocast, loss scaling and clipping."""

    name: str
    scaled: bool
    """True where a step that overflows is skipped as part of its working."""

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""

    def backward(self, loss: Tensor) -> None:
        """Back-propagate, scaled where the precision needs it."""

    def step(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], max_norm: float
    ) -> tuple[Tensor, bool]:
        """Unscale, clip, step, clear; the gradient's norm and whether the step was taken.

        A step whose norm is not finite is not taken.
        """

    def state_dict(self) -> dict[str, Any]:
        """State of the scaler, if any."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""


class Precision(Protocol):
    """Options of a precision."""

    def build(self, device: torch.device) -> LivePrecision:
        """Build it for a device; `UserError` where the device cannot compute in it."""


class LiveStrategy(Protocol):
    """The live strategy: where the module runs, and reductions over ranks.

    One whose ranks have a part each of the weights also has `adopt(optimizer)`, called once that is
    built, and `save(weights, folder)`, called on all ranks before a checkpoint `folder` is written:
    it returns the whole weights on the first, and what else goes into the checkpoint: by its place
    in it, something whose `write(path)` returns its SHA-256, if known. `load(folder)` takes that up
    again, on any number of ranks. The module's own state may be parts; it takes up the whole.
    """

    device: torch.device
    world_size: int
    rank: int

    def wrap(self, module: nn.Module) -> nn.Module:
        """Move the module to its device and make it ready for these ranks."""

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """The context of a micro-batch of a step; in the `last`, ranks sum their gradients."""

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Sum the counts over ranks; each names the same, and waits for the others."""

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank, in the order of ranks; each waits for the others."""


class Strategy(Protocol):
    """Options of a strategy.

    One that needs more than a process may also have `alone`: in TOML, the strategy by which one
    process uses the trained model.
    """

    def build(self) -> LiveStrategy:
        """Choose the device and join the ranks."""


class LiveMetric(Protocol):
    """The live metric: one pass over one split; a new one is built for each evaluation."""

    def names(self) -> Sequence[str]:
        """What it will report, known before training; the empty name is its label's own."""

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Take in a batch."""

    def merge(self, others: Sequence[Any]) -> None:
        """Take in what the other ranks' metrics saw."""

    def compute(self) -> dict[str, float]:
        """Exact values over all that was seen, under `names()`; NaN where undefined."""


class Metric(Protocol):
    """Options of a metric."""

    def build(self, info: Info) -> LiveMetric:
        """Build it for a dataset."""


class Callback(Protocol):
    """Options of a callback; the live object implements hooks of `framework.hooks`.

    It may also have: `reads` (names of metrics that must be computed), `before` and `after`
    (labels of other callbacks), `sink` (True: its failures are said once and never end a run),
    `once` (True: of several ranks only the first calls it, as it does sinks: it must ask for
    nothing, neither to stop nor to save; the others are called on every rank, but for `save_end`,
    which is the first rank's),
    `state_dict` (numbers, text, tensors, lists and dicts of them) and `load_state_dict`,
    `sync(folder)`, which delivers later what a run could not and says in words what that was, and
    `reached()`, which says whether what it delivers to answers now, and in words what that is.
    """

    def build(self) -> object:
        """Build it."""


class Source(Protocol):
    """Fetches a finished model by its address; the plugin's name is the address's scheme."""

    def fetch(self, address: str, folder: Path) -> Path:
        """Put the files into `folder`; the folder that holds `experiment.toml`."""
