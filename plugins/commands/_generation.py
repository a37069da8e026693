"""Going on with texts, token by token. Legend of shapes: B texts, V tokens of a vocabulary."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence

import attrs
import numpy as np

from framework.errors import RunError, UserError
from plugins._language import SPECIAL, UNKNOWN, Decode, Generative, LiveTokenizer

_log = logging.getLogger("framework")


@attrs.frozen
class Limits:
    """Where a text ends at the latest."""

    tokens: int
    """Tokens to generate."""
    context: int
    """Tokens that the model can read."""
    stops: Sequence[str] = ()
    """Texts before which generation ends."""


@attrs.define
class Text:
    """A prompt and what was generated so far; `reason` says why it ended, once it has."""

    prompt: str
    given: list[int]
    tokenizer: LiveTokenizer
    limits: Limits
    rng: np.random.Generator
    ids: list[int] = attrs.field(factory=list)
    text: str = ""
    reason: str = ""

    def take(self, shares_V: np.ndarray) -> None:
        """Draw a token by its probability, and end where it ends something."""
        self.ids.append(drawn(shares_V, self.rng.random()))
        self.text = self.tokenizer.decode(self.ids)
        # of stops that end with one token the one that begins first
        found = [(self.text.find(stop), stop) for stop in self.limits.stops if stop in self.text]
        if found:
            at, stop = min(found)
            self.text, self.reason = self.text[:at], f"the stop {stop!r} came"
        elif len(self.ids) >= self.limits.tokens:
            self.reason = f"{self.limits.tokens} tokens were generated"
        elif len(self.given) + len(self.ids) > self.limits.context:
            self.reason = f"the context of {self.limits.context} tokens is full"

    def sure(self) -> str:
        """Return what can be shown of it: no part of a character, or of what may be a stop."""
        if self.reason:
            return self.text
        text = self.text.rstrip("\ufffd")
        held = (
            size
            for stop in self.limits.stops
            for size in range(min(len(stop) - 1, len(text)), 0, -1)
            if text.endswith(stop[:size])
        )
        return text[: len(text) - max(held, default=0)]


def drawn(shares_V: np.ndarray, chance: float) -> int:
    """Return the token at which the running sum of shares passes a chance from 0 to below 1.

    Raises `RunError` for what is no distribution.
    """
    sums_V = shares_V.cumsum()
    if not (np.isfinite(sums_V[-1]) and sums_V[-1] > 0 and shares_V.min() >= 0):
        raise RunError("the decoding gave no distribution to draw from; use another")
    # the product may round up to the sum itself: then it is the last token with a share
    at = np.searchsorted(sums_V, chance * sums_V[-1], "right")
    return int(min(at, np.searchsorted(sums_V, sums_V[-1])))


def started(
    model: Generative, prompts: Sequence[str], limits: Limits, seed: Sequence[int]
) -> list[Text]:
    """Encode the prompts, each with a generator of its own, whatever company it has.

    Raises `UserError` for one that is empty, or that the model can't read.
    """
    texts = []
    for at, prompt in enumerate(prompts):
        name = f"prompt {at + 1} of {len(prompts)}"
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise UserError(f"{name} is no valid UTF-8; write it again") from None
        given = model.tokenizer.encode(prompt).tolist()
        if not given:
            raise UserError(f"{name} is empty; give a character at least, a line break say")
        if len(given) > limits.context:
            raise UserError(
                f"{name} has {len(given)} tokens and the model reads {limits.context}; shorten it"
            )
        if unknown := given.count(UNKNOWN):
            _log.warning("%s: %s characters are not in the vocabulary", name, unknown)
        rng = np.random.default_rng([*seed, at])
        texts.append(Text(prompt, given, model.tokenizer, limits, rng))
    return texts


def generate(model: Generative, texts: Sequence[Text], decode: Decode) -> Iterator[None]:
    """Go on with texts until each has ended; yields after every token.

    Raises `RunError` for logits that are not numbers.
    """
    reader = model.reader()
    tokens = [text.given for text in texts]
    while not all(text.reason for text in texts):
        logits_BV = reader(tokens)
        if not logits_BV.isfinite().all():
            raise RunError("the model's logits are not finite; its weights are of no use")
        logits_BV[:, :SPECIAL] = -math.inf
        shares_BV = decode(logits_BV).double().cpu().numpy()
        for text, shares_V in zip(texts, shares_BV, strict=True):
            if not text.reason:
                text.take(shares_V)
        yield
        tokens = [text.ids[-1:] for text in texts]
