"""Problem, plan and code as one sequence of tokens, split where its special tokens are.

Legend of shapes: B records, T tokens of the longest of them, C classes of refinement.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from framework.errors import UserError
from framework.protocols import Batch, Features, Outputs, Record, Row
from plugins._language import IGNORED, PADDING, LiveTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARKS = ("<PLAN>", "<CODE>", "<END>")
_KEYS = ("text", "plan", "code")
_log = logging.getLogger("framework")


@attrs.frozen
class Marked:
    """A tokenizer, and special tokens with the first ids behind its own.

    No text is encoded to one of them, not even one that has its name.
    """

    tokenizer: LiveTokenizer

    @property
    def size(self) -> int:
        """Tokens in all."""
        return len(self.tokenizer.characters) + len(MARKS)

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of plan, code and end."""
        return tuple(range(self.size - len(MARKS), self.size))

    def join(self, problem: Any, plan: Any, code: Any) -> NDArray[np.int64]:
        """Return the ids of a sequence: problem, <PLAN>, plan, <CODE>, code, <END>."""
        mark = [np.array([index], np.int64) for index in self.ids]
        return np.concatenate([problem, mark[0], plan, mark[1], code, mark[2]])


def sections(record: Record) -> list[str]:
    """Return problem, plan and code of a record; `UserError` names one that lacks any."""
    lacking = [key for key in _KEYS if key not in record]
    if lacking:
        raise UserError(
            f"record '{record['id']}' has no '{lacking[0]}': model 'plan_code' reads text, plan and"
            " code, as the dataset 'sections' gives them"
        )
    return [record[key] for key in _KEYS]


def targets(ids_T: NDArray[np.int64], marks: Sequence[int]) -> tuple[NDArray[np.int64], ...]:
    """Return what each token's successor is, for the plan and for the code: two of shape [T].

    A section begins at its mark, and ends with predicting the next one; all else is no target.
    Raises `ValueError` for a sequence that lacks a mark, or has it twice or in another order.
    """
    found = [np.flatnonzero(ids_T == mark) for mark in marks]
    if any(len(at) != 1 for at in found) or not found[0][0] < found[1][0] < found[2][0]:
        raise ValueError(f"its marks stand at {[at.tolist() for at in found]}")
    begin, middle, end = (int(at[0]) for at in found)
    plan_T, code_T = np.full((2, len(ids_T)), IGNORED)
    plan_T[begin:middle] = ids_T[begin + 1 : middle + 1]
    code_T[middle:end] = ids_T[middle + 1 : end + 1]
    return plan_T, code_T


@attrs.frozen
class SectionTexts:
    """The processor of sequences with sections."""

    marked: Marked
    context: int
    labels: Sequence[str]
    augments = False

    def encode(self, records: Sequence[Record]) -> list[Features]:
        """Encode records: `text` (the problem), `plan` and `code`.

        Of a sequence that is too long the plan loses its end, and then the problem. Raises
        `UserError` for code that is too long by itself: what became of it could not be judged.
        """
        found = [self._features(record) for record in records]
        cut = sum(features["cut"] for features in found)
        if cut:
            message = "%d of %d sequences have more than %d tokens: their plans are cut"
            _log.info(message, cut, len(found), self.context)
        return found

    def _features(self, record: Record) -> Features:
        problem, plan, code = map(self.marked.tokenizer.encode, sections(record))
        room = self.context - len(code) - len(MARKS)
        if room < 0:
            raise UserError(
                f"record '{record['id']}': its code comes to {len(code)} tokens and model.context"
                f" is {self.context}; raise it, or remove the record"
            )
        kept = max(0, room - len(problem))
        ids = self.marked.join(problem[:room], plan[:kept], code)
        return {
            "id": record["id"],
            "length": len(ids),
            "ids": ids,
            "cut": kept < len(plan),
            "copy": bool(record.get("copy")),
            "label": record.get("label", IGNORED),
        }

    def augment(self, features: Features, rng: np.random.Generator) -> Features:  # noqa: ARG002
        """Nothing is changed."""
        return features

    def collate(self, features: Sequence[Features]) -> Batch:
        """Return `input_ids`, `plan_labels`, `code_labels` [B, T], padded to the longest.

        `refinement_labels` [B] are class indexes, 0 a class like any other; `ends` [B] is where
        each sequence has its last token. A copy has no target but its refinement.
        """
        shape = (len(features), max(item["length"] for item in features))
        inputs_BT, (plans_BT, codes_BT) = np.full(shape, PADDING), np.full((2, *shape), IGNORED)
        for row, item in enumerate(features):
            size = item["length"]
            inputs_BT[row, :size] = item["ids"]
            if not item["copy"]:
                plans_BT[row, :size], codes_BT[row, :size] = targets(item["ids"], self.marked.ids)
            if item["cut"]:  # the plan doesn't end where it was cut
                plans_BT[row][plans_BT[row] == self.marked.ids[1]] = IGNORED
        return {
            "id": [item["id"] for item in features],
            "input_ids": torch.from_numpy(inputs_BT),
            "ends": torch.tensor([item["length"] - 1 for item in features]),
            "plan_labels": torch.from_numpy(plans_BT),
            "code_labels": torch.from_numpy(codes_BT),
            "refinement_labels": torch.tensor([item["label"] for item in features]),
        }

    def decode(self, outputs: Outputs, batch: Batch) -> list[Row]:
        """Return per record its label where known, the prediction, and losses per token."""
        shares_BC = outputs["refinement_logits"].double().softmax(-1).cpu()
        losses = [_means(outputs[f"{k}_logits"], batch[f"{k}_labels"]) for k in ("plan", "code")]
        rows = []
        for name, label, shares, plan, code in zip(
            batch["id"], batch["refinement_labels"].tolist(), shares_BC, *losses, strict=True
        ):
            row: Row = {"id": name}
            if label != IGNORED:
                row["label"] = self.labels[label]
            row["prediction"] = self.labels[int(shares.argmax())]
            scores = zip(self.labels, shares.tolist(), strict=True)
            row |= {f"probability_{label}": value for label, value in scores}
            rows.append(row | {"plan_loss": plan, "code_loss": code})
        return rows


def _means(logits_BTV: Tensor, labels_BT: Tensor) -> list[float | None]:
    """Return each record's loss per target token; None where it has none."""
    labels_BT = labels_BT.to(logits_BTV.device)
    logits_BVT = logits_BTV.float().transpose(1, 2)
    losses_BT = cross_entropy(logits_BVT, labels_BT, ignore_index=IGNORED, reduction="none")
    tokens = (labels_BT != IGNORED).sum(1).tolist()
    return [
        total / n if n else None for total, n in zip(losses_BT.sum(1).tolist(), tokens, strict=True)
    ]
