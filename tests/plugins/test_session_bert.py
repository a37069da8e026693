"""The model of sessions: its vocabulary, what it masks, what it reads, and what it gives back."""

from __future__ import annotations

import copy
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from tokenizers import Tokenizer, models, pre_tokenizers

from framework.errors import UserError
from plugins._language import IGNORED
from plugins._surprise import surprise
from plugins.models import _session_tokens
from plugins.models._masking import Masking
from plugins.models._session_batches import SessionBatches
from plugins.models._session_tokens import SessionTokenizer
from plugins.models.session_bert import LiveSessionBert, SessionBert

WORDS = ("amber", "birch", "cloud", "delta")
TINY: Mapping[str, Any] = {"layers": 1, "heads": 2, "d_model": 16, "max_length": 32, "dropout": 0.0}


def record(number: int, events: int = 6) -> dict[str, Any]:
    """A session of several kinds of events, with types, gaps and texts."""
    made: list[dict[str, Any]] = []
    for at in range(events):
        name = f"e{(number + at) % 5}"
        made.append({"event": name, "type": f"t{at % 2}", "gap": float(at * number % 9)})
        if at % 3 == 0:
            made[-1]["text"] = f"{WORDS[at % 4]} {WORDS[number % 4]}"
    return {"id": f"s{number}", "events": made, "label": number % 2}


RECORDS = [record(number) for number in range(8)]
PLAIN = [{"id": f"p{n}", "events": [{"event": str(e)} for e in (1, 2, n)]} for n in range(6)]
"""Sessions of names alone."""


def built(records: Sequence[Mapping[str, Any]] = RECORDS, **given: Any) -> LiveSessionBert:
    """A tiny model with the vocabulary of some sessions."""
    torch.manual_seed(0)
    live = SessionBert(**{**TINY, **given}).build({"train": records, "labels": ["no", "yes"]})
    live.module.eval()
    return live


def drawn(live: LiveSessionBert, records: Sequence[Mapping[str, Any]], seed: int = 0) -> Any:
    """A batch of training."""
    processor = live.processor
    rng = np.random.default_rng(seed)
    return processor.collate([processor.augment(f, rng) for f in processor.encode(records)])


# --- masking


def masked_at_once(ids_N: Any, masking: Masking) -> list[int]:
    """How many tokens are left, masked, replaced, and predicted as they are."""
    inputs_N, labels_N = masking.draw(ids_N, np.random.default_rng(5))
    chosen_N = labels_N != IGNORED
    hidden_N = inputs_N == masking.mask
    same_N = inputs_N == ids_N
    return [
        int((~chosen_N).sum()),
        int((chosen_N & hidden_N).sum()),
        int((chosen_N & ~hidden_N & ~same_N).sum()),
        int((chosen_N & same_N).sum()),
    ]


def nested(ids_N: Any, masking: Masking) -> list[int]:
    """The fault: a draw for what is chosen, one for what is masked, and one of what is left."""
    rng = np.random.default_rng(5)
    chosen, hidden, replaced = (rng.random(len(ids_N)) < p for p in (masking.share, 0.8, 0.1))
    counts = (~chosen, chosen & hidden, chosen & ~hidden & replaced, chosen & ~hidden & ~replaced)
    return [int(part.sum()) for part in counts]


def test_masking_is_80_10_10_of_15() -> None:
    """Over a million tokens the shares are .85, .12, .015, .015, by a chi-squared test.

    It fails where the ten percent are drawn of what the eighty have left, as the faulty draw shows.
    """
    masking = Masking((0, 1, 2, 3, 4), 4, 10_000, 0.15)
    ids_N = np.random.default_rng(1).integers(5, 10_000, 1_000_000, dtype=np.int32)
    # a token in 9,995 is replaced by itself
    odd = 0.015 / 9_995
    expected = np.asarray([0.85, 0.12, 0.015 - odd, 0.015 + odd]) * len(ids_N)
    assert chisquare(masked_at_once(ids_N, masking), expected).pvalue > 0.01
    assert chisquare(nested(ids_N, masking), expected).pvalue < 1e-100


