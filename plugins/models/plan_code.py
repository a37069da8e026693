"""A transformer that predicts plan and code token by token, and says what is wrong with code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs.validators import ge, gt, lt
from torch import Tensor, nn

from framework.protocols import Info, Labelled, Record, option
from plugins._fitting import needed
from plugins._language import Tokenizer
from plugins.models._sections import Marked, SectionTexts, sections
from plugins.models._transformer import Shape, Transformer, View

_STD = 0.02


@attrs.frozen
class PlanCode:
    """Three heads on one causal transformer: next token of the plan, of the code, and refinement.

    It reads problem, <PLAN>, plan, <CODE>, code and <END>; refinement is a class of the whole, told
    at the end. The vocabulary is made from the training split, and is saved with the model.
    """

    tokenizer: Tokenizer = option("bpe", help="makes tokens of texts", kind="tokenizer")
    context: int = option(512, help="tokens of the longest sequence", validator=ge(4))
    layers: int = option(3, help="blocks", validator=ge(1))
    heads: int = option(4, help="of attention; they divide d_model", validator=ge(1))
    d_model: int = option(96, help="width; the inner one is 4 times it", validator=gt(1))
    dropout: float = option(
        0.0, help="of embeddings and of what blocks add to them", validator=[ge(0.0), lt(1.0)]
    )

    def __attrs_post_init__(self) -> None:
        """Refuse widths that can't be divided."""
        if self.d_model % (2 * self.heads):
            raise ValueError(
                f"'d_model' is {self.d_model}, which is no multiple of twice the {self.heads} heads"
            )

    def build(self, info: Info, assets: Path | None = None) -> LivePlanCode:
        """Build it, and its vocabulary from the training split, or from what was saved."""
        labels = needed(info, "labels", "model 'plan_code'")
        if assets is None:
            tokenizer = self.tokenizer.build(_texts(info["train"]))
        else:
            tokenizer = self.tokenizer.load(assets)
        marked = Marked(tokenizer)
        shape = Shape(
            vocabulary=marked.size,
            context=self.context,
            layers=self.layers,
            heads=self.heads,
            width=self.d_model,
            dropout=self.dropout,
            norm="rms",
            positions="rotary",
        )
        texts = SectionTexts(marked, self.context, labels)
        return LivePlanCode(PlanCodeNet(shape, len(labels)), texts)


def _texts(records: Sequence[Record]) -> list[str]:
    """Return the texts of records, those of broken copies left out."""
    return [text for record in records if not record.get("copy") for text in sections(record)]


class PlanCodeNet(nn.Module):
    """The transformer and its heads. B records, T tokens, D width, V vocabulary, C classes."""

    def __init__(self, shape: Shape, classes: int) -> None:
        """Make them."""
        super().__init__()
        self.body = Transformer(shape)
        self.plan = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.code = nn.Linear(shape.width, shape.vocabulary, bias=False)
        self.refinement = nn.Linear(shape.width, classes)
        for head in (self.plan, self.code, self.refinement):
            nn.init.normal_(head.weight, std=_STD)

    def forward(self, input_ids: Tensor, ends: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return `plan_logits`, `code_logits` [B, T, V] and `refinement_logits` [B, C]."""
        places_T = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden_BTD = self.body.norm(self.body.hidden(input_ids, places_T, View()))
        # padding stands behind the end, where nothing looks
        last_BD = hidden_BTD[torch.arange(len(ends), device=ends.device), ends]
        return {
            "plan_logits": self.plan(hidden_BTD),
            "code_logits": self.code(hidden_BTD),
            "refinement_logits": self.refinement(last_BD),
        }


@attrs.frozen
class LivePlanCode:
    """The model with the processor of its sequences."""

    module: PlanCodeNet
    processor: SectionTexts

    def labelled(self) -> list[Labelled]:
        """Every parameter: embeddings at depth 0, a block each, last norm and heads the deepest."""
        items = []
        for name, parameter in self.module.named_parameters():
            owner, first, number, *_ = [*name.split("."), ""]
            inner = owner == "body" and first != "norm"
            part: Literal["base", "head"] = "base" if inner else "head"
            depth = int(number) + 1 if first == "blocks" else 0
            top = self.module.body.shape.layers + 1
            items.append(Labelled(name, parameter, part, depth if inner else top))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write the vocabulary, as JSON."""
        self.processor.marked.tokenizer.save(folder)
