"""A weighted sum of losses over the heads of a model, and the metrics of one head.

Legend of shapes: B items, T tokens, V vocabulary, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from framework.__main__ import main
from framework.errors import RunError, UserError
from framework.step import Forward, Update
from framework.testing import check_loss
from plugins.losses.cross_entropy import CrossEntropy
from plugins.losses.focal import Focal
from plugins.losses.token_cross_entropy import TokenCrossEntropy
from plugins.losses.weighted_sum import WeightedSum
from plugins.metrics.accuracy import Accuracy
from plugins.metrics.majority import Majority
from plugins.metrics.of_head import OfHead
from plugins.precisions.fp32 import Fp32
from plugins.strategies.auto import OneProcess

INFO = {"labels": ["CONTINUE", "TRUNCATED", "SWAPPED"], "class_counts": [2, 5, 1]}
PARTS = {"plan": TokenCrossEntropy(), "code": TokenCrossEntropy(), "refinement": CrossEntropy()}
WEIGHTS = {"code": 2.0, "refinement": 0.25}
ITEMS, LONG, VOCABULARY = 6, 5, 7


@pytest.fixture
def batch() -> dict[str, Any]:
    """Ragged sections: items 2 and 3 have no code, item 5 no target at all."""
    draw = torch.Generator().manual_seed(3)
    plan = torch.randint(VOCABULARY, (ITEMS, LONG), generator=draw)
    code = torch.randint(VOCABULARY, (ITEMS, LONG), generator=draw)
    for row, size in enumerate([5, 1, 2, 4, 3, 0]):
        plan[row, size:] = -100
    for row, size in enumerate([1, 2, 0, 0, 4, 0]):
        code[row, size:] = -100
    refinement = torch.tensor([0, 0, 2, 1, 0, -100])
    ids = [f"i{row}" for row in range(ITEMS)]
    found = {"id": ids, "plan_labels": plan, "code_labels": code, "refinement_labels": refinement}
    return found | {"x": torch.randn(ITEMS, LONG, 4, generator=draw, dtype=torch.float64)}


class Heads(nn.Module):
    """Three linear heads on given features, in float64."""

    def __init__(self) -> None:
        """Make them, the same every time."""
        super().__init__()
        torch.manual_seed(1)
        self.plan, self.code, self.refinement = (
            nn.Linear(4, size, dtype=torch.float64) for size in (VOCABULARY, VOCABULARY, 3)
        )

    def forward(self, x: Tensor, **_: Any) -> dict[str, Tensor]:
        """Logits [B, T, V] twice, and [B, C]."""
        return {
            "plan_logits": self.plan(x),
            "code_logits": self.code(x),
            "refinement_logits": self.refinement(x[:, 0]),
        }


def mean(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over what has a target, item by item."""
    rows = zip(logits.flatten(0, -2), labels.flatten(), strict=True)
    kept = [-row.log_softmax(-1)[label] for row, label in rows if label != -100]
    return torch.stack(kept).mean()


def reference(net: Heads, batch: dict[str, Any]) -> dict[str, Tensor]:
    """The parts by their definition, each normalised by its own count, times its weight."""
    outputs = net(**batch)
    return {
        name: WEIGHTS.get(name, 1.0) * mean(outputs[f"{name}_logits"], batch[f"{name}_labels"])
        for name in PARTS
    }


def cut(batch: dict[str, Any], *rows: int) -> dict[str, Any]:
    """Some items of a batch."""
    return {
        k: v[list(rows)] if isinstance(v, Tensor) else [v[i] for i in rows]
        for k, v in batch.items()
    }