def test_what_replaces_a_token_is_any_but_special() -> None:
    """Replacements are spread evenly over the vocabulary, special tokens left out."""
    masking = Masking((3, 7), 3, 20, 0.9)
    ids_N = np.full(200_000, 11, np.int32)
    inputs_N, _ = masking.draw(ids_N, np.random.default_rng(2))
    found = Counter(inputs_N[(inputs_N != 3) & (inputs_N != 11)].tolist())
    assert found.keys() == set(range(20)) - {3, 7, 11}
    assert chisquare([*found.values()]).pvalue > 0.01


def test_special_tokens_are_never_chosen_and_something_always_is() -> None:
    """Of sessions of one token among special ones that one is a target, whatever the share.

    It fails where nothing may be chosen: such a session has no loss, and is shown as 0.0.
    """
    masking = Masking((0, 1, 2, 3, 4), 4, 30, 0.001)
    ids_N = np.asarray([0, 2, 1, 9, 3, 4], np.int32)
    outcomes = Counter()
    for seed in range(2000):
        inputs_N, labels_N = masking.draw(ids_N, np.random.default_rng(seed))
        assert labels_N.tolist() == [IGNORED, IGNORED, IGNORED, 9, IGNORED, IGNORED]
        assert np.delete(inputs_N, 3).tolist() == [0, 2, 1, 3, 4]
        outcomes[{4: "masked", 9: "kept"}.get(int(inputs_N[3]), "replaced")] += 1
    # and by the same shares as any other
    counts = [outcomes[name] for name in ("masked", "replaced", "kept")]
    assert chisquare(counts, [1600, 200 * 24 / 25, 200 * 26 / 25]).pvalue > 0.01
    special = np.asarray([0, 1, 4], np.int32)
    assert masking.draw(special, np.random.default_rng(0)).labels_N.tolist() == [IGNORED] * 3


def test_evaluation_masks_every_token_once() -> None:
    """Over its passes each token but the special ones is hidden once, in training's own words."""
    live = built()
    features = [*live.processor.encode(RECORDS)]
    batch = live.processor.collate(features)
    special = torch.tensor([*live.processor.tokenizer.special])
    hidden_BKT = batch["input_ids"] == live.processor.tokenizer.special.mask
    targets_BT = batch["labels"] != IGNORED
    assert torch.equal(hidden_BKT.sum(1), targets_BT.long())
    assert torch.equal(hidden_BKT.any(1), batch["turns"] >= 0)
    open_BT = ~torch.isin(batch["input_ids"], special).all(1)
    assert torch.equal(open_BT, targets_BT)
    for row, item in zip(batch["labels"], features, strict=True):
        kept = item["ids_N"][~np.isin(item["ids_N"], special)]
        assert row[row != IGNORED].tolist() == kept.tolist()


def test_scores_are_those_of_a_plain_loop() -> None:
    """A session's score is the mean loss of its tokens, each from the pass that hides it."""
    live = built(passes=3)
    batch = live.processor.collate([*live.processor.encode(RECORDS)])
    with torch.no_grad():
        outputs = live.module(**batch)
        for at in range(len(RECORDS)):
            losses = []
            for place in range(batch["labels"].shape[1]):
                turn = int(batch["turns"][at, place])
                if turn < 0:
                    continue
                one = {k: batch[k][at : at + 1, turn] for k in ("input_ids", "event_types")}
                mask = batch["attention_mask"][at : at + 1]
                logits = live.module(**one, attention_mask=mask)["logits"][0, place].double()
                losses.append(-logits.log_softmax(-1)[batch["labels"][at, place]])
            assert float(surprise(outputs, batch)[at]) == pytest.approx(
                float(torch.stack(losses).mean()), rel=1e-5
            )
    rows = live.processor.decode(outputs, batch)
    assert [row["label"] for row in rows] == ["no", "yes"] * 4
    assert rows[0]["tokens"] == int((batch["labels"][0] != IGNORED).sum())


# --- the vocabulary


