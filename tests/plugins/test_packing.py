"""Batches without padding: the numbers of padded ones, and nothing between their sequences."""

from __future__ import annotations

import csv
import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import torch
from support import EXACT, RINGING, ROOT, SHORT, install, only_run, points, save_weights
from torch import Tensor, nn

from framework import checkpoint
from framework.__main__ import main
from framework.errors import UserError
from framework.protocols import Batch, Features
from framework.testing import check_model
from plugins.models import _cpu, _packing
from plugins.models.hf_classifier import HfClassifier, LiveClassifier

VOCABULARY, ROOM = 60, 24
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": ROOM + 1,
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,  # so that what a text says moves its logits
}
SHARED = ("max_position_embeddings", "vocab_size", "initializer_range")
"""Those of them whose names DistilBERT has too."""
RELATIVE: dict[str, Any] = {
    "model_type": "deberta-v2",
    "relative_attention": True,
    "position_biased_input": False,
    "pos_att_type": ["p2c", "c2p"],
    "position_buckets": 4,  # so that the texts here are longer than what has a place of its own
    "norm_rel_ebd": "layer_norm",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert"},
    "roberta": {"model_type": "roberta", "type_vocab_size": 2},
    "xlm-roberta": {"model_type": "xlm-roberta"},
    "camembert": {"model_type": "camembert"},
    "electra": {"model_type": "electra", "embedding_size": 8},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
    },
    "deberta-v2": {"model_type": "deberta-v2", "type_vocab_size": 2},
    "deberta-v3": RELATIVE | {"share_att_key": True},
    "deberta-v2, keys of its own": RELATIVE | {"type_vocab_size": 2, "position_buckets": -1},
}
DROPOUTS = {
    "distilbert": ("dropout", "attention_dropout", "seq_classif_dropout"),
    "deberta-v2": ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout"),
}
USUAL = ("hidden_dropout_prob", "attention_probs_dropout_prob")
architectures = pytest.mark.parametrize("kind", CONFIGS)
with_kernels = pytest.mark.parametrize("kind", [k for k in CONFIGS if "deberta" not in k])
RECORDS = [
    {"id": str(at), "text": text, "text_pair": pair, "label": at % 2}
    for at, (text, pair) in enumerate(
        [
            ("I have trouble sleeping", "he lies there until it is light"),
            ("no", "no"),
            ("he wakes at four", ""),
            ("", "I have"),
            ("it is light", "trouble at four, every night, every night"),
        ]
    )
]
INFO: dict[str, Any] = {"labels": ["no", "yes"], "class_counts": [3, 2], "train": RECORDS}


def options(kind: str, *, packing: bool = True, dropout: float = 0.0, **more: Any) -> HfClassifier:
    """Return the options of a small model of an architecture."""
    config = CONFIGS[kind]
    sizes = SMALL if kind != "distilbert" else {key: SMALL[key] for key in SHARED}
    names = DROPOUTS.get(config["model_type"], USUAL)
    config = sizes | config | dict.fromkeys(names, dropout) | more.pop("config", {})
    return HfClassifier(**{"config": config, "max_length": ROOM, "packing": packing} | more)


def build(kind: str, **given: Any) -> LiveClassifier:
    """Return it, with the same weights every time."""
    torch.manual_seed(0)
    return options(kind, **given).build(INFO)


@functools.cache
def pair(kind: str, dtype: torch.dtype = torch.float32) -> tuple[LiveClassifier, LiveClassifier]:
    """Return it padded and packed, without dropout."""
    made = build(kind, packing=False), build(kind)
    for live in made:
        live.module.to(dtype).train()
    return made


def drawn(kind: str, lengths: Sequence[int], seed: int = 0) -> list[Features]:
    """Return features of random tokens: those of specials, and of padding too, among them."""
    draw = torch.Generator().manual_seed(seed)
    config = pair(kind)[0].module.net.config
    typed = (getattr(config, "type_vocab_size", 0) or 0) > 1
    found: list[Features] = []
    for at, length in enumerate(lengths):
        ids = torch.randint(0, config.vocab_size, (length,), generator=draw)
        item = {"id": str(at), "length": length, "input_ids": ids.numpy(), "label": at % 2}
        if typed:
            types = torch.randint(0, 2, (length,), generator=draw)
            item["token_type_ids"] = types.numpy()
        found.append(item)
    return found