def test_each_part_is_normalised_by_its_own_count(batch: dict[str, Any]) -> None:
    """Whole or in micro-batches, one of them without any code, parts and weights are the formula's.

    It fails where a part is a mean per micro-batch, or all are divided by one count.
    """
    pieces = [cut(batch, 0, 1), cut(batch, 2, 3), cut(batch, 4, 5)]
    found = []
    for window in ([batch], pieces):
        net = Heads()
        strategy = OneProcess(torch.device("cpu"))
        forward = Forward(net, Fp32().build(strategy.device), strategy)
        optimizer = torch.optim.SGD([{"params": net.parameters(), "initial_lr": 0.5}], lr=0.5)
        loss = WeightedSum(parts=PARTS, weights=WEIGHTS).build(INFO)
        means, _, missed = Update(forward, loss, optimizer, lambda _: 1.0, 0.0)(window, 0)
        assert missed == ""
        found.append((means, net))
    plain = Heads()
    parts = reference(plain, batch)
    torch.stack([*parts.values()]).sum().backward()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.sub_(0.5 * parameter.grad)
    for means, net in found:
        assert means.keys() == parts.keys()
        for name, value in parts.items():
            torch.testing.assert_close(means[name], value.detach(), rtol=1e-12, atol=0)
        for mine, wanted in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, wanted, rtol=1e-12, atol=1e-12)


def test_a_batch_of_padding_adds_nothing(batch: dict[str, Any]) -> None:
    """Where no item has a target all sums are 0, and so are the gradients: nothing is NaN.

    It fails where a part is a mean, which is 0 / 0 there.
    """
    net, loss = Heads(), WeightedSum(parts=PARTS).build(INFO)
    alone = cut(batch, 5)
    assert loss.counts(alone) == {"plan": 0, "code": 0, "refinement": 0}
    sums = loss(net(**alone), alone)
    assert [float(value.detach()) for value in sums.values()] == [0.0, 0.0, 0.0]
    torch.stack([*sums.values()]).sum().backward()
    assert all(not parameter.grad.any() for parameter in net.parameters())


def test_class_0_is_a_class(batch: dict[str, Any]) -> None:
    """CONTINUE counts and has a gradient, as padding does not.

    It fails where 0 is what refinement ignores, as the id of padding tokens is.
    """
    loss = WeightedSum(parts=PARTS).build(INFO)
    assert loss.counts(batch) == {"plan": 15, "code": 7, "refinement": 5}
    net, whole = Heads(), cut(batch, 0, 1, 4)
    outputs = net(**whole)
    found = loss(outputs, whole)["refinement"]
    logits, labels = outputs["refinement_logits"], torch.zeros(3, dtype=torch.int64)
    torch.testing.assert_close(found, cross_entropy(logits, labels, reduction="sum"))
    assert float(found.detach()) > 0


def test_several_losses_of_one_head() -> None:
    """With `heads = false` parts see the same outputs; the kit finds nothing wrong."""
    check_loss(WeightedSum(parts={"a": Focal(), "b": CrossEntropy()}, heads=False))
    nested = WeightedSum(parts={"sum": WeightedSum(parts=PARTS)}, heads=False).build(INFO)
    assert nested.facts["parts"]["sum"]["weights"] == dict.fromkeys(PARTS, 1.0)
    assert not nested.coupled
    inner = WeightedSum(parts={"sum": WeightedSum(parts=PARTS), "b": CrossEntropy()})
    assert inner.names == ["sum/plan", "sum/code", "sum/refinement", "b"]


def test_a_head_that_is_not_there_is_named(batch: dict[str, Any]) -> None:
    """A part or a metric of a head that the model lacks ends the run with the nearest name."""
    loss = WeightedSum(parts={"refinment": CrossEntropy()}).build(INFO)
    with pytest.raises(RunError, match=r"no head 'refinment'.*did you mean 'refinement'"):
        loss.counts(batch)
    with pytest.raises(RunError, match="there is no head 'x'"):
        OfHead(head="x", metrics={"a": Accuracy()}).build(INFO).update(Heads()(**batch), batch)


