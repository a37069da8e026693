"""A BERT that is trained from nothing on sessions of events."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs.validators import ge, gt, le, lt
from torch import Tensor, nn

from framework.protocols import Info, Labelled, option
from plugins.models import _cpu, _networks, _session_tokens
from plugins.models._masking import Masking
from plugins.models._session_batches import SessionBatches
from plugins.models._session_tokens import SessionTokenizer

_STD = 0.02


@attrs.frozen
class SessionBert:
    """Predicts masked tokens of sessions: BERT (Devlin et al., 2019) over events.

    An event is a token for its name, one each for its type and for the time since the event
    before, and its text in WordPieces, whichever of these it has; a last token says that the
    session is over. What there is of each is learned from the training split, and is saved with
    the model. Evaluation hides every token once, in a few passes, so that the loss of a session
    is a number of its own; a word of which the vocabulary has no part is a target there, too, which
    training never has: it is surprising, as is an event of unknown name.
    """

    max_length: int = option(
        128, help="tokens of a session; of longer ones, a chunk of whole events", validator=ge(8)
    )
    layers: int = option(2, help="blocks", validator=ge(1))
    heads: int = option(4, help="of attention; they divide d_model", validator=ge(1))
    d_model: int = option(128, help="width; the inner one is 4 times it", validator=gt(1))
    dropout: float = option(
        0.1, help="of embeddings, attention and blocks", validator=[ge(0.0), lt(1.0)]
    )
    vocabulary: int = option(
        2000, help="tokens of the WordPiece for texts, if events have any", validator=ge(8)
    )
    mask: float = option(
        0.15, help="share of tokens that training predicts", validator=[gt(0.0), lt(1.0)]
    )
    keep: float = option(
        1.0, help="share of events that training reads of a session", validator=[gt(0.0), le(1.0)]
    )
    unfinished: float = option(
        0.0,
        help="share of sessions that training reads up to some event: an end is then news",
        validator=[ge(0.0), lt(1.0)],
    )
    passes: int = option(
        7, help="of an evaluation: each masks another part of the tokens", validator=ge(1)
    )
    activation_checkpointing: bool = option(
        False, help="recompute activations in the backward pass: slower, less memory"
    )

    def __attrs_post_init__(self) -> None:
        """Refuse a width that can't be divided."""
        if self.d_model % self.heads:
            raise ValueError(
                f"'d_model' is {self.d_model}, which {self.heads} heads don't divide;"
                f" {self.d_model // self.heads * self.heads or self.heads} would do"
            )

    def build(self, info: Info, assets: Path | None = None) -> LiveSessionBert:
        """Build it, and its vocabulary from the training split, or from what was saved."""
        _networks.quiet()
        if assets is None:
            tokenizer = _session_tokens.trained(info["train"], self.vocabulary)
        else:
            tokenizer = _session_tokens.loaded(assets)
        special = tokenizer.special
        masking = Masking(
            tuple(special), special.mask, tokenizer.size, self.mask, scored=(special.unknown,)
        )
        labels = tuple(info.get("labels", ()))
        batches = SessionBatches(
            tokenizer, masking, self.max_length, self.keep, self.unfinished, self.passes, labels
        )
        net = self._network(tokenizer)
        return LiveSessionBert(SessionNet(net, len(tokenizer.types), tokenizer.boundary), batches)

    def _network(self, tokenizer: SessionTokenizer) -> Any:
        from transformers import BertConfig, BertForMaskedLM

        config = BertConfig(
            vocab_size=tokenizer.size,
            hidden_size=self.d_model,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=4 * self.d_model,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            max_position_embeddings=self.max_length,
            type_vocab_size=2,
            pad_token_id=tokenizer.special.padding,
        )
        net = BertForMaskedLM(config)
        _cpu.quicken(net)
        if self.activation_checkpointing:
            _networks.recompute(net)
        return net


class SessionNet(nn.Module):
    """A BERT with embeddings of event types, and its masked-token head.

    Legend of shapes: B sessions, T tokens, K passes, D width, V vocabulary.
    """

    def __init__(self, net: Any, types: int, boundary: int) -> None:
        """Keep the network, and make embeddings where events have types."""
        super().__init__()
        self.net = net
        self.boundary = boundary
        self.type_embeddings = None
        if types:
            self.type_embeddings = nn.Embedding(types + 1, net.config.hidden_size, padding_idx=0)
            with torch.no_grad():
                self.type_embeddings.weight[1:].normal_(std=_STD)

    def forward(
        self,
        input_ids: Tensor,
        event_types: Tensor,
        attention_mask: Tensor,
        turns: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        """Return `logits` [B, T, V]; of passes [B, K, T], each token's from where it is masked."""
        if turns is None:
            return {"logits": self._logits(input_ids, event_types, attention_mask)}
        logits_BTV = self._logits(input_ids[:, 0], event_types[:, 0], attention_mask)
        for at in range(1, input_ids.shape[1]):
            found_BTV = self._logits(input_ids[:, at], event_types[:, at], attention_mask)
            logits_BTV = torch.where((turns == at).unsqueeze(-1), found_BTV, logits_BTV)
        return {"logits": logits_BTV}

    def _logits(self, ids_BT: Tensor, event_types_BT: Tensor, mask_BT: Tensor) -> Tensor:
        states_BTD = self.net.get_input_embeddings()(ids_BT)
        if self.type_embeddings is not None:
            states_BTD = states_BTD + self.type_embeddings(event_types_BT)
        found: Tensor = self.net(
            inputs_embeds=states_BTD,
            attention_mask=mask_BT,
            # what is structure, and what is text
            token_type_ids=(ids_BT >= self.boundary).long(),
        ).logits
        return found


@attrs.frozen
class LiveSessionBert:
    """The model with the processor of its sessions."""

    module: SessionNet
    processor: SessionBatches

    def labelled(self) -> list[Labelled]:
        """Every parameter: embeddings at depth 0, a layer each, the masked-token head deepest."""
        top = self.module.net.config.num_hidden_layers + 1
        items = []
        for name, parameter in self.module.named_parameters():
            depth = _networks.depth(name)
            part: Literal["base", "head"] = "head" if depth is None else "base"
            items.append(Labelled(name, parameter, part, top if depth is None else depth))
        return items

    def save_assets(self, folder: Path) -> None:
        """Write the vocabulary, as JSON."""
        self.processor.tokenizer.save(folder)
