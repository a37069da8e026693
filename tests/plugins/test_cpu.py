"""Dropout and attention on CPUs: fair masks, the library's arithmetic, the same numbers again."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, BertConfig, DistilBertConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from plugins.models import _cpu

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 50,
    "max_position_embeddings": 24,
}


@pytest.mark.parametrize("p", [0.02, 0.1, 0.5, 0.9])
def test_each_number_is_dropped_with_its_chance(p: float) -> None:
    """In all, in every column and in every pair of neighbours, as often as chance has it."""
    torch.manual_seed(5)
    rows, columns = 40_000, 50
    kept = _cpu.kept(torch.Size([rows, columns]), p).double()
    for found, count in ((kept.mean(), rows * columns), (kept.mean(0), rows)):
        # six standard errors: one of fifty columns is so far off once in ten million times
        assert (found - (1 - p)).abs().max() < 6 * math.sqrt(p * (1 - p) / count)
    centred = kept - kept.mean()
    for step in (1, 2, 3, 4, columns):
        flat = centred.flatten()
        together = (flat[:-step] * flat[step:]).mean() / centred.var()
        assert together.abs() < 6 / math.sqrt(rows * columns)


def test_masks_follow_torchs_seed() -> None:
    """The same seed gives the same masks, and each draw is another."""
    torch.manual_seed(1)
    first, second = (_cpu.kept(torch.Size([33]), 0.5) for _ in range(2))
    torch.manual_seed(1)
    assert torch.equal(_cpu.kept(torch.Size([33]), 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (0, 4)])
def test_dropout_scales_what_it_leaves(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """A number is 0 or as much larger as others are dropped, and so is its gradient."""
    torch.manual_seed(2)
    values = torch.randn(shape, dtype=dtype, requires_grad=True)
    found = _cpu.Dropout(0.25)(values)
    found.sum().backward()
    torch.manual_seed(2)
    torch.randn(shape, dtype=dtype)
    factor = _cpu.kept(values.shape, 0.25, dtype) / 0.75
    assert found.dtype == dtype
    assert torch.allclose(found, values * factor, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)
    assert values.grad is not None
    assert torch.allclose(values.grad, factor, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_dropout_of_all_and_of_none() -> None:
    """Its ends need no chance; outside of training nothing is dropped."""
    values = torch.randn(9)
    assert torch.equal(_cpu.Dropout(0.0)(values), values)
    assert not _cpu.Dropout(1.0)(values).any()
    assert torch.equal(_cpu.Dropout(0.5).eval()(values), values)


class Layer(nn.Module):
    """What transformers hands an attention as its layer."""

    is_causal = False


def drawn(mask: str, dtype: torch.dtype) -> tuple[list[Tensor], Tensor | None]:
    """Return queries, keys and values, and a mask under which some places are padding."""
    torch.manual_seed(3)
    tensors = [torch.randn(3, 4, 9, 8, dtype=dtype, requires_grad=True) for _ in range(3)]
    there = torch.arange(9) < torch.tensor([9, 5, 1]).view(3, 1, 1, 1)
    if mask == "numbers":
        return tensors, torch.zeros(1, dtype=dtype).masked_fill(~there, torch.finfo(dtype).min)
    return tensors, there.expand(3, 1, 9, 9) if mask == "truth" else None


@pytest.mark.parametrize("mask", ["none", "truth", "numbers"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 2e-6), (torch.bfloat16, 2e-2)]
)
def test_without_dropout_attention_is_sdpas(
    mask: str, dtype: torch.dtype, tolerance: float
) -> None:
    """Outputs and gradients are those of torch in float64, to the rounding of their type."""
    given, where = drawn(mask, dtype)
    found, _ = _cpu.attention(Layer(), *given, where)
    found.float().square().sum().backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    there = where.double() if where is not None and where.is_floating_point() else where
    wanted = nn.functional.scaled_dot_product_attention(*exact, attn_mask=there).transpose(1, 2)
    wanted.square().sum().backward()
    assert found.shape == (3, 9, 4, 8)
    assert torch.allclose(found.double(), wanted, atol=tolerance, rtol=tolerance)
    for ours, theirs in zip(given, exact, strict=True):
        assert ours.grad is not None
        assert theirs.grad is not None
        off = (ours.grad.double() - theirs.grad).norm() / theirs.grad.norm()
        assert off < tolerance


def test_with_dropout_weights_are_dropped() -> None:
    """It is softmax, dropout and product, with the mask that the seed gives."""
    given, where = drawn("truth", torch.float32)
    torch.manual_seed(4)
    found, _ = _cpu.attention(Layer(), *given, where, dropout=0.3)
    torch.manual_seed(4)
    kept = _cpu.kept(torch.Size([3, 4, 9, 9]), 0.3)
    query, key, value = given
    assert where is not None
    scores = (query @ key.transpose(2, 3) / 8**0.5).masked_fill(~where, -torch.inf)
    wanted = (scores.softmax(-1) * kept / 0.7) @ value
    assert torch.allclose(found, wanted.transpose(1, 2), atol=2e-6)


def network(config: Any, **more: Any) -> Any:
    """Return a random network with dropout."""
    torch.manual_seed(6)
    net = AutoModelForSequenceClassification.from_config(
        config, attn_implementation=more.pop("attention", "sdpa")
    )
    return net.train()


CONFIGS = {
    "bert": BertConfig(**SMALL),
    "distilbert": DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=50, max_position_embeddings=24
    ),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_network_computes_as_before(kind: str, tmp_path: Any) -> None:
    """Without dropout its gradients, and in evaluation its very bits, are as they were."""
    config = copy.deepcopy(CONFIGS[kind])
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        setattr(config, name, 0.0)
    config.dropout = config.attention_dropout = config.seq_classif_dropout = 0.0
    before = network(config)
    after = copy.deepcopy(before)
    _cpu.quicken(after)
    assert after.config._attn_implementation == _cpu.NAME
    assert after.state_dict().keys() == before.state_dict().keys()
    batch = {
        "input_ids": torch.randint(0, 50, (3, 7)),
        "attention_mask": (torch.arange(7) < torch.tensor([[7], [4], [1]])).long(),
    }
    outputs = [net(**batch).logits for net in (before, after)]
    assert torch.allclose(*outputs, atol=1e-6)
    for found in outputs:
        found.square().sum().backward()
    grads = [dict(net.named_parameters()) for net in (before, after)]
    for name, parameter in grads[0].items():
        if parameter.grad is not None:
            assert torch.allclose(parameter.grad, grads[1][name].grad, atol=1e-5), name
    with torch.no_grad():
        assert torch.equal(*(net.eval()(**batch).logits for net in (before, after)))
    after.config.save_pretrained(tmp_path)
    assert _cpu.NAME not in (tmp_path / "config.json").read_text()


def test_recomputed_activations_have_the_same_masks() -> None:
    """What is computed again in the backward pass is what was computed."""
    batch = {"input_ids": torch.randint(0, 50, (3, 7))}
    gradients = []
    for recompute in (False, True):
        net = network(copy.deepcopy(CONFIGS["bert"]))
        _cpu.quicken(net)
        if recompute:
            net.activation_checkpointing_enable()
        torch.manual_seed(7)
        net(**batch).logits.square().sum().backward()
        gradients.append([p.grad for p in net.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-7)


def test_attention_of_another_kind_is_let_be() -> None:
    """Where sdpa isn't what computes, only the dropouts are exchanged."""
    net = network(copy.deepcopy(CONFIGS["bert"]), attention="eager")
    _cpu.quicken(net)
    assert net.config._attn_implementation == "eager"
    assert {type(m) for m in net.modules() if isinstance(m, nn.Dropout)} == {_cpu.Dropout}


