"""Check input: the first batch as the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor

from framework.protocols import Batch
from plugins.checks._records import examples

TARGETS = "targets"
"""The row that says whether anything is a target."""

_IDS, _TYPES = "input_ids", "token_type_ids"
_SHOWN = 12
_WIDE = 0.6
"""Share of padding that is a waste to look at."""
_CLOSE = 0.01
"""What padding may change of an output, beside what another record changes."""
_LOOKED = 512


@attrs.frozen
class InputCheck:
    """What a batch holds: ids, special tokens, types, padding that does nothing, targets."""

    area = "input"

    def observe(self, probe: Any) -> None:
        """Look at the first step's micro-batches, and pad a record to see what that changes."""
        window = probe.window()
        _first(probe, window[0])
        _padding(probe)
        _unseen(probe)
        _special(probe, window)
        _types(probe, window)
        _targets(probe, window)


def _first(probe: Any, batch: Batch) -> None:
    """Say what there is of which shape, and show the first record."""
    row = "first batch"
    tensors = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
    if not tensors:
        probe.fails(row, "no tensor is in it", "let the processor's collate make some")
        return
    shapes = ", ".join(
        f"{key} {str(value.dtype).removeprefix('torch.')} {[*value.shape]}"
        for key, value in tensors.items()
    )
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]
    if bad:
        probe.fails(row, f"{examples(bad)} hold what is not finite", "look at what collate makes")
        return
    probe.passes(row, f"{len(batch['id'])} records: {shapes}; {_shown(probe, tensors)}")


def _shown(probe: Any, tensors: Mapping[str, Tensor]) -> str:
    """Return ids of the first record, or its tokens where texts may be shown."""
    ids = tensors.get(_IDS, next(iter(tensors.values())))
    first = ids.reshape(-1, ids.shape[-1])[0].tolist() if ids.ndim > 1 else ids.tolist()
    tokenizer = _tokenizer(probe)
    if tokenizer is None or _IDS not in tensors:
        return f"the first begins {first[:_SHOWN]}"
    if probe.show_text:
        return f"the first is {' '.join(tokenizer.convert_ids_to_tokens(first))}"
    special = {*tokenizer.all_special_ids}
    names = (
        tokenizer.convert_ids_to_tokens(at) if at in special else str(at) for at in first[:_SHOWN]
    )
    return f"the first begins {' '.join(names)}"


def _tokenizer(probe: Any) -> Any:
    """Return the processor's tokenizer, if it has one that knows its special tokens."""
    processor = probe.trainer.feeds["train"].processor
    inner = (getattr(processor, name, None) for name in dir(processor) if name[0] != "_")
    for owner in (processor, *inner):
        found = getattr(owner, "tokenizer", None)
        if hasattr(found, "all_special_ids") and hasattr(found, "num_special_tokens_to_add"):
            return found
    return None


def _padding(probe: Any) -> None:
    row, feed = "padding", probe.trainer.feeds["train"]
    lengths = np.asarray(feed.lengths, np.float64)
    steps = feed.sampler(feed.lengths, feed.batch_size, np.random.default_rng([feed.seed, 0]))
    filled = sum(float(lengths[step].sum()) for step in steps)
    whole = sum(float(lengths[step].max()) * len(step) for step in steps)
    share = 1 - filled / max(1.0, whole)
    shown = f"{share:.0%} of an epoch's positions, if batches are padded to their longest"
    if share > _WIDE:
        probe.warns(row, shown, "take a sampler that puts texts of about one length together")
    else:
        probe.passes(row, shown)