def gradients(live: LiveClassifier, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a batch's logits, and what the labels make of them for each parameter."""
    live.module.zero_grad()
    logits = live.module(**batch)["logits"]
    nn.functional.cross_entropy(logits.float(), batch["labels"], reduction="sum").backward()
    named = live.module.named_parameters()
    return logits.detach(), {n: p.grad.clone() for n, p in named if p.grad is not None}


def sides(
    kind: str, features: list[Features], dtype: torch.dtype
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Return logits and gradients, padded and packed."""
    return [gradients(live, live.processor.collate(features)) for live in pair(kind, dtype)]


def alike(kind: str, features: list[Features], dtype: torch.dtype, tolerance: float) -> None:
    """Hold that logits and gradients are the padded batch's, to a part of the largest of them."""
    (padded, theirs), (packed, ours) = sides(kind, features, dtype)
    assert padded.shape == packed.shape == (len(features), 2)
    torch.testing.assert_close(packed, padded, rtol=tolerance, atol=tolerance)
    assert ours.keys() == theirs.keys()
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        off = float((ours[name] - gradient).abs().max())
        assert off <= tolerance * max(1.0, largest), name


# the same numbers


@architectures
@hypothesis.settings(max_examples=12)
@hypothesis.given(
    lengths=st.lists(st.integers(1, ROOM), min_size=1, max_size=6), seed=st.integers(0, 2**20)
)
@hypothesis.example(lengths=[1], seed=0)
@hypothesis.example(lengths=[2], seed=0)
@hypothesis.example(lengths=[1, 1, 2, 1], seed=1)
@hypothesis.example(lengths=[ROOM, 1, ROOM], seed=2)
def test_a_packed_batch_is_the_padded_one(kind: str, lengths: list[int], seed: int) -> None:
    """Whatever the lengths, logits and gradients are those of padding, in float64 to 1e-9."""
    alike(kind, drawn(kind, lengths, seed), torch.float64, 1e-9)


@architectures
def test_in_float32_too(kind: str) -> None:
    """In float32 they are the same but for rounding."""
    alike(kind, drawn(kind, [7, 1, ROOM, 2, 13]), torch.float32, 1e-5)


@architectures
def test_texts_are_packed_as_they_are_padded(kind: str) -> None:
    """Pairs of texts, short, cut and empty ones, give the same logits without padding."""
    found = []
    for live in pair(kind):
        live.module.eval()
        features = live.processor.encode(RECORDS)
        with torch.no_grad():
            found.append(live.module(**live.processor.collate(features))["logits"])
        live.module.train()
    assert found[0].std(dim=0).min() > 1e-2
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@architectures
def test_under_autocast_to_bfloat16(kind: str) -> None:
    """Under autocast logits and gradients differ by no more than rounding to 16 bits does."""
    features = drawn(kind, [7, 1, ROOM, 2, 13])
    exact, _ = sides(kind, features, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        padded, packed = sides(kind, features, torch.float32)

    def off(found: tuple[Tensor, dict[str, Tensor]]) -> tuple[float, float]:
        squares = [
            ((found[1][name] - gradient).square().sum(), gradient.square().sum())
            for name, gradient in exact[1].items()
        ]
        wrong, whole = (float(sum(column)) for column in zip(*squares, strict=True))
        logits = (found[0].float() - exact[0]).norm() / exact[0].norm()
        return float(logits), math.sqrt(wrong / whole)

    assert packed[0].dtype == padded[0].dtype == torch.bfloat16
    # each is as near to float32 as 8 bits let it be, and so are they to each other
    assert max(*off(padded), *off(packed)) < 0.1


@with_kernels
def test_a_padded_batch_is_taken_too(kind: str) -> None:
    """A model that packs computes a padded batch as any other does."""
    padded, packed = pair(kind)
    assert packed.module.net.config._attn_implementation == _packing.NAME
    batch = padded.processor.collate(drawn(kind, [5, 1, 9]))
    torch.testing.assert_close(
        packed.module(**batch)["logits"], padded.module(**batch)["logits"], rtol=1e-6, atol=1e-6
    )


def test_a_token_of_padding_in_a_text() -> None:
    """RoBERTa doesn't count a text's own padding tokens, and begins anew with each text."""
    ids = torch.tensor([[5, 1, 6, 7, 1, 8]])
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]])
    assert _packing.behind(ids, positions, 1).tolist() == [[2, 1, 3, 2, 1, 3]]


