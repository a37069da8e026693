"""Check data: what stands in two splits, what is said twice, and what models never read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from plugins.checks import _minhash, _records
from plugins.checks._records import Contents, examples, grouped, told

_NEAR = 0.9
"""Likeness from which a text counts as another's near-duplicate."""
_COMPARED = 20_000
"""Records of a split whose texts are compared for that."""
_SOME, _MANY = 0.01, 0.2
"""Shares of a split that are more than a mishap, and from which a split measures memory."""
_ONE = 0.25
"""Share of records of a token alone that is more than a few of them."""


@attrs.frozen
class DataCheck:
    """Splits are apart by record, group and text, near ones too; contents and labels agree."""

    area = "data"

    def observe(self, probe: Any) -> None:
        """Read the records, of large splits some."""
        found = _records.contents(probe)
        _ids(probe, found)
        _groups(probe, found)
        _texts(probe, found)
        _near(probe, found)
        _conflicts(probe, found)
        _blank(probe, found)


def _pairs(found: Mapping[str, Contents]) -> Iterator[tuple[str, str]]:
    """Yield each split with one before it that it must be apart from.

    Val and test may hold the same candidates where nothing is labelled.
    """
    labelled = any(label is not None for label in found["train"].labels)
    names = [name for name in ("train", "val", "test") if name in found]
    for at, split in enumerate(names):
        yield from ((split, one) for one in names[:at] if labelled or one == "train")


def _ids(probe: Any, found: Mapping[str, Contents]) -> None:
    row, wrong = "no record in two splits", []
    for split, one in _pairs(found):
        both = {*found[one].ids}.intersection(found[split].ids)
        if both:
            wrong.append(f"{len(both)} records of {split} are in {one}: {examples(sorted(both))}")
    if wrong:
        probe.fails(row, "; ".join(wrong) + told(found), "give each record to one split")
    else:
        counts = ", ".join(f"{split} {c.whole}" for split, c in found.items())
        probe.passes(row, f"ids differ: {counts}{told(found)}")


def _groups(probe: Any, found: Mapping[str, Contents]) -> None:
    row, wrong = "no group in two splits", []
    if all(c.groups == c.ids for c in found.values()):
        probe.skips(row, "records have no group")
        return
    for split, one in _pairs(found):
        known = {*found[one].ids}
        mine = {g for g, name in _members(found[split]) if name not in known}
        both = mine.intersection(found[one].groups)
        if both:
            wrong.append(f"{len(both)} groups of {split} are in {one}: {examples(sorted(both))}")
    if wrong:
        advice = "split by group: its records tell of each other"
        probe.fails(row, "; ".join(wrong) + told(found), advice)
    else:
        counts = ", ".join(f"{split} {len({*c.groups})}" for split, c in found.items())
        probe.passes(row, f"groups differ: {counts}{told(found)}")


def _members(content: Contents) -> Iterator[tuple[str, str]]:
    return zip(content.groups, content.ids, strict=True)


@attrs.frozen
class _Repeats:
    """Records of a split that say what one of another group says in an earlier one."""

    split: str
    one: str
    ids: Sequence[str]
    share: float
    usual: float
    """Share of train's records that say what another group of train says."""
    what: str

    @property
    def status(self) -> str:
        """How bad that is: what is as common within train is the data's nature."""
        if self.share <= self.usual:
            return "warn" if self.share >= _MANY else "pass"
        return "fail" if self.share >= _SOME else "warn"

    def __str__(self) -> str:
        """Say it, with ids."""
        shown = f"{len(self.ids)} of {self.split} ({self.share:.1%}) {self.what} in {self.one}"
        common = f"; within train {self.usual:.1%} do" if self.usual else ""
        return f"{shown} ({examples(self.ids)}{common})"


def _told(probe: Any, row: str, all_: Sequence[_Repeats], none: str, advice: str) -> None:
    statuses = [repeats.status for repeats in all_]
    shown = "; ".join(map(str, all_)) or none
    if "fail" in statuses:
        probe.fails(row, shown, advice)
    elif "warn" in statuses:
        probe.warns(row, shown, advice)
    else:
        probe.passes(row, shown)


def _texts(probe: Any, found: Mapping[str, Contents]) -> None:
    """Compare normalised texts; those of the same record or group are told elsewhere."""
    train = found["train"]
    fields = _records.own(train)
    known = {split: _values(content, fields) for split, content in found.items()}
    usual = len([*_repeated(train, known["train"], train, known["train"])]) / max(1, len(train))
    all_ = []
    for split, one in _pairs(found):
        content = found[split]
        hits = [*_repeated(content, known[split], found[one], known[one])]
        if hits:
            ids, share = [content.ids[at] for at in hits], len(hits) / len(content)
            all_.append(_Repeats(split, one, ids, share, usual, _said(content, hits, fields)))
    what = f"texts under {examples(fields)}" if fields else "contents"
    advice = (
        "drop them from one side, or report figures without them: a model that remembers train"
        " knows these answers"
    )
    _told(probe, "no text in two splits", all_, f"{what} differ{told(found)}", advice)


def _said(content: Contents, hits: Sequence[int], fields: Sequence[str]) -> str:
    """Say that these records repeat something, and how many different texts they have."""
    counts = (f"{len({content.fields[key][at] for at in hits})} under '{key}'" for key in fields)
    different = ", ".join(counts) or f"{len({content.contents[at] for at in hits})} different"
    return f"say what one says ({different})"


