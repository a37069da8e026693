"""The transformer language model: its network against plain torch, and its windows."""

from __future__ import annotations

import itertools
import math
import mmap
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framework.errors import UserError
from plugins.datasets.text_file import TextFile
from plugins.models import _transformer, _windows
from plugins.models._transformer import Attention, CachedReader, Shape, Transformer, _turned
from plugins.models.transformer_lm import LiveTransformerLm, TransformerLm
from plugins.tokenizers import character
from plugins.tokenizers.bpe import Bpe
from plugins.tokenizers.character import Character

KINDS = list(itertools.product(("learned", "sinusoidal", "rotary"), ("rms", "layer")))
every = pytest.mark.parametrize(("positions", "norm"), KINDS)
SENTENCE = "The tide turns twice a day; naïve 日本 keeps no count.\n"


def network(**given: Any) -> Transformer:
    """A small network in evaluation mode, of weights that are no small numbers."""
    shape = {"vocabulary": 11, "context": 12, "layers": 2, "heads": 2, "width": 8, "dropout": 0.0}
    torch.manual_seed(1)
    made = Transformer(Shape(**{**shape, "norm": "rms", "positions": "rotary", **given}))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    return made.eval()


def tokens(*shape: int) -> Tensor:
    """Random tokens of its vocabulary."""
    return torch.randint(2, 11, shape, generator=torch.Generator().manual_seed(2))


def sees_ahead(net: Transformer) -> bool:
    """Change one token after another: whether an earlier token's logits move by it."""
    ids = tokens(1, 12)
    with torch.no_grad():
        before = net(ids)["logits"]
        for at in range(12):
            other = ids.clone()
            other[0, at] = (other[0, at] - 2 + 1) % 9 + 2
            after = net(other)["logits"]
            if not torch.equal(before[:, :at], after[:, :at]):
                return True
            # and what comes after it does look at it
            assert not torch.equal(before[:, at:], after[:, at:])
    return False


@every
def test_a_token_sees_none_that_follow(positions: Any, norm: Any) -> None:
    """Whatever token is changed, logits before it stay the same, bit for bit."""
    assert not sees_ahead(network(positions=positions, norm=norm))


def test_attention_that_is_not_causal_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same perturbation finds a network whose attention looks both ways."""
    real = nn.functional.scaled_dot_product_attention

    def both_ways(*inputs: Tensor, **given: Any) -> Tensor:
        return real(*inputs, **{**given, "is_causal": False})

    monkeypatch.setattr(_transformer.functional, "scaled_dot_product_attention", both_ways)
    assert sees_ahead(network())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"d_model": 130, "heads": 4}, "'d_model' is 130, which 4 heads don't divide; 128 would"),
        ({"d_model": 3, "heads": 4}, "4 would do"),
        ({"d_model": 12, "heads": 4}, "an even number of d_model / heads"),
    ],
)
def test_a_width_that_heads_do_not_divide_is_refused(given: Any, words: str) -> None:
    """The mistake is one of the options, told before anything is built."""
    with pytest.raises(ValueError, match=words):
        TransformerLm(tokenizer=Character(), **given)
    TransformerLm(tokenizer=Character(), d_model=12, heads=4, positions="learned")


def test_weights_start_as_they_should() -> None:
    """N(0, 0.02), what adds to the residual stream smaller by the root of twice the layers."""
    torch.manual_seed(0)
    shape = {"vocabulary": 500, "context": 64, "layers": 8, "heads": 4, "width": 128}
    net = Transformer(Shape(**shape, dropout=0.0, norm="layer", positions="learned"))
    for name, parameter in net.named_parameters():
        wanted = 0.02 / 4 if "outer" in name else 0.02
        if parameter.ndim > 1:
            assert parameter.std().item() == pytest.approx(wanted, rel=0.05), name
            assert abs(parameter.mean().item()) < wanted / 20, name
        else:
            assert set(parameter.unique().tolist()) <= {0.0, 1.0}


def test_the_output_is_the_embedding() -> None:
    """Weights are tied: the logits are products with the embeddings, and there is no other."""
    net = network()
    hidden = torch.randn(3, 8)
    assert torch.equal(net.logits(hidden), net.norm(hidden) @ net.embedding.weight.T)
    assert [n for n, p in net.named_parameters() if 11 in p.shape] == ["embedding.weight"]


def test_it_is_torch_own_encoder_layer() -> None:
    """With learned positions and LayerNorm it computes what torch's own layers do, in float64."""
    net = network(positions="learned", norm="layer").double()
    ids = tokens(3, 12)
    x = net.embedding(ids) + net.places.weight
    for block in net.blocks:
        layer = nn.TransformerEncoderLayer(
            8, 2, 32, 0.0, "gelu", batch_first=True, norm_first=True, dtype=torch.float64
        ).eval()
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        layer.self_attn.in_proj_weight.data = block.attention.inner.weight.data
        layer.self_attn.out_proj.weight.data = block.attention.outer.weight.data
        layer.linear1.weight.data = block.wide.weight.data
        layer.linear2.weight.data = block.outer.weight.data
        for mine, theirs in zip(block.norms, (layer.norm1, layer.norm2), strict=True):
            theirs.load_state_dict(mine.state_dict())
        mask = nn.Transformer.generate_square_subsequent_mask(12, dtype=torch.float64)
        x = layer(x, src_mask=mask, is_causal=True)
    expected = nn.functional.layer_norm(x, (8,), net.norm.weight, net.norm.bias)
    assert torch.allclose(net(ids)["logits"], expected @ net.embedding.weight.T, atol=1e-10)


