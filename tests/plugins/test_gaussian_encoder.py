"""The Gaussian encoder: how it starts, what is trained, and what it makes of triples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from framework.errors import UserError
from plugins._gaussian import Gaussians, distances
from plugins._index import fingerprint
from plugins.models.gaussian_encoder import GaussianEncoder, LiveGaussianEncoder

CONFIG = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
TEXTS = ["amber birch", "cloud", "delta ember flint amber", "grove heron birch"]
TRIPLES: list[dict[str, Any]] = [
    {
        "id": "t1",
        "text": "amber birch",
        "positive": "cloud",
        "negatives": ["delta ember flint amber", "grove heron birch"],
        "query": "q1",
        "document": "d1",
        "wrong": ["d2", "d3"],
        "relevant": {"d1": 1},
    },
    {"id": "t2", "text": "cloud", "positive": "amber", "negatives": [], "query": "q2"}
    | {"document": "d4", "wrong": [], "relevant": {"d4": 1}},
]


def built(**given: Any) -> LiveGaussianEncoder:
    """A model from nothing, in evaluation mode."""
    torch.manual_seed(0)
    options = GaussianEncoder(**{"config": CONFIG, "max_length": 16, "cache": False, **given})
    live = options.build({"train": [{"text": text} for text in TEXTS]})
    live.module.eval()
    return live


def outputs(live: LiveGaussianEncoder, records: Any) -> tuple[Any, Any]:
    """What the module makes of records, and their batch."""
    features = live.processor.encode(records)
    batch = live.processor.collate([features[at] for at in range(len(features))])
    with torch.inference_mode():
        return live.module(**batch), batch


def singles(texts: list[str]) -> list[dict[str, Any]]:
    """Records of an evaluation."""
    return [{"id": str(at), "text": text, "document": str(at)} for at, text in enumerate(texts)]


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_untrained_it_ranks_as_the_plain_encoder(pooling: Any) -> None:
    """Distances by cosine are those of pooled states, and by Wasserstein nearly twice these."""
    live = built(pooling=pooling)
    found, batch = outputs(live, singles(TEXTS))
    with torch.inference_mode():
        states = live.module.net(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    plain = states[:, 0] if pooling == "first" else (states * mask).sum(1) / mask.sum(1)
    unit = torch.nn.functional.normalize(plain, dim=-1)
    texts = Gaussians(found["mean"][:, 0], found["log_variance"][:, 0])
    torch.testing.assert_close(
        distances("cosine", texts, texts), 1 - unit @ unit.T, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(
        distances("wasserstein", texts, texts), 2 - 2 * unit @ unit.T, atol=2e-3, rtol=0
    )


def test_means_have_one_length_whatever_their_size() -> None:
    """It is the square root of the dimensions, also where the encoder is projected to fewer."""
    for size in (0, 4):
        found, _ = outputs(built(output_dim=size), singles(TEXTS))
        width = size or 16
        torch.testing.assert_close(found["mean"].norm(dim=-1), torch.full((4, 1), width**0.5))


def test_texts_of_a_triple_are_what_they_are_alone() -> None:
    """Query, positive and first negative stand in their places; what a triple lacks is 0."""
    live = built()
    found, batch = outputs(live, TRIPLES)
    texts = ["amber birch", "cloud", "delta ember flint amber", "cloud", "amber"]
    alone, _ = outputs(live, singles(texts))
    for name in ("mean", "log_variance"):
        torch.testing.assert_close(found[name].flatten(0, 1)[:5], alone[name][:, 0])
        assert not found[name][1, 2].any()
    assert batch["negatives"] == ["d2", ""]


def test_every_epoch_draws_one_of_the_negatives() -> None:
    """Both are drawn in time, each with its id; a triple with none, or one, is left as it is."""
    import numpy as np

    processor = built().processor
    first, second = (processor.encode(TRIPLES)[at] for at in range(2))
    drawn = [processor.augment(first, np.random.default_rng(seed)) for seed in range(20)]
    assert {item["wrong"][0] for item in drawn} == {"d2", "d3"}
    for item in drawn:
        at = first["wrong"].index(item["wrong"][0])
        assert item["negatives"][0].tolist() == first["negatives"][at].tolist()
    assert processor.augment(second, np.random.default_rng(0)) is second


def test_a_frozen_encoder_leaves_the_projection() -> None:
    """Base and head are told apart, so that each may have its rate; frozen, the head is left."""
    parts = {item.name: item.part for item in built().labelled()}
    head = {"mean.weight", "log_variance.weight", "log_variance.bias"}
    assert {name for name, part in parts.items() if part == "head"} == head
    assert not any("pooler" in name for name in parts)
    frozen = built(freeze_encoder=True)
    assert {item.name for item in frozen.labelled()} == head
    frozen.module.train()
    one, other = (outputs(frozen, singles(TEXTS))[0]["mean"] for _ in range(2))
    assert torch.equal(one, other)


def test_a_fingerprint_is_of_all_that_embeds() -> None:
    """Another pooling, length or similarity makes other embeddings, or ranks them another way."""
    ways: list[dict[str, Any]] = [{}, {"pooling": "first"}, {"max_length": 8}]
    ways.append({"similarity": "cosine"})
    made = [fingerprint(built(**way)) for way in (*ways, {})]
    assert len({*made}) == len(ways)
    assert made[0] == made[-1]


def test_what_cannot_be_is_told(tmp_path: Path) -> None:
    """No model, more tokens than positions, a key that no configuration has."""
    with pytest.raises(ValueError, match="it needs pretrained"):
        GaussianEncoder()
    with pytest.raises(UserError, match="max_length is 64 and this model has 32 positions"):
        built(max_length=64)
    small = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 8}
    with pytest.raises(UserError, match="t5 is an encoder with a decoder"):
        built(config={"model_type": "t5", "vocab_size": 60, **small})
    with pytest.raises(UserError, match="no 'hiden_size'"):
        built(config={**CONFIG, "hiden_size": 3})
    with pytest.raises(UserError, match="no pretrained model is here"):
        built(pretrained=tmp_path)