def _unseen(probe: Any) -> None:
    """Hold a short record's outputs beside another as short against those beside a long one."""
    row, feed = "padding changes nothing", probe.trainer.feeds["train"]
    lengths = np.asarray(feed.lengths[:_LOOKED])
    order = np.argsort(lengths, kind="stable").tolist()
    if len(order) < 2 or lengths[order[0]] == lengths[order[-1]]:  # noqa: PLR2004 - a pair
        probe.skips(row, "all records have one length")
        return
    records = probe.splits["train"]
    short, second, long = (records[order[at]] for at in (0, 1, -1))
    with probe.trial() as trainer, torch.no_grad():
        module = trainer.update.forward.module.eval()
        device = trainer.update.forward.strategy.device
        alone, beside = (
            module(**_placed(probe.batch([short, other]), device)) for other in (second, long)
        )
    far = {}
    for key, one in alone.items():
        other = beside[key]
        if isinstance(one, Tensor) and one.is_floating_point() and one.ndim == other.ndim > 0:
            first, same = _both(one[0], other[0])
            mine, theirs = _both(one[0], one[1])
            spread = float((mine - theirs).abs().max())
            far[key] = float((first - same).abs().max()) / (spread or 1.0)
    wrong = [key for key, value in far.items() if not value <= _CLOSE]
    if not far:
        probe.skips(row, "outputs can't be compared")
    elif wrong:
        moved = ", ".join(f"{key} by {far[key]:.1%}" for key in wrong)
        told = f"a longer record beside it moves a record's outputs ({moved} of what another has)"
        advice = "give the model a mask of what is padding, and let it use it"
        probe.fails(row, told, advice)
    else:
        most = max(far.values())
        told = f"a longer record beside it moves outputs by {most:.0e} of what another record has"
        probe.passes(row, told)


def _placed(batch: Batch, device: Any) -> Batch:
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _both(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Return the parts of two tensors that both have."""
    kept = tuple(slice(min(a, b)) for a, b in zip(one.shape, other.shape, strict=True))
    return one[kept].float(), other[kept].float()


def _special(probe: Any, window: Sequence[Batch]) -> None:
    """Count special tokens: as many as the tokenizer adds, the same at each beginning."""
    row, tokenizer = "special tokens", _tokenizer(probe)
    if tokenizer is None or _IDS not in window[0] or "attention_mask" not in window[0]:
        probe.skips(row, "no tokenizer says which there should be")
        return
    given = {tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id}
    special = torch.tensor([i for i in tokenizer.all_special_ids if i not in given])
    pair = "text_pair" in probe.splits["train"][0]
    expected = tokenizer.num_special_tokens_to_add(pair=pair)
    wrong = []
    for batch in window:
        there = torch.isin(batch[_IDS], special) & batch["attention_mask"].bool()
        found = there.reshape(len(batch["id"]), -1).sum(1).tolist()
        wrong += [str(i) for i, n in zip(batch["id"], found, strict=True) if n != expected]
    if wrong:
        told = f"{len(wrong)} records have not {expected} of them: {examples(wrong)}"
        probe.fails(row, told, "encode texts with the tokenizer's special tokens, each once")
    else:
        probe.passes(row, f"{expected} in each record, as the tokenizer adds them")


def _types(probe: Any, window: Sequence[Batch]) -> None:
    row = "token types"
    if not all(_TYPES in batch and batch[_TYPES].ndim == 2 for batch in window):  # noqa: PLR2004 - [B, T]
        probe.skips(row, "batches have none")
        return
    pair = "text_pair" in probe.splits["train"][0]
    wrong = [
        str(name)
        for batch in window
        for name, types in zip(batch["id"], batch[_TYPES], strict=True)
        if bool((types == 1).any()) != pair
    ]
    if wrong:
        what = "no second type" if pair else "a second type without a second text"
        told = f"{len(wrong)} records have {what}: {examples(wrong)}"
        probe.fails(row, told, "let token types tell the first text from the second")
    else:
        probe.passes(row, "0 and 1, a text each" if pair else "0 alone: there is one text")


def _targets(probe: Any, window: Sequence[Batch]) -> None:
    """Count what each part of the loss has to say something about."""
    row, counts = TARGETS, [probe.trainer.update.loss.counts(batch) for batch in window]
    found = {part: sum(count[part] for count in counts) for part in counts[0]}
    items = sum(len(batch["id"]) for batch in window)
    none = [part for part, count in found.items() if not count]
    shown = ", ".join(f"{part} {count}" for part, count in found.items())
    if none:
        told = f"{examples(none)} has no target in {items} records"
        probe.fails(row, told, "look at the labels that collate makes, and at what is ignored")
    else:
        probe.passes(row, f"of {items} records: {shown}")