def _values(content: Contents, fields: Sequence[str]) -> list[Sequence[int]]:
    """Return columns of digests: all of a record together, and each text that is a group's own."""
    return [content.contents, *(content.fields[key] for key in fields)]


def _repeated(
    content: Contents,
    values: Sequence[Sequence[int]],
    other: Contents,
    others: Sequence[Sequence[int]],
) -> Iterator[int]:
    """Yield the records that have a value of another group's record."""
    known = [grouped(column, other.groups) for column in others]
    same = {*other.ids} if content is not other else set()
    for at, group in enumerate(content.groups):
        there = [groups.get(column[at]) for groups, column in zip(known, values, strict=True)]
        # a group, or a record, that stands on both sides is another row's
        if content is other:
            hit = any(found and found - {group} for found in there)
        else:
            hit = any(found and group not in found for found in there)
        if hit and content.ids[at] not in same:
            yield at


def _near(probe: Any, found: Mapping[str, Contents]) -> None:
    row, fields = "no near-duplicate in two splits", _records.own(found["train"])
    if not fields:
        why = "no text is a group's own" if _records.texts(probe) else "records have no texts"
        probe.skips(row, why)
        return
    parts = {split: _compared(probe, split, fields) for split in found}
    train = parts["train"]
    # as many as another split has: what is usual is a share
    sample = _Part(*(column[:: max(1, len(train.ids) // 1000)] for column in attrs.astuple(train)))
    usual = len([*_alike(sample, train)]) / max(1, len(sample.ids))
    all_ = []
    for split, one in _pairs(found):
        hits = [*_alike(parts[split], parts[one])]
        if hits:
            share = len(hits) / len(parts[split].ids)
            all_.append(_Repeats(split, one, hits, share, usual, "are nearly worded as one"))
    counts = ", ".join(f"{len(part.ids)} of {split}" for split, part in parts.items())
    none = f"none is as like another as {_NEAR:g} (Jaccard, {_minhash.SIZE} characters): {counts}"
    advice = "look at them: copies with small changes belong into one split"
    _told(probe, row, all_, none, advice)


@attrs.frozen
class _Part:
    """Texts that are compared."""

    ids: Sequence[str]
    groups: Sequence[str]
    texts: Sequence[str]


def _compared(probe: Any, split: str, fields: Sequence[str]) -> _Part:
    rows = [
        (str(r["id"]), str(r.get("group", r["id"])), _worded(r, fields))
        for r in _records.some(probe.splits[split], _COMPARED)
    ]
    return _Part(*(list(column) for column in zip(*rows, strict=True)))


def _worded(record: Any, fields: Sequence[str]) -> str:
    return "\n".join(_records.normal(record[key]) for key in fields if key in record)


def _alike(part: _Part, other: _Part) -> Iterator[str]:
    """Yield ids of what is nearly worded as one of another group, and not as one word by word."""

    def apart(at: int, there: int) -> bool:
        return part.groups[at] != other.groups[there] and part.ids[at] != other.ids[there]

    for at, _, like in _minhash.alike(part.texts, other.texts, _NEAR, apart):
        if like < 1:
            yield part.ids[at]


def _conflicts(probe: Any, found: Mapping[str, Contents]) -> None:
    row = "one label for one text"
    if not any(label is not None for c in found.values() for label in c.labels):
        probe.skips(row, "records have no labels")
        return
    if probe.splits.info.get("train_on"):
        probe.skips(row, "labels are not what is learned")
        return
    labels: dict[int, set[Any]] = {}
    for content in found.values():
        for value, label in zip(content.contents, content.labels, strict=True):
            if value and label is not None:
                labels.setdefault(value, set()).add(label)
    wrong = [
        content.ids[at]
        for content in found.values()
        for at, value in enumerate(content.contents)
        if value and len(labels.get(value, ())) > 1
    ]
    share = len(wrong) / max(1, sum(map(len, found.values())))
    shown = f"{len(wrong)} records ({share:.1%}) say what one of another label says: "
    advice = "find out which label is right: no model can learn both"
    if share >= _SOME:
        probe.fails(row, shown + examples(wrong), advice)
    elif wrong:
        probe.warns(row, shown + examples(wrong), advice)
    else:
        probe.passes(row, f"the same texts have the same labels{told(found)}")


def _blank(probe: Any, found: Mapping[str, Contents]) -> None:
    row = "no text is empty"
    if not _records.texts(probe):
        probe.skips(row, "records have no texts")
        return
    wrong = [
        (content.ids[at], field)
        for content in found.values()
        for at, field in enumerate(content.blank)
        if field
    ]
    share = len(wrong) / max(1, sum(map(len, found.values())))
    fields = examples(sorted({field for _, field in wrong}))
    shown = f"{len(wrong)} records ({share:.1%}) have nothing under {fields}: "
    advice = "leave them out, or look at how they are read"
    if share >= _SOME:
        probe.fails(row, shown + examples([name for name, _ in wrong]), advice)
    elif wrong:
        probe.warns(row, shown + examples([name for name, _ in wrong]), advice)
    else:
        probe.passes(row, f"every text says something{told(found)}")
