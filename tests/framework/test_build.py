"""Building live objects: what one lacks is told at once, with its class, its file and its owner."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch

from framework import build
from framework.commands._sets import parsed
from framework.config.experiment import load
from framework.errors import UserError
from framework.hooks import Hooks, hookimpl
from framework.registry import Offer, Registry
from plugins.strategies.auto import OneProcess

EXPERIMENT = """
dataset = { use = "acme_words", count = 12 }
loss = "acme_poly"
metrics = ["accuracy"]
[model]
use = "hf_classifier"
max_length = 16
[model.config]
hidden_size = 8
num_hidden_layers = 1
num_attention_heads = 1
intermediate_size = 8
max_position_embeddings = 16
vocab_size = 60
[trainer]
threads = 1
batch_size = 4
"""


class Bare:
    """A live object that offers nothing, but for what it is given."""

    def __init__(self, **given: Any) -> None:
        """Take what it has."""
        self.__dict__.update(given)


@attrs.frozen
class Lacking:
    """Options of any kind, which build something that lacks nearly everything."""

    def build(self, *_: Any) -> Bare:
        """Build it."""
        return Bare(count=3, device="cpu", names=list)


@attrs.frozen
class WithoutProcessor:
    """A model whose processor is none."""

    def build(self, *_: Any) -> Any:
        """Build it."""
        return SimpleNamespace(module=None, processor=Bare(encod=1), labelled=1, save_assets=1)


@attrs.frozen
class Misspelt:
    """A callback whose hook is misspelt."""

    def build(self) -> Any:
        """Build it."""

        class Live:
            @hookimpl
            def step_ended(self) -> None:
                """Nothing."""

        return Live()


def trained(kind: str, cls: type[Any], folder: Path) -> None:
    """Build everything that trains, with one plugin of somebody else's."""
    offer = Offer(
        kind, "odd", "odd-parts", "1.2", EntryPoint("odd", f"{__name__}:{cls.__name__}", "")
    )
    file = folder / "x.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    key = {"metric": "metrics.odd.use", "callback": "callbacks.odd.use"}.get(kind, kind)
    experiment = load(file, [parsed(f"{key}=odd")], Registry((*Registry().offers, offer)))
    splits = build.dataset(experiment)
    build.callbacks(experiment)
    build.metrics(experiment, splits.info)()
    build.trainer(experiment, splits, Hooks({}), folder, lambda _: nullcontext(list))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("dataset", "'info' (an attribute), 'files' (an attribute), 'manifest' (an attribute), "),
        ("model", "'module' (an attribute), 'processor' (an attribute), 'labelled' (Every"),
        (
            "loss",
            (
                "'coupled' (an attribute), 'counts' (Items per named part, known before the forward"
                " pass; did you mean 'count'?), '__call__' (Sums over those items"
            ),
        ),
        ("optimizer", "'param_groups' (an attribute), 'step' (Change the parameters by their"),
        ("scheduler", "'__call__' (Factor of the learning rate at a step; 0 is the first)"),
        ("precision", "'name' (an attribute; did you mean 'names'?), 'scaled' (an attribute), "),
        ("strategy", "'world_size' (an attribute), 'rank' (an attribute), 'wrap' (Move the module"),
        ("metric", "'update' (Take in a batch), 'merge' (Take in what the other ranks' metrics"),
    ],
)
def test_what_a_live_object_lacks_is_told(kind: str, words: str, tmp_path: Path) -> None:
    """The error names plugin, owner, class, file, what is missing and what it should do."""
    with pytest.raises(UserError) as caught:
        trained(kind, Lacking, tmp_path)
    head = f"{kind} 'odd' of odd-parts 1.2: {__name__}.Bare in {__file__} lacks {words}"
    assert str(caught.value).startswith(head)
    assert "\n" not in str(caught.value)


def test_a_processor_is_held_to_its_protocol(tmp_path: Path) -> None:
    """What a model's processor lacks is told like what the model lacks."""
    with pytest.raises(UserError) as caught:
        trained("model", WithoutProcessor, tmp_path)
    assert str(caught.value) == (
        f"model 'odd' of odd-parts 1.2: {__name__}.Bare in {__file__} lacks 'encode'"
        " (Features of each record; pure, each with its `id` and `length`; did you mean 'encod'?),"
        " 'augment' (Features changed at random, in training only; `rng` is the record's own),"
        " 'collate' (One batch of the features, in their order),"
        " 'decode' (One row per item, in their order; did you mean 'encod'?)"
    )


def test_a_misspelt_hook_is_told_with_its_file(tmp_path: Path) -> None:
    """A callback's hook that there isn't is an error that names class and file."""
    with pytest.raises(UserError) as caught:
        trained("callback", Misspelt, tmp_path)
    assert str(caught.value) == (
        f"callback 'odd' ({__name__}.Misspelt.build.<locals>.Live in {__file__}): there is no hook"
        " 'step_ended'; did you mean 'step_end'?"
    )


def test_what_lacks_nothing_is_built(tmp_path: Path) -> None:
    """The experiment of these tests is sound but for the plugins they put in."""
    file = tmp_path / "x.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    experiment = load(file)
    splits = build.dataset(experiment)
    trainer = build.trainer(experiment, splits, Hooks({}), tmp_path, lambda _: nullcontext(list))
    assert trainer.state.steps_per_epoch == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_only_what_goes_to_cuda_is_pinned(device: str, tmp_path: Path) -> None:
    """A feed knows whether its batches leave the host."""
    file = tmp_path / "x.toml"
    file.write_text(EXPERIMENT, encoding="utf-8")
    experiment = load(file)
    ranks, sampler = OneProcess(torch.device(device)), build.live(experiment.sampler)
    feed = build.feeder(experiment, Bare(processor=Bare(encode=list)), ranks, sampler)
    assert feed([{"length": 3}]).pin is (device == "cuda")
