"""The suite of kind tokenizer."""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from framework.errors import UserError
from framework.testing import samples
from framework.testing.suite import Failure, Report, Suite, missing, require, require_takes
from framework.testing.values import seeded

SPECIAL = 2
"""Ids below it stand for no text: 0 is padding, 1 what the vocabulary lacks."""
STRANGE = ("\u00e9t\u00e9", "\u65e5\u672c \U0001f33f", "", " ", "\r\n\t", "<pad><unk>")
"""Texts that no training split need have had."""


def _texts() -> list[str]:
    return [f"{record['text']}.\nNa\u00efve {record['id']}" for record in samples.records()]


@attrs.frozen(kw_only=True)
class TokenizerCase:
    """A tokenizer, and the texts that it is made from."""

    options: Any
    texts: Sequence[str] = attrs.field(factory=_texts)

    def build(self) -> Any:
        """Make the live tokenizer of the texts, each given once."""
        return self.options.build(iter(self.texts))


def _ids(live: Any, text: str) -> list[int]:
    found: list[int] = np.asarray(live.encode(text)).tolist()
    return found


def has_the_protocol(case: TokenizerCase) -> None:
    """It has `characters`, `key`, `encode`, `decode` and `save`, and its options `load`."""
    live = case.build()
    lacking = missing(live, "characters", "key", "encode", "decode", "save")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    require(isinstance(live.key, str), f"'key' is a {type(live.key).__name__}, no text")
    load = getattr(case.options, "load", None)
    require(callable(load), f"{type(case.options).__qualname__} has no method load(folder)")
    require_takes(case.options.load, "load", "folder")


def ids_are_of_the_vocabulary(case: TokenizerCase) -> None:
    """Ids are whole numbers below the number of tokens; its own texts have no special one."""
    live = case.build()
    size = len(live.characters)
    for text in (*case.texts, *STRANGE):
        ids, least = _ids(live, text), SPECIAL if text in case.texts else 1
        wrong = [i for i in ids if type(i) is not int or not least <= i < size]
        require(not wrong, f"a text has the ids {wrong[:3]}; they go from {least} to {size - 1}")


def texts_are_given_back(case: TokenizerCase) -> None:
    """What it was made from is decoded to the same text."""
    live = case.build()
    for at, text in enumerate(case.texts):
        found = live.decode(_ids(live, text))
        require(found == text, f"text {at} of {len(text)} characters comes back as another")


def characters_add_up(case: TokenizerCase) -> None:
    """The `characters` of a text's tokens add up to its characters; padding has none."""
    live = case.build()
    counts = np.asarray(live.characters)
    require(counts.ndim == 1 and counts.dtype.kind in "iu", "'characters' are no whole numbers [V]")
    require(counts[0] == 0, f"padding counts {counts[0]} characters")
    for text in (*case.texts, *STRANGE):
        found = int(counts[_ids(live, text)].sum()) if text else 0
        require(found == len(text), f"a text of {len(text)} characters is counted as {found}")


def same_texts_same_tokenizer(case: TokenizerCase) -> None:
    """Made again of the same texts, it has the same `key` and the same ids, by any chance."""
    builds = []
    for seed in (1, 2):
        with seeded(seed):
            live = case.build()
            builds.append((live.key, [_ids(live, text) for text in (*case.texts, *STRANGE)]))
    require(builds[0][1] == builds[1][1], "built again it gives other ids")
    require(builds[0][0] == builds[1][0], "built again it has another 'key'")


def nothing_to_learn_from_is_refused(case: TokenizerCase) -> None:
    """Without any text there is no tokenizer: building it is a `UserError`, before training."""
    for texts in ([], [""]):
        try:
            case.options.build(iter(texts))
        except UserError:
            continue
        raise Failure(f"it is made of {texts}; raise UserError where there is no text")


def survives_saving(case: TokenizerCase) -> None:
    """`save` writes JSON alone, and what `load` reads of it has the same key and ids."""
    live = case.build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        live.save(folder)
        for file in sorted(folder.rglob("*")):
            try:
                json.loads(file.read_bytes())
            except (ValueError, OSError) as error:
                raise Failure(f"save writes '{file.name}', which is no JSON") from error
        again = case.options.load(folder)
    for text in (*case.texts, *STRANGE):
        require(_ids(live, text) == _ids(again, text), "loaded again it gives other ids")
    require(live.key == again.key, "loaded again it has another 'key'")
    same = np.array_equal(live.characters, again.characters)
    require(same, "loaded again it has other 'characters'")


def nothing_saved_is_refused(case: TokenizerCase) -> None:
    """Loading from an empty folder is a `UserError`."""
    with tempfile.TemporaryDirectory() as name:
        try:
            case.options.load(Path(name))
        except UserError:
            return
        raise Failure("it is loaded from an empty folder; raise UserError")


def travels_to_workers(case: TokenizerCase) -> None:
    """It can be pickled, and gives the same ids there."""
    live = case.build()
    try:
        there = pickle.loads(pickle.dumps(live))  # noqa: S301 - pickled just now
    except Exception as error:
        raise Failure(f"it can't be pickled ({type(error).__name__})") from error
    for text in case.texts:
        require(_ids(live, text) == _ids(there, text), "pickled and read back, it gives other ids")


SUITE = Suite(
    "tokenizer",
    TokenizerCase,
    (
        has_the_protocol,
        ids_are_of_the_vocabulary,
        texts_are_given_back,
        characters_add_up,
        same_texts_same_tokenizer,
        nothing_to_learn_from_is_refused,
        survives_saving,
        nothing_saved_is_refused,
        travels_to_workers,
    ),
)


def check_tokenizer(
    options: Any,
    *,
    texts: Sequence[str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a tokenizer against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyTokenizer(size=500)`.
        texts: What it is made from; by default made-up words.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, texts=texts)