# isolation


def test_positions_by_themselves_isolate_nothing() -> None:
    """What the next tests hold is not had for nothing: told only positions, BERT mixes texts."""
    _, live = pair("bert")
    features = drawn("bert", [4, 6])
    batch = live.processor.collate(features)
    batch["input_ids"][0, -1] = 7
    found = []
    for last in (8, 9):
        batch["input_ids"][0, -1] = last
        given = {key: batch[key] for key in ("input_ids", "position_ids", "token_type_ids")}
        found.append(live.module.net.bert(**given).last_hidden_state[0, 0])
    assert not torch.equal(*found)


class Ends:
    """Stands in for FlashAttention's varlen, which needs a GPU: it takes the same arguments."""

    def __call__(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any
    ) -> tuple[Tensor, None]:
        """Return attention's outputs [1, N, H, D] within the ends that it is given."""
        ends = given["cu_seq_lens_q"]
        assert mask is None
        assert ends.dtype == torch.int32
        assert torch.equal(ends, given["cu_seq_lens_k"])
        sizes = ends.diff().tolist()
        assert max(sizes) == given["max_length_q"] == given["max_length_k"]
        parts = zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True)
        attend = nn.functional.scaled_dot_product_attention
        found = [attend(*part, scale=given["scaling"]) for part in parts]
        return torch.cat(found, dim=2).transpose(1, 2), None


def kernel(kind: str, name: str, *, dtype: torch.dtype = torch.float32) -> LiveClassifier:
    """Return a model whose attention is of a kind, as it is on another device."""
    from transformers import AttentionInterface

    live = build(kind, attention="eager" if name == "eager" else "sdpa")
    AttentionInterface.register("flash_reference", Ends())
    live.module.net.config._attn_implementation = name
    live.module.to(dtype).train()
    return live


KERNELS = pytest.mark.parametrize("name", [_packing.NAME, "eager", "sdpa", "flash_reference"])


@KERNELS
@with_kernels
def test_every_kind_of_attention_is_told_where_texts_end(kind: str, name: str) -> None:
    """One after the other, masks of blocks and ends of texts all give the padded logits."""
    live = kernel(kind, name, dtype=torch.float64)
    features = drawn(kind, [3, ROOM, 1, 8])
    padded, _ = sides(kind, features, torch.float64)
    found, _ = gradients(live, live.processor.collate(features))
    torch.testing.assert_close(found, padded[0], rtol=1e-9, atol=1e-9)


def untouched(live: LiveClassifier, features: list[Features]) -> None:
    """Hold that other tokens in a text change its logits, and no bit of another's."""
    before = live.module(**live.processor.collate(features))["logits"]
    for at, item in enumerate(features):
        other = (item["input_ids"] + 3) % 50
        changed = [*features[:at], {**item, "input_ids": other}, *features[at + 1 :]]
        after = live.module(**live.processor.collate(changed))["logits"]
        same = [torch.equal(one, two) for one, two in zip(before, after, strict=True)]
        assert same == [index != at for index in range(len(features))]


@architectures
@pytest.mark.parametrize("training", [True, False])
def test_texts_know_nothing_of_each_other(kind: str, *, training: bool) -> None:
    """Another text in a batch, with as many tokens, changes no bit of a text's logits."""
    live = build(kind)
    live.module.train(training)
    with torch.set_grad_enabled(training):
        untouched(live, drawn(kind, [6, 1, 11, 2]))


@pytest.mark.parametrize("name", ["eager", "sdpa", "flash_reference"])
def test_nor_under_another_kind_of_attention(name: str) -> None:
    """Nor where masks or kernels keep them apart."""
    untouched(kernel("bert", name), drawn("bert", [6, 1, 11, 2]))


@architectures
def test_no_gradient_crosses(kind: str) -> None:
    """A text's logits have no gradient by any embedding of another text."""
    live = build(kind)
    batch = live.processor.collate(drawn(kind, [5, 3, 7]))
    seen: list[Tensor] = []
    embeddings = live.module.net.base_model.embeddings

    def keep(module: nn.Module, given: Any, found: Tensor) -> None:
        found.retain_grad()
        seen.append(found)

    embeddings.register_forward_hook(keep)
    live.module.eval()(**batch)["logits"][1].sum().backward()
    reached = seen[0].grad
    assert reached is not None
    reached = reached[0].abs().amax(-1) > 0
    assert reached.tolist() == [False] * 5 + [True] * 3 + [False] * 7