def test_a_misspelt_head_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the dataset says what heads there are, nothing is trained, nor a run begun."""
    monkeypatch.chdir(tmp_path)
    file = str(ROOT / "experiments" / "plan_code.toml")
    assert main(["run", file, "--set", "metrics.refinement.head=refinment"]) == 2
    said = capsys.readouterr().err
    assert "metric 'of_head': there is no head 'refinment'; did you mean 'refinement'?" in said
    assert not (tmp_path / "runs").exists()
    info = {**INFO, "heads": {"plan": [], "code": [], "refinement": [*INFO]}}
    with pytest.raises(UserError, match="loss 'weighted_sum': there is no head 'cod'; did you"):
        WeightedSum(parts={"cod": TokenCrossEntropy()}).build(info)
    WeightedSum(parts=PARTS).build(info)


def test_accuracy_stands_beside_the_majority(batch: dict[str, Any]) -> None:
    """A head's metrics see its own outputs; the majority is that of training, over all batches."""
    metrics = {"accuracy": Accuracy(), "majority": Majority()}
    live, other = (OfHead(head="refinement", metrics=metrics).build(INFO) for _ in range(2))
    for metric, rows in ((live, (0, 1, 2)), (other, (3, 4, 5))):
        part = cut(batch, *rows)
        metric.update(Heads()(**part), part)
    live.merge([other])
    answers = Heads()(**batch)["refinement_logits"].argmax(-1)
    right = int((answers == batch["refinement_labels"]).sum())
    # label 1 is the most frequent in training, and one of five here
    assert live.compute() == {"accuracy": right / 5, "majority": 0.2}
    assert list(live.names()) == ["accuracy", "majority"]


MISTAKES = {
    "a part's name": (
        "loss.parts.code = 'token_cross_entrpy'",
        "x.toml:2:19: no loss is named 'token_cross_entrpy'; did you mean 'token_cross_entropy'?",
    ),
    "a part's option": (
        "loss.parts.refinement.label_smothing = 0.1",
        (
            "x.toml:2:23: loss 'cross_entropy' has no option 'label_smothing';"
            " did you mean 'label_smoothing'?"
        ),
    ),
    "a part's value": (
        "loss.parts.refinement.label_smoothing = 1.5",
        "x.toml:2:41: 'label_smoothing' must be < 1.0: 1.5",
    ),
    "a weight of another type": (
        "loss.weights.plan = 'much'",
        "x.toml:2:21: 'weights': expected a number, found the text 'much'",
    ),
    "a weight of nobody": (
        "loss.weights.plam = 2",
        "loss 'weighted_sum': 'weights' names 'plam', which is no part; did you mean 'plan'?",
    ),
    "a negative weight": (
        "loss = { use = 'weighted_sum', parts.focal = {}, weights.focal = -1 }",
        "x.toml:2:66: 'weights': that of 'focal' must be finite and at least 0",
    ),
    "a label that could be a part's part": (
        "loss.parts.'plan/x' = 'cross_entropy'",
        "loss 'weighted_sum': 'parts': the label 'plan/x' can't be empty or have a '/'",
    ),
    "no part": (
        "loss = { use = 'weighted_sum' }",
        "x.toml:2:8: loss 'weighted_sum': 'parts' is empty; write a table of a loss under each",
    ),
}


MISTAKES |= {
    "a part that is monitored": (
        "callbacks.checkpoint.monitor = 'val/loss/plam'",
        "x.toml:2:32: nothing computes 'val/loss/plam'; did you mean 'val/loss/plan'?",
    ),
    "a metric of a head that is monitored": (
        "callbacks.checkpoint.monitor = 'val/refinement/acuracy'",
        "nothing computes 'val/refinement/acuracy'; did you mean 'val/refinement/accuracy'?",
    ),
}


@pytest.mark.parametrize(("line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_inside_parts_are_told_where_they_are(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With file, line and column, and the nearest name, like those of any other component."""
    file = tmp_path / "x.toml"
    file.write_text(f'extends = "{ROOT}/experiments/plan_code.toml"\n{line}\n', encoding="utf-8")
    assert main(["validate", str(file)]) == 2
    assert words in capsys.readouterr().err.replace(f"{tmp_path}/", "")
