"""Sequences of problem, plan and code: where they are split, and what is a target."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch

from framework.errors import UserError
from plugins.models._sections import Marked, SectionTexts, targets
from plugins.models.plan_code import PlanCode
from plugins.tokenizers.bpe import Bpe
from plugins.tokenizers.character import Character

LABELS = ["CONTINUE", "TRUNCATED"]


def record(**changes: Any) -> dict[str, Any]:
    """A record whose sections have 3, 12 and 5 characters: its thirds lie elsewhere."""
    one = {"id": "r", "text": "abc", "plan": "assert f(1);", "code": "x = 1", "label": 0}
    return one | changes


def processor(*records: dict[str, Any], context: int = 64, tokenizer: Any = None) -> SectionTexts:
    """A processor whose vocabulary is that of the records."""
    texts = [one[key] for one in records for key in ("text", "plan", "code")]
    return SectionTexts(Marked((tokenizer or Character()).build(texts)), context, LABELS)


def predicted(made: SectionTexts, labels: Any) -> str:
    """What the targets are, special tokens by their names."""
    names = dict(zip(made.marked.ids, ("<PLAN>", "<CODE>", "<END>"), strict=True))
    kept = [index for index in labels.tolist() if index != -100]
    return "".join(names.get(index) or made.marked.tokenizer.decode([index]) for index in kept)


@pytest.mark.parametrize("tokenizer", [Character(), Bpe(vocabulary=262)], ids=str)
def test_sections_are_split_at_their_marks(tokenizer: Any) -> None:
    """Each head predicts its own section and the mark that ends it, from the mark before it on.

    It fails where a sequence is cut into thirds, whatever stands there.
    """
    one, short = record(), record(id="s", text="a much longer problem; 1", plan="f", code="x")
    made = processor(one, short, tokenizer=tokenizer)
    batch = made.collate(made.encode([one, short]))
    for row, item in enumerate((one, short)):
        assert predicted(made, batch["plan_labels"][row]) == item["plan"] + "<CODE>"
        assert predicted(made, batch["code_labels"][row]) == item["code"] + "<END>"
        inputs, end = batch["input_ids"][row], int(batch["ends"][row])
        sequence = f"{item['text']}<PLAN>{item['plan']}<CODE>{item['code']}<END>"
        assert predicted(made, inputs[: end + 1]) == sequence
        assert not inputs[end + 1 :].any()
        for name in ("plan", "code"):  # what is a target is the token after it
            (at,) = np.nonzero(batch[f"{name}_labels"][row].numpy() != -100)
            assert (batch[f"{name}_labels"][row][at] == inputs[at + 1]).all()


@pytest.mark.parametrize(
    "ids", [[5, 6, 7], [5, 8, 9], [5, 9, 6, 8, 7], [8, 5, 8, 6, 9], [8, 9, 5]], ids=str
)
def test_a_sequence_that_lacks_a_mark_is_no_sequence(ids: list[int]) -> None:
    """Nor is one with a mark twice, or in another order: there is no guess where to split."""
    with pytest.raises(ValueError, match="its marks stand at"):
        targets(np.array(ids), (8, 9, 7))


@pytest.mark.parametrize("tokenizer", [Character(), Bpe(vocabulary=300)], ids=str)
def test_a_text_never_holds_a_mark(tokenizer: Any) -> None:
    """A problem that says <PLAN> is text: marks have ids that no text is encoded to.

    It fails where sections are joined as one text before they become tokens.
    """
    one = record(text="What is <PLAN>, and <CODE>?", code="print('<END>')")
    made = processor(one, tokenizer=tokenizer)
    (features,) = made.encode([one])
    assert [int((features["ids"] == mark).sum()) for mark in made.marked.ids] == [1, 1, 1]
    batch = made.collate([features])
    assert predicted(made, batch["plan_labels"][0]) == one["plan"] + "<CODE>"
    assert predicted(made, batch["code_labels"][0]) == one["code"] + "<END>"
    assert made.marked.ids[0] == len(made.marked.tokenizer.characters)


def test_a_copy_is_there_for_its_label() -> None:
    """Broken code is nothing to learn writing from; of whole code 0 is the label, not padding."""
    made = processor(record())
    items = made.encode([record(), record(copy=True, label=1), {**record(), "label": -100}])
    batch = made.collate(items)
    assert batch["refinement_labels"].tolist() == [0, 1, -100]
    assert [bool((row != -100).any()) for row in batch["plan_labels"]] == [True, False, True]
    assert [bool((row != -100).any()) for row in batch["code_labels"]] == [True, False, True]
    unlabelled = {k: v for k, v in record().items() if k != "label"}
    assert made.collate(made.encode([unlabelled]))["refinement_labels"].tolist() == [-100]


def test_too_long_a_plan_loses_its_end(caplog: pytest.LogCaptureFixture) -> None:
    """Then the problem does; marks and code stay whole, and a plan that was cut has no end."""
    caplog.set_level(logging.INFO, logger="framework")
    made = processor(record(), context=16)
    batch = made.collate(made.encode([record(), record(text="abcabcabcabc")]))
    assert predicted(made, batch["input_ids"][0]) == "abc<PLAN>asser<CODE>x = 1<END>"
    assert predicted(made, batch["plan_labels"][0]) == "asser"
    assert predicted(made, batch["input_ids"][1]) == "abcabcab<PLAN><CODE>x = 1<END>"
    assert predicted(made, batch["plan_labels"][1]) == ""
    assert predicted(made, batch["code_labels"][1]) == "x = 1<END>"
    assert "2 of 2 sequences have more than 16 tokens: their plans are cut" in caplog.text
    with pytest.raises(UserError, match="'r': its code comes to 5 tokens and model"):
        processor(record(), context=7).encode([record()])


def test_refinement_is_read_at_the_end() -> None:
    """It depends on every token of the sequence, and on no padding."""
    torch.manual_seed(0)
    options = PlanCode(tokenizer=Character(), layers=1, heads=2, d_model=16, context=64)
    live = options.build({"labels": LABELS, "train": [record()]})
    live.module.eval()

    def found(*records: dict[str, Any]) -> torch.Tensor:
        batch = live.processor.collate(live.processor.encode(records))
        with torch.no_grad():
            return live.module(**batch)["refinement_logits"][0]

    alone = found(record())
    beside = found(record(), record(code="x = 1" * 4))
    torch.testing.assert_close(alone, beside, rtol=0, atol=1e-6)
    for changed in (record(code="x = 11"), record(code="1 = 1"), record(text="bbc")):
        assert float((found(changed) - alone).abs().max()) > 1e-6


def test_broken_copies_teach_no_vocabulary() -> None:
    """Whole records of train do; those without sections, and impossible widths, are refused."""
    train = [record(), record(copy=True, code="☃")]
    live = PlanCode(tokenizer=Character(), layers=1, heads=2, d_model=8).build(
        {"labels": LABELS, "train": train}
    )
    assert "☃" not in live.processor.marked.tokenizer.alphabet
    with pytest.raises(UserError, match="record 'a' has no 'plan': model 'plan_code' reads text"):
        PlanCode(tokenizer=Character()).build(
            {"labels": LABELS, "train": [{"id": "a", "text": "x"}]}
        )
    with pytest.raises(ValueError, match="no multiple of twice the 4 heads"):
        PlanCode(d_model=36)