@pytest.mark.parametrize("scaling", [None, 0.7])
def test_attention_is_that_of_each_text(scaling: float | None) -> None:
    """Outputs and gradients are sdpa's of each text by itself, also with a scale of their own."""
    torch.manual_seed(2)
    given = [torch.randn(1, 2, 9, 4, dtype=torch.double, requires_grad=True) for _ in range(3)]
    module = nn.Module()
    module.is_causal = False
    found, _ = _packing.attention(module, *given, None, scaling=scaling, lengths=[4, 1, 4])
    parts = [[t[:, :, begin:end] for t in given] for begin, end in ((0, 4), (4, 5), (5, 9))]
    attend = nn.functional.scaled_dot_product_attention
    wanted = torch.cat([attend(*part, scale=scaling) for part in parts], 2).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(
        *(torch.autograd.grad(side.square().sum(), given) for side in (found, wanted)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


# dropout


def test_dropout_of_packed_attention_is_fair() -> None:
    """Each weight is dropped with its chance, by itself: in every text, head and place."""
    torch.manual_seed(5)
    p, heads, lengths = 0.3, 40, [3, 30, 30, 1]
    total = sum(lengths)
    module = nn.Module()
    module.is_causal = False
    kept: dict[int, list[Tensor]] = {at: [] for at in range(len(lengths))}
    for _ in range(20):
        query = torch.zeros(1, heads, total, 8, requires_grad=True)  # weights are all alike
        key, value = torch.zeros(1, heads, total, 8), torch.ones(1, heads, total, 8)
        found, _ = _packing.attention(module, query, key, value, None, dropout=p, lengths=lengths)
        for at, part in enumerate(found[0, :, :, 0].split(lengths)):
            kept[at].append(part.detach().double() * (1 - p))  # the share of a row that is left
    for at, length in enumerate(lengths):
        shares = torch.stack(kept[at])
        variance, count = p * (1 - p) / length, shares.numel()
        assert abs(shares.mean() - (1 - p)) < 6 * math.sqrt(variance / count)
        # a sum of independent choices has this variance, and masks that repeat have another
        assert abs(shares.var() / variance - 1) < 6 * math.sqrt((2 + 3 / length) / count)
    one, two = (torch.stack(kept[at]) - (1 - p) for at in (1, 2))
    scale = one.std() * two.std()
    for left, right in ((one, two), (one[..., 1:], one[..., :-1]), (one[:, 1:], one[:, :-1])):
        assert abs((left * right).mean() / scale) < 6 / math.sqrt(left.numel())


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        *(("bert", where) for where in ("", "self.dropout", "net.dropout")),
        *(("roberta", where) for where in ("", "self.dropout", "classifier.dropout")),
        *(("distilbert", where) for where in ("", "attention.dropout", "net.dropout")),
        *(("deberta-v3", where) for where in ("", "self.dropout", "pos_dropout", "pooler.dropout")),
    ],
)
def test_dropout_moves_logits_as_with_padding(kind: str, where: str) -> None:
    """Over many draws a text's logits have the mean and the spread of padding: all, and each."""
    features = [*drawn(kind, [9]) * 2, *drawn(kind, [16], seed=1)]
    draws, found = 250, []
    for packing in (False, True):
        live = build(kind, packing=packing, config={"num_hidden_layers": 1})
        for name, module in live.module.train().named_modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.2 if name.endswith(where) else 0.0
        batch = live.processor.collate(features)
        torch.manual_seed(11)
        found.append(torch.stack([live.module(**batch)["logits"] for _ in range(draws)]).detach())
    means, spreads = ([side.mean(0) for side in found], [side.var(0) for side in found])
    errors = ((spreads[0] + spreads[1]) / draws).sqrt()
    assert ((means[0] - means[1]).abs() < 5 * errors).all()
    assert ((spreads[0] / spreads[1]).log().abs() < 5 * 2 / math.sqrt(draws)).all()
    for side in found:
        # copies of a text are dropped apart; the embeddings of distances are all texts' own
        together = (side[:, 0] == side[:, 1]).all(-1).double().mean()
        assert (together > 0.5) == (where == "pos_dropout")