def test_rotary_attention_depends_on_distance_alone() -> None:
    """The product of a turned query and key is the same at any places as far apart (RoFormer)."""
    query, key = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)
    angles = _transformer._angles_TK(40, 8)

    def product(at: int, other: int) -> float:
        one, two = (
            _turned(x, (angles[i].cos(), angles[i].sin())) for x, i in ((query, at), (key, other))
        )
        return float((one * two).sum())

    assert product(5, 2) == pytest.approx(product(33, 30), rel=1e-12)
    assert product(5, 2) != pytest.approx(product(5, 4), rel=1e-3)
    assert product(7, 7) == pytest.approx(float((query * key).sum()), rel=1e-12)


def test_sinusoidal_positions_are_those_of_the_paper() -> None:
    """The waves added are sin and cos of position / 10000^(2i/d), in turn."""
    net = network(positions="sinusoidal", layers=1)
    seen: list[Tensor] = []
    net.blocks[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ids = tokens(1, 12)
    net(ids)
    waves = seen[0] - net.embedding(ids) * math.sqrt(8)
    for at, i in itertools.product(range(12), range(4)):
        angle = at / 10000 ** (2 * i / 8)
        found = waves[0, at, 2 * i : 2 * i + 2].tolist()
        assert found == pytest.approx([math.sin(angle), math.cos(angle)], abs=1e-5)


@every
def test_reading_with_a_cache_is_reading_the_whole(positions: Any, norm: Any) -> None:
    """Texts of any lengths, read together and on token by token, have the logits of the whole.

    It fails where padding on the left is looked at, or moves positions.
    """
    net = network(positions=positions, norm=norm)
    ids = tokens(3, 12)
    begun = [2, 7, 5]
    reader = CachedReader(net)
    found = [reader([row[:n].tolist() for row, n in zip(ids, begun, strict=True)])]
    for step in range(5):
        nexts = [[int(row[n + step])] for row, n in zip(ids, begun, strict=True)]
        found.append(reader(nexts))
    with torch.no_grad():
        whole = net(ids)["logits"]
    for step, logits in enumerate(found):
        expected = torch.stack([whole[row, n - 1 + step] for row, n in enumerate(begun)])
        assert torch.allclose(logits, expected, atol=1e-5), step


def test_dropout_is_of_training_alone() -> None:
    """It changes the outputs in training and not in evaluation."""
    net = network(dropout=0.5)
    ids = tokens(2, 12)
    assert torch.equal(net(ids)["logits"], net(ids)["logits"])
    net.train()
    assert not torch.equal(net(ids)["logits"], net(ids)["logits"])
    assert isinstance(net.blocks[0].attention, Attention)


@pytest.fixture
def splits(tmp_path: Path) -> Any:
    """A made-up text whose last tenth has words that the rest lacks."""
    rest, last = SENTENCE * 90, "Zyx wvuq zyx! " * 40
    (tmp_path / "input.txt").write_text(rest + last, encoding="utf-8")
    share = len(rest) / len(rest + last)
    return lambda **given: TextFile(root=tmp_path, ratios=[share, 1 - share], **given).build(0)


def model(data: Any, tokenizer: Any, **given: Any) -> LiveTransformerLm:
    """A tiny model of a dataset."""
    options = TransformerLm(tokenizer=tokenizer, **{"layers": 1, "heads": 2, "d_model": 8, **given})
    return options.build({**data.info, "train": data["train"]})


def targets(live: LiveTransformerLm, records: Any) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and labels of every window."""
    features = live.processor.encode(records)
    for at in range(len(features)):
        batch = live.processor.collate([features[at]])
        yield batch["input_ids"][0].tolist(), batch["labels"][0].tolist()


@pytest.mark.parametrize("tokenizer", [Character(), Bpe(vocabulary=280)], ids=["char", "bpe"])
@pytest.mark.parametrize("window", [13, 64])
def test_evaluation_counts_every_token_once(splits: Any, tokenizer: Any, window: int) -> None:
    """Labels of all windows of val, in order, are its tokens but the first; each follows its input.

    Their characters add up to those of the text that they stand for.
    """
    data = splits(window=window, stride=5)
    live = model(data, tokenizer, cache=False)
    found, characters = [], 0
    whole = live.tokenizer.encode(data["val"].whole).tolist()
    for inputs, labels in targets(live, data["val"]):
        kept = [label for label in labels if label != -100]
        assert inputs[1 : len(kept)] == kept[:-1]
        found += kept
    assert found == whole[1:]
    features = live.processor.encode(data["val"])
    for at in range(0, len(features), 3):
        batch = live.processor.collate(features[at : at + 3])
        characters += int(batch["characters"].sum())
    assert characters == len(data["val"].whole) - live.tokenizer.characters[whole[0]]


def test_a_vocabulary_is_learnt_from_training_alone(splits: Any) -> None:
    """What only val holds is unknown to characters, and no merge of BPE is of it."""
    data = splits()
    live = model(data, Character(), cache=False)
    assert 1 in live.tokenizer.encode(data["val"].whole)
    bpe = model(data, Bpe(vocabulary=400), cache=False).tokenizer
    assert len(bpe.encode(" wvuq")) == 5
    assert len(bpe.encode(" count")) == 1


def test_training_moves_windows_within_their_split(splits: Any) -> None:
    """Augmented windows begin anywhere within a stride, by their own generator; others stay."""
    data = splits(window=16)
    live = model(data, Character(), cache=False)
    features = live.processor.encode(data["train"])
    whole = live.tokenizer.encode(data["train"].whole)
    starts = set()
    for seed in range(200):
        moved = live.processor.augment(features[3], np.random.default_rng(seed))
        (start,) = (at for at in range(48, 64) if np.array_equal(whole[at : at + 17], moved["ids"]))
        starts.add(start)
    assert starts == set(range(48, 64))
    last = live.processor.augment(features[len(features) - 1], np.random.default_rng(0))
    assert len(last["ids"]) == 17
    val = live.processor.encode(data["val"])[0]
    assert (
        live.processor.augment(val, np.random.default_rng(0))["ids"].tolist() == val["ids"].tolist()
    )


def test_an_encoded_split_is_mapped_and_found_again(
    splits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ids lie on the disk, for their owner alone; a second start encodes nothing."""
    data = splits()
    live = model(data, Character(), cache=tmp_path / "cache")
    first = live.processor.encode(data["train"])
    base: Any = first.tokens.ids_N
    assert base.dtype == np.uint16
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(getattr(base, "obj", base), mmap.mmap)
    (file,) = (tmp_path / "cache").rglob("ids")
    assert file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(type(live.tokenizer), "encode", None)
    again = live.processor.encode(data["train"])
    assert np.array_equal(again.tokens.ids_N, first.tokens.ids_N)


def test_a_long_text_is_encoded_in_pieces(
    splits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows are those of the whole, and little more is held than its ids: 5 bytes a character.

    It fails where numbers of 8 bytes, or UTF-32, stand for the whole text.
    """
    train = splits()["train"]
    bpe = model(splits(), Bpe(vocabulary=280), cache=False).processor
    wanted = bpe.encode(train)
    for module in (character, _windows):
        monkeypatch.setattr(module, "PIECE", 1000)
    found = bpe.encode(train)
    for name in ("begins", "ends", "limits", "lengths"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name
    (tmp_path / "input.txt").write_text(SENTENCE * 6000, encoding="utf-8")
    data = splits()
    live = model(data, Character(), cache=tmp_path / "cache")
    tracemalloc.start()
    live.processor.encode(data["train"])
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 5 * len(data["train"].whole)


def test_a_window_longer_than_the_context_is_refused(splits: Any) -> None:
    """The error names the window, both numbers and the options."""
    data = splits(window=64)
    live = model(data, Character(), context=32, cache=False)
    with pytest.raises(
        UserError, match=r"window 'train:0' comes to 64 tokens and model.context is"
    ):
        live.processor.encode(data["train"])


def test_rows_have_the_loss_of_a_window(splits: Any) -> None:
    """A row of predictions is a window's mean loss, with how much it is over, and no text."""
    data = splits()
    live = model(data, Character(), cache=False)
    batch = live.processor.collate(live.processor.encode(data["val"])[-2:])
    outputs = live.module(**batch)
    (row, last) = live.processor.decode(outputs, batch)
    expected = nn.functional.cross_entropy(outputs["logits"][0], batch["labels"][0])
    assert row == {"id": row["id"], "tokens": 64, "characters": 64, "loss": row["loss"]}
    assert row["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert last["tokens"] == (len(data["val"].whole) - 1) % 64


def test_depths_go_from_embeddings_to_the_last_norm(splits: Any) -> None:
    """Optimizers see embeddings at 0, a block each, and the last norm as the head."""
    live = model(splits(), Character(), layers=3, cache=False)
    depths = {item.name: (item.part, item.depth) for item in live.labelled()}
    assert depths["embedding.weight"] == ("base", 0)
    assert depths["blocks.2.wide.weight"] == ("base", 3)
    assert depths["norm.weight"] == ("head", 4)