def test_structure_stands_behind_text(tmp_path: Path) -> None:
    """Special ids and the boundary are the tokenizer's; saved and loaded they are the same."""
    tokenizer = built().processor.tokenizer
    vocabulary = tokenizer.text.get_vocab()
    assert tokenizer.boundary == len(vocabulary)
    assert tokenizer.special._asdict() == {
        "padding": vocabulary["[PAD]"],
        "unknown": vocabulary["[UNK]"],
        "first": vocabulary["[CLS]"],
        "last": vocabulary["[SEP]"],
        "mask": vocabulary["[MASK]"],
    }
    tokens = tokenizer.encode(RECORDS[1]["events"], 100)
    boundary = tokenizer.boundary
    first = tokens.ids_N[: tokens.starts_E[1]]
    # a name, a type, a gap, and words
    assert (first[:3] >= boundary).all()
    assert (first[3:] < boundary).all()
    assert tokenizer.text.decode(first[3:].tolist()).replace(" ##", "") == "amber birch"
    assert tokens.ids_N.max() < tokenizer.size
    tokenizer.save(tmp_path)
    again = _session_tokens.loaded(tmp_path)
    assert (again.special, again.size) == (tokenizer.special, tokenizer.size)
    for item in RECORDS:
        for one, other in zip(
            tokenizer.encode(item["events"], 100), again.encode(item["events"], 100), strict=True
        ):
            assert one.tolist() == other.tolist()


def test_what_training_did_not_have_is_unknown() -> None:
    """Other names, types, gaps and words are tokens of the vocabulary, and no error."""
    live = built()
    tokenizer = live.processor.tokenizer
    odd = {"event": "never", "type": "seen", "gap": 1e12, "text": "漢字"}
    tokens = tokenizer.encode([odd, {"event": "e1"}, {"event": "e1", "gap": -0.0}], 100)
    assert tokens.ids_N[0] == tokenizer.boundary
    assert tokens.ids_N[1] == tokenizer.type_ids[0]
    assert (tokens.ids_N < tokenizer.size).all()
    assert tokens.ids_N[3] == tokenizer.special.unknown
    assert tokens.types_N.tolist() == [0] * len(tokens.ids_N)
    batch = live.processor.collate([*live.processor.encode([{"id": "x", "events": [odd]}])])
    assert live.module(**batch)["logits"].isfinite().all()
    # and evaluation asks for them, as for all others
    assert batch["labels"][0, 1:-1].tolist() == [*tokens.ids_N[:5], tokenizer.end]


def test_texts_are_texts_whatever_they_say(tmp_path: Path) -> None:
    """What reads like a special token is words; also with a vocabulary that was saved."""
    events = [{"event": "e1", "text": "[MASK] amber [PAD][CLS]"}, {"event": "e2", "text": "[SEP]"}]
    live = built([*RECORDS, {"id": "said", "events": events, "label": 0}])
    tokenizer = live.processor.tokenizer
    tokenizer.save(tmp_path)
    for one in (tokenizer, _session_tokens.loaded(tmp_path), copy.deepcopy(tokenizer)):
        ids_N = one.encode(events, 100).ids_N
        assert not np.isin(ids_N, [*tokenizer.special]).any()
        # in brackets, with what is between them
        assert (ids_N < one.boundary).sum() >= 13


def test_gaps_are_told_apart_by_powers_of_two() -> None:
    """No gap is a token of its own; then milliseconds to days, a token for each doubling."""
    tokenizer = built().processor.tokenizer
    gaps = [0.0, 0.0001, 0.001, 0.9, 1.0, 1.9, 2.0, 3.9, 4.0, 1e7]
    ids = [int(tokenizer.encode([{"event": "e1", "gap": gap}], 9).ids_N[1]) for gap in gaps]
    first = tokenizer.type_ids.stop
    assert [token - first for token in ids] == [0, 1, 1, 10, 11, 11, 12, 12, 13, 31]
    assert tokenizer.size == first + 32


def test_names_alone_make_a_vocabulary_of_names() -> None:
    """Sessions without types, gaps and texts have no tokens and no embeddings of them."""
    live = built(PLAIN)
    tokenizer = live.processor.tokenizer
    # special ones, any other name, six names, the end
    assert tokenizer.size == 5 + 1 + 6 + 1
    assert live.module.type_embeddings is None
    assert not [name for name, _ in live.module.named_parameters() if "type_emb" in name[:10]]