@architectures
def test_recomputed_activations_have_the_same_masks(kind: str) -> None:
    """With activation checkpointing packed gradients are the same, dropout included."""
    found = []
    for option in (False, True):
        live = build(kind, dropout=0.1, activation_checkpointing=option)
        live.module.train()
        calls: list[int] = []
        inner = next(
            m
            for n, m in live.module.net.base_model.named_modules()
            if n.endswith(("dense", "lin1"))
        )
        inner.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        batch = live.processor.collate(drawn(kind, [5, 2, 9]))
        torch.manual_seed(3)
        found.append((*gradients(live, batch), len(calls)))
    assert found[1][2] == 2 * found[0][2] > 0
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=1e-5, atol=1e-6)


# what it is made of


def test_what_a_packed_batch_holds() -> None:
    """Its tokens and nothing else, where texts begin, and each text's id, label and metadata."""
    _, live = pair("bert")
    features = [
        dict(item) | {"meta": {"n": at}} for at, item in enumerate(drawn("bert", [3, 1, 4]))
    ]
    batch = live.processor.collate(features)
    assert batch["input_ids"].tolist() == [[int(i) for f in features for i in f["input_ids"]]]
    assert batch["token_type_ids"].shape == batch["position_ids"].shape == (1, 8)
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 0, 1, 2, 3]]
    assert batch["starts"].tolist() == [0, 3, 4, 8]
    assert batch["lengths"] == [3, 1, 4]
    assert "attention_mask" not in batch
    assert (batch["id"], batch["labels"].tolist()) == (["0", "1", "2"], [0, 1, 0])
    assert batch["meta"] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_text_without_any_token() -> None:
    """A text of no token at all has no first one to read, and is refused by its id."""
    _, live = pair("bert")
    with pytest.raises(UserError, match="record '1' has no token to pack"):
        live.processor.collate(drawn("bert", [3, 0, 4]))


@architectures
def test_weights_go_from_one_to_the_other(kind: str, tmp_path: Path) -> None:
    """What was trained packed is built without, or the other way round: names are the same."""
    found = []
    features = drawn(kind, [4, 9, 1])
    for packing in (True, False):
        folder = tmp_path / str(packing)
        folder.mkdir()
        live = build(kind, packing=packing)
        with torch.no_grad():
            for parameter in live.module.parameters():
                parameter.add_(0.01)
        live.save_assets(folder)
        assert _packing.NAME not in (folder / "config.json").read_text()
        save_weights(live.module, folder / "model.safetensors")
        again = options(kind, packing=not packing).build(INFO, folder)
        checkpoint.load_weights(again.module, folder / "model.safetensors")
        assert [item[::2] for item in again.labelled()] == [i[::2] for i in live.labelled()]
        for made in (live, again):
            with torch.no_grad():
                batch = made.processor.collate(features)
                found.append(made.module.eval()(**batch)["logits"])
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-5, atol=1e-5)


def test_a_frozen_encoder_is_packed_too() -> None:
    """With `freeze_encoder` the head alone has gradients, those of padding."""
    made = [build("bert", packing=packing, freeze_encoder=True) for packing in (False, True)]
    features = drawn("bert", [4, 9, 1])
    found = [gradients(live, live.processor.collate(features))[1] for live in made]
    assert set(found[0]) == set(found[1]) == {"net.classifier.weight", "net.classifier.bias"}
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-5)


def test_it_is_off_unless_asked_for() -> None:
    """Without the option batches are padded and the attention is the usual one."""
    live = HfClassifier(config=SMALL, max_length=ROOM).build(INFO)
    assert live.module.net.config._attn_implementation == _cpu.NAME
    assert "attention_mask" in live.processor.collate(live.processor.encode(RECORDS))


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "albert"}, "a 'albert', and only 'bert', .* can be packed"),
        ({"model_type": "mpnet"}, "a 'mpnet', and only"),
        ({"model_type": "deberta"}, "a 'deberta', and only"),
        ({"model_type": "deberta-v2", "conv_kernel_size": 3}, "convolution .conv_kernel_size."),
        ({"model_type": "bert", "is_decoder": True}, "with is_decoder it can't be packed"),
    ],
)
def test_an_architecture_that_cant_be_packed(config: Mapping[str, Any], wanted: str) -> None:
    """It is refused when it is built, in one line that names it and says what to do."""
    with pytest.raises(UserError, match=wanted) as error:
        HfClassifier(config=SMALL | config, max_length=ROOM, packing=True).build(INFO)
    assert str(error.value).endswith("set packing = false")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "deberta-v3"])