def test_under_autocast_types_meet() -> None:
    """Where rotations leave queries and keys in float32, products are autocast's all the same."""
    given, where = drawn("truth", torch.float32)
    query, key, value = given
    with torch.autocast("cpu", torch.bfloat16):
        found, _ = _cpu.attention(Layer(), query, key, value.bfloat16(), where, dropout=0.1)
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in given)


@pytest.mark.parametrize("case", ["sees nothing", "learned", "all dropped", "causal", "fewer keys"])
def test_what_it_doesnt_do_sdpa_does(case: str) -> None:
    """Elsewhere the library computes, to the bit; a mask that is learned has its gradient."""
    (query, key, value), where = drawn("truth", torch.float32)
    dropout, layer = 0.0, Layer()
    assert where is not None
    if case == "sees nothing":
        where = where.clone()
        where[0, 0, 3] = False
    elif case == "learned":
        where = torch.randn(3, 4, 9, 9, requires_grad=True)
    elif case == "all dropped":
        dropout = 1.0
    elif case == "causal":
        layer.is_causal, where = True, None
    else:
        key, value = key[:, :1], value[:, :1]
    sides = []
    for attend in (_cpu.attention, sdpa_attention_forward):
        found, _ = attend(layer, query, key, value, where, dropout=dropout)
        sides.append(found)
    assert torch.equal(*sides)
    if case == "learned":
        sides[0].sum().backward()
        assert where is not None
        assert where.grad is not None


def test_a_gradient_of_its_gradient_is_refused() -> None:
    """What it can't do is an error, not a wrong number."""
    (query, key, value), where = drawn("none", torch.float32)
    found, _ = _cpu.attention(Layer(), query, key, value, where)
    (first,) = torch.autograd.grad(found.square().sum(), query, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