def permuted() -> SessionTokenizer:
    """A tokenizer whose special tokens are not where others have them."""
    names = ["birch", "[MASK]", "amber", "[SEP]", "[PAD]", "cloud", "[UNK]", "[CLS]"]
    text = Tokenizer(models.WordPiece({n: at for at, n in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    text.pre_tokenizer = pre_tokenizers.Whitespace()
    return SessionTokenizer(text, {"e0": 1, "e1": 2}, {}, gaps=False)


def test_special_ids_are_the_tokenizers() -> None:
    """Another order of the vocabulary moves padding, ends and mask along.

    It fails where 0, 101, 102 or 103 stand in the code.
    """
    tokenizer = permuted()
    special = tokenizer.special
    assert tuple(special) == (4, 6, 7, 3, 1)
    masking = Masking(tuple(special), special.mask, tokenizer.size, 0.5)
    batches = SessionBatches(tokenizer, masking, max_length=16, keep=1.0, unfinished=0.0, turns=2)
    events = [{"event": "e0", "text": "amber oak"}, {"event": "e1", "text": "birch"}]
    features = [*batches.encode([{"id": "a", "events": events}, {"id": "b", "events": events[:1]}])]
    batch = batches.collate(features)
    mask = special.mask
    # e0 amber [UNK] e1 birch and the end, of which the unknown word is no target
    assert batch["input_ids"][0].tolist() == [
        [7, mask, 2, 6, mask, 0, mask, 3],
        [7, 9, mask, 6, 10, mask, 11, 3],
    ]
    assert batch["input_ids"][1, 0].tolist() == [7, mask, 2, 6, mask, 3, 4, 4]
    assert batch["attention_mask"][1].tolist() == [1] * 6 + [0] * 2
    for seed in range(50):
        item = batches.augment(features[0], np.random.default_rng(seed))
        assert item["labels_N"][2] == IGNORED
        assert not np.isin(item["ids_N"][[0, 1, 3, 4, 5]], [4, 6, 7, 3]).any()


def test_a_tokenizer_without_a_special_token_is_refused(tmp_path: Path) -> None:
    """What the model needs of a tokenizer is looked for when it is loaded, by name.

    It fails where an attribute is asked of the tokenizer in the first step that it doesn't have.
    """
    permuted().save(tmp_path)
    assert _session_tokens.loaded(tmp_path).special == permuted().special
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("[MASK]", "[HIDE]"), encoding="utf-8")
    with pytest.raises(UserError, match=r"has no token \[MASK\]"):
        _session_tokens.loaded(tmp_path)
    file.write_text("{}")
    with pytest.raises(UserError, match="vocabulary of sessions can't be read"):
        _session_tokens.loaded(tmp_path)


# --- what the network is given


def test_event_types_reach_the_network() -> None:
    """Another type of an event changes the logits, and its embedding gets a gradient.

    It fails where embeddings are defined and never fed.
    """
    live = built()
    batch = drawn(live, RECORDS)
    before = live.module(**batch)["logits"]
    other = batch["event_types"].clone()
    other[0, 1] = other[0, 1] % 2 + 1
    after = live.module(**{**batch, "event_types": other})["logits"]
    assert not torch.allclose(before[0], after[0])
    assert torch.equal(before[1:], after[1:])
    before.square().sum().backward()
    weight = live.module.type_embeddings.weight
    assert weight.grad[1:].abs().sum(1).gt(0).all()
    assert not weight.grad[0].any()


def test_token_types_come_from_the_boundary() -> None:
    """The network is told what is structure and what is text, by the ids themselves."""
    live = built()
    batch = drawn(live, RECORDS)
    seen: list[torch.Tensor] = []
    embeddings = live.module.net.bert.embeddings.token_type_embeddings
    handle = embeddings.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    live.module(**batch)
    handle.remove()
    assert torch.equal(seen[0], (batch["input_ids"] >= live.processor.tokenizer.boundary).long())
    assert seen[0].bool().any()


def test_a_type_to_be_predicted_is_told_nowhere() -> None:
    """Where an event's type is a target, the embedding of its type is hidden from its tokens."""
    live = built(mask=0.4)
    tokenizer = live.processor.tokenizer
    for seed in range(20):
        found = drawn(live, RECORDS, seed)
        check_types(found["labels"], found["event_types"], tokenizer)
    batch = live.processor.collate([*live.processor.encode(RECORDS)])
    for turn in range(7):
        labels = torch.where(batch["turns"] == turn, batch["labels"], IGNORED)
        check_types(labels, batch["event_types"][:, turn], tokenizer)


def check_types(labels_BT: Any, types_BT: Any, tokenizer: SessionTokenizer) -> None:
    """Hold each target that tells a type against the types that are given."""
    told_BT = (labels_BT >= tokenizer.type_ids.start) & (labels_BT < tokenizer.type_ids.stop)
    assert not types_BT[told_BT].any()
    # the name, before the type, is of the same event
    assert not types_BT[told_BT.roll(-1, 1)].any()


def test_recomputed_activations_change_nothing() -> None:
    """With activation checkpointing, loss and gradients are the same, also with dropout."""
    found = []
    for checkpointing in (False, True):
        live = built(activation_checkpointing=checkpointing, dropout=0.1)
        live.module.train()
        torch.manual_seed(3)
        logits = live.module(**drawn(live, RECORDS))["logits"]
        logits.square().sum().backward()
        found.append([p.grad for _, p in live.module.named_parameters()])
    assert live.module.net.is_activation_checkpointing
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


# --- reading sessions


class Counting(Sequence[Any]):
    """Sessions that know their sizes, and how often one was read."""

    def __init__(self, count: int) -> None:
        """Start unread."""
        self.count, self.reads = count, 0
        self.sizes = np.full((count, 2), 18)

    def __len__(self) -> int:
        """Count the sessions."""
        return self.count

    def __getitem__(self, at: Any) -> Any:
        """Read one."""
        self.reads += 1
        return record(range(self.count)[at])

    def __iter__(self) -> Iterator[Any]:
        """Read all."""
        return (self[at] for at in range(self.count))


def test_nothing_is_tokenised_before_it_is_used() -> None:
    """Encoding 100,000 sessions reads none of them; a batch reads its own.

    It fails where everything is tokenised up front.
    """
    live = built()
    records = Counting(100_000)
    features = live.processor.encode(records)
    assert (len(features), int(features.lengths[5]), records.reads) == (100_000, 21, 0)
    live.processor.collate([features[at] for at in (5, 77_777)])
    assert records.reads == 2


def test_long_sessions_are_cut_between_events() -> None:
    """A chunk is whole events in their order, from anywhere in training and the first otherwise."""
    live = built(max_length=16)
    processor = live.processor
    (features,) = processor.encode([record(3, events=40)])
    ids, starts = features["ids_N"].tolist(), [*features["starts_E"].tolist(), 10**6]
    begins = set()
    for seed in range(300):
        item = processor.augment(features, np.random.default_rng(seed))
        whole = np.where(item["labels_N"] == IGNORED, item["ids_N"], item["labels_N"]).tolist()
        places = [at for at in starts[:-1] if ids[at : at + len(whole)] == whole]
        assert places
        assert any(at + len(whole) in (*starts, len(ids)) for at in places)
        assert len(whole) <= 14
        begins.update(places[:1])
    assert len(begins) > 5
    batch = processor.collate([features])
    read = batch["labels"][0][batch["labels"][0] != IGNORED].tolist()
    assert ids[: len(read)] == read
    assert len(read) in starts


def test_sessions_that_are_cut_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """How many sessions of a split evaluation doesn't read to their end is said once."""
    with caplog.at_level("WARNING", logger="framework"):
        built(max_length=16).processor.encode(Counting(12))
        built(max_length=40).processor.encode(Counting(12))
    (said,) = caplog.messages
    assert said.startswith("12 of 12 sessions have more than model.max_length = 16 tokens")


def test_an_event_without_end_is_read_as_far_as_it_goes(caplog: pytest.LogCaptureFixture) -> None:
    """One of more tokens than fit is read from its name on, each time, and that is said once.

    It fails where a chunk may begin behind it: half of the draws are then the end alone.
    """
    live = built([*RECORDS, {"id": "w", "events": [{"event": "e1", "text": "qwertz"}]}])
    processor = live.processor
    long = [{"id": n, "events": [{"event": "e1", "text": "qwertz " * 40}]} for n in range(2)]
    with caplog.at_level("WARNING", logger="framework"):
        features, _ = processor.encode(long)
    assert [m.split(" holds")[0] for m in caplog.messages] == [
        "an event alone has more tokens than model.max_length = 32"
    ]
    for seed in range(20):
        item = processor.augment(features, np.random.default_rng(seed))
        assert item["starts_E"].tolist() == [0]
        assert len(item["ids_N"]) == 30


def test_lengths_are_no_less_than_tokens() -> None:
    """A budget of tokens holds whatever texts are: words of many parts, accents, hangul, signs.

    It fails where a text's length is its count of words.
    """
    texts = ("internationalisation of qwertz", "naïve İstanbul ǅ", "각각 漢字", "a-b/c[d]!?", " ")
    records = [{"id": t, "events": [{"event": "e1", "text": t}, {"event": "e2"}]} for t in texts]
    live = built([*RECORDS, *records], vocabulary=8, max_length=200)
    found = [*live.processor.encode(records)]
    for item in found:
        assert len(item["ids_N"]) + 2 <= item["length"]
    assert len(found[0]["ids_N"]) > 12
    plain = built(PLAIN).processor.encode(PLAIN)
    assert [len(item["ids_N"]) + 2 for item in plain] == plain.lengths.tolist()


def test_events_are_left_out_by_chance() -> None:
    """With `keep` training reads a share of the events, at least one, in their order."""
    live = built(keep=0.5, max_length=400)
    (features,) = live.processor.encode([record(2, events=60)])
    counts = []
    for seed in range(200):
        item = live.processor.augment(features, np.random.default_rng(seed))
        counts.append(len(item["starts_E"]))
        names = np.where(item["labels_N"] == IGNORED, item["ids_N"], item["labels_N"])
        assert (names[item["starts_E"]] >= live.processor.tokenizer.boundary).all()
    assert 25 < np.mean(counts) < 35
    assert min(counts) > 10
    lonely = built(keep=0.01).processor
    (features,) = lonely.encode([record(2)])
    sizes = {len(lonely.augment(features, np.random.default_rng(s))["starts_E"]) for s in range(50)}
    # an event and the end
    assert min(sizes) == 2


def test_unfinished_sessions_end_anywhere_and_without_an_end() -> None:
    """With `unfinished` so many are read up to some event, each as often as the others."""
    live = built(unfinished=0.5)
    end = live.processor.tokenizer.end
    (features,) = live.processor.encode([record(1)])
    whole, cut = 0, Counter()
    for seed in range(1000):
        item = live.processor.augment(features, np.random.default_rng(seed))
        ids = np.where(item["labels_N"] == IGNORED, item["ids_N"], item["labels_N"])
        if len(item["starts_E"]) == 7:
            whole += 1
            assert ids[-1] == end
        else:
            assert end not in ids
        cut[len(item["starts_E"])] += 1
        assert ids.tolist() == features["ids_N"].tolist()[: len(ids)]
    assert 450 < whole < 550
    assert chisquare([cut[events] for events in range(1, 7)]).pvalue > 0.01
    batch = live.processor.collate([features])
    assert batch["labels"][0][batch["labels"][0] != IGNORED][-1] == end


def test_augmentation_is_its_generators_alone() -> None:
    """The same seed, epoch and record give the same session, another epoch gives another."""
    live = built()
    (features,) = live.processor.encode(RECORDS[:1])
    one, again, other = (
        live.processor.augment(features, np.random.default_rng(seed))
        for seed in ([1, 0, 7], [1, 0, 7], [1, 1, 7])
    )
    assert one["ids_N"].tolist() == again["ids_N"].tolist()
    assert one["labels_N"].tolist() != other["labels_N"].tolist()


def test_widths_that_do_not_fit_are_refused() -> None:
    """Heads that don't divide the width are an error with a number that would do."""
    with pytest.raises(ValueError, match="'d_model' is 10, which 4 heads don't divide; 8 would do"):
        SessionBert(d_model=10)


def test_assets_are_plain_json(tmp_path: Path) -> None:
    """What is saved beside the weights is two files of JSON."""
    live = built()
    live.save_assets(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"sessions.json", "tokenizer.json"}
    kept = json.loads((tmp_path / "sessions.json").read_text())
    assert kept == {"events": [f"e{n}" for n in range(5)], "types": ["t0", "t1"], "gaps": True}