def test_it_keeps_the_contract_of_models(kind: str) -> None:
    """The suite that every model must pass holds with packing."""
    config = {"max_position_embeddings": 128, "vocab_size": 200}
    check_model(options(kind, config=config, max_length=96))


# whole runs


def trained(folder: Path, patch: pytest.MonkeyPatch, *sets: str, code: int = 0) -> Path:
    """Return the folder of a small run."""
    folder.mkdir()
    patch.chdir(folder)
    (folder / "tiny.toml").write_text(SHORT, encoding="utf-8")
    words = [word for text in sets for word in ("--set", text)]
    assert main(["run", "tiny.toml", *words]) == code
    return only_run(folder, "tiny")


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with padding and without dropout."""
    with pytest.MonkeyPatch.context() as patch:
        return trained(tmp_path_factory.mktemp("runs") / "padded", patch, *EXACT)


def rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a predictions file."""
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def near(one: Path, other: Path) -> None:
    """Hold that two runs logged the same points, but for rounding."""
    for ours, theirs in zip(points(one), points(other), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


def test_a_packed_run_is_the_padded_run(
    padded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Training in micro-batches, evaluating and predicting go as with padding."""
    small = ("model.packing=true", "trainer.micro_batch=5")
    packed = trained(tmp_path / "packed", monkeypatch, *EXACT, *small)
    near(packed, padded)
    names = [row["id"] for row in rows(padded / "predictions" / "test.csv")]
    assert [row["id"] for row in rows(packed / "predictions" / "test.csv")] == names
    # the commands build it again from what the run left
    capsys.readouterr()
    assert main(["evaluate", str(packed), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    known = json.loads((packed / "result.json").read_text())["metrics"]["test"]
    assert _numbers(told) >= _numbers(known)
    source = rows(ROOT / "data" / "redsm5" / "redsm5_annotations.csv")[:40]
    with Path("new.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, ["sentence_id", "sentence_text", "DSM5_symptom"])
        writer.writeheader()
        writer.writerows({key: row[key] for key in writer.fieldnames} for row in source)
    found = []
    for run in (packed, padded):
        assert main(["predict", str(run), "new.csv", "--output", f"{run.name}.csv"]) == 0
        column = [float(row["probability_evidence"]) for row in rows(Path(f"{run.name}.csv"))]
        found.append(column)
    assert len(found[0]) == 40
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def _numbers(tree: Any) -> set[tuple[str, float]]:
    """Return every number of a tree, with its key."""
    found: set[tuple[str, float]] = set()
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= _numbers(value)
        elif isinstance(value, float):
            found.add((key, round(value, 5)))
    return found


def test_a_packed_run_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted and resumed, with dropout, it ends bit for bit as one that never was."""
    offers = {"framework.callback": {"ring": "ring_packed:Ring"}}
    install(monkeypatch, tmp_path / "site", "ring 1.0", offers, ring_packed=RINGING)
    whole = trained(tmp_path / "whole", monkeypatch, "model.packing=true")
    ring = ("model.packing=true", "callbacks.ring={}")
    halted = trained(tmp_path / "halted", monkeypatch, *ring, code=143)
    assert main(["run", "tiny.toml", "--set", "model.packing=true", "--resume"]) == 0
    assert points(halted) == points(whole)
    test = Path("predictions") / "test.csv"
    assert (halted / test).read_text() == (whole / test).read_text()


def test_a_packed_step_that_finds_no_memory_is_split(
    padded: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where memory runs out the step is cut into smaller micro-batches and stays the same step."""
    usual = _packing.logits

    def greedy(net: Any, *given: Any, **batch: Any) -> Tensor:
        if net.training and len(batch["lengths"]) > 8:
            torch.empty(1 << 55, dtype=torch.uint8)  # which no machine has
        return usual(net, *given, **batch)

    monkeypatch.setattr(_packing, "logits", greedy)
    split = ("model.packing=true", "trainer.on_oom=split")
    near(trained(tmp_path / "split", monkeypatch, *EXACT, *split), padded)
    assert "out of memory with 32 items at once; going on with 16" in capsys.readouterr().err
