"""Models that are wrong on purpose; those whose processor is stand in a file of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor, nn

from broken import processor
from broken.tiny_model import Live, Net, Words, forward, labels, one, scaled, then


def random_start(self: Net) -> None:
    """Start from another place each time."""
    Net.__init__(self)
    nn.init.constant_(self.head.weight, np.random.default_rng().random())


def strict(
    self: Net,
    id: list[str],  # noqa: A002 - the batch's name for it
    tokens: Tensor,
    mask: Tensor,
    labels: Tensor | None = None,
) -> Any:
    """Take what there is, and nothing else."""
    return Net.forward(self, tokens, mask)


def holding(self: Live, module: nn.Module, processor: Any) -> None:
    """Hold what can be called, and is no module."""
    self.module, self.processor = SimpleNamespace(eval=module.eval), processor


def no_more(self: Live) -> Any:
    """Have nothing to save."""
    raise AttributeError("save_assets")


def renamed(found: dict[str, Tensor], net: Net) -> Any:
    """Call the outputs of a single item otherwise."""
    return found if len(found["logits"]) > 1 else {"logit": found["logits"]}


def random_number(self: Words, records: Any) -> Any:
    """Encode by what was drawn when it was built."""
    return [{**item, "seed": self.seed} for item in Words.encode(self, records)]


def drawn(self: Words) -> None:
    """Draw from the world's randomness."""
    self.seed = int(np.random.default_rng().integers(10**9))


DEFECTS = [
    *processor.DEFECTS,
    one("has_the_protocol", "NoModule", "'module' is a SimpleNamespace", Live, __init__=holding),
    one("has_the_protocol", "NoAssets", "lacks save_assets", Live, save_assets=property(no_more)),
    one(
        "has_the_protocol",
        "NoForward",
        "NotImplementedError",
        Net,
        forward=lambda *_, **__: nn.Module().forward(),
    ),
    one(
        "same_seed_same_model",
        "DrawnAtBuild",
        "encodes records otherwise",
        Words,
        __init__=drawn,
        encode=random_number,
    ),
    one(
        "outputs_are_of_items",
        "ListOfLogits",
        "'logits' is a list, no tensor",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"].tolist()}),
    ),
    one(
        "outputs_are_of_items",
        "MeanOnly",
        "its outputs ['mean'] are of no item",
        Net,
        forward=forward(lambda x, _: {"mean": x["logits"].mean()}),
    ),
    one(
        "company_does_not_matter",
        "Renamed",
        "outputs ['logit'], and ['logits']",
        Net,
        forward=forward(renamed),
    ),
    one(
        "company_does_not_matter",
        "Stretched",
        "has the shapes [1, 3], and [1, 2]",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"][:, : 2 + (len(x["logits"]) == 1)]}),
    ),
    one(
        "labels_every_parameter_once",
        "Twice",
        "is given twice",
        Live,
        labelled=labels(lambda x: x + x),
    ),
    one(
        "labels_every_parameter_once",
        "HeadOnly",
        "leaves ['embed.weight'] out",
        Live,
        labelled=labels(lambda x: x[1:]),
    ),
    one(
        "labels_every_parameter_once",
        "OtherPart",
        "is 'body'; 'base' or",
        Live,
        labelled=labels(lambda x: [y._replace(part="body") for y in x]),
    ),
    one(
        "labels_every_parameter_once",
        "NoDepth",
        "is None; count from 0",
        Live,
        labelled=labels(lambda x: [y._replace(depth=None) for y in x]),
    ),
    one(
        "labels_every_parameter_once",
        "Prefixed",
        "'net.embed.weight' is not the module's",
        Live,
        labelled=labels(lambda x: [y._replace(name=f"net.{y.name}") for y in x]),
    ),
    one(
        "same_seed_same_model",
        "RandomStart",
        "other weights in ['head.weight']",
        Net,
        __init__=random_start,
    ),
    one(
        "outputs_are_of_items",
        "MeanOfAll",
        "of 5 items has the shape (3,)",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"].mean(0)}),
    ),
    one(
        "outputs_are_of_items",
        "Infinite",
        "'logits' is not finite",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"] / 0}),
    ),
    one("forward_takes_any_batch", "Strict", "unexpected keyword argument", Net, forward=strict),
    one(
        "forward_takes_any_batch",
        "Counting",
        "doesn't know changes its outputs",
        Net,
        forward=scaled(len),
    ),
    one(
        "forward_takes_any_batch",
        "InPlace",
        "the forward pass changes the batch",
        Net,
        forward=scaled(lambda batch: batch["tokens"].add_(0).clamp_(max=9).size(0)),
    ),
    one(
        "evaluation_repeats_itself",
        "DropsAlways",
        "is something random",
        Net,
        forward=forward(lambda x, _: {"logits": nn.functional.dropout(x["logits"])}),
    ),
    one(
        "company_does_not_matter",
        "Centred",
        "alone and in a batch is off by",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"] - x["logits"].mean(0)}),
    ),
    one(
        "padding_does_not_matter",
        "Unmasked",
        "alone and beside one of",
        Net,
        mean=lambda _, embedded, __: embedded.mean(1),
    ),
    one(
        "labels_are_not_needed",
        "NeedsLabels",
        "KeyError: 'labels'",
        Net,
        forward=scaled(lambda batch: batch["labels"].size(0)),
    ),
    one(
        "labels_are_not_needed",
        "ReadsLabels",
        "depend on labels",
        Net,
        forward=scaled(lambda batch: 1 + ("labels" in batch)),
    ),
    one(
        "gradients_reach_every_parameter",
        "Detached",
        "no gradient reaches the outputs",
        Net,
        forward=forward(lambda x, _: {"logits": x["logits"].detach()}),
    ),
    one(
        "gradients_reach_every_parameter",
        "Cut",
        "no gradient reaches 'embed.weight'",
        Net,
        mean=then(Net, "mean", lambda x: x.detach()),
    ),
    one(
        "gradients_reach_every_parameter",
        "Dead",
        "the gradient of 'embed.weight' is zero in",
        Net,
        mean=then(Net, "mean", lambda x: x * 0),
    ),
]
