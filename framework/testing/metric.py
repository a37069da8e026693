"""The suite of kind metric."""

from __future__ import annotations

import math
import pickle
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from framework.errors import listing
from framework.protocols import Batch, Info, LiveMetric, Outputs
from framework.testing import samples
from framework.testing.suite import Failure, Report, Skip, Suite, missing, require
from framework.testing.values import equal, frozen_copy, items

EXACT = 1e-12
"""Of the same numbers added in another order, in float64."""
ROUNDED = 1e-4
"""Of outputs that were rounded, against the same in float64: more than float32 errs."""

Values = Mapping[str, float]
Cut = Sequence[Sequence[int]]


@attrs.frozen(kw_only=True)
class MetricCase(samples.OutputsCase):
    """A metric with outputs in float64 and their batch."""

    def build(self) -> LiveMetric:
        """Build the live metric."""
        live: LiveMetric = self.options.build(self.info)
        return live

    def feed(self, live: LiveMetric, cut: Cut) -> LiveMetric:
        """Update a metric with some items, piece by piece."""
        for chosen in cut:
            live.update(items(self.outputs, chosen), items(self.batch, chosen))
        return live

    def seen(self, cut: Cut) -> LiveMetric:
        """Build a metric that has seen some items, piece by piece."""
        return self.feed(self.build(), cut)

    def whole(self) -> Values:
        """Values over all items, in one batch."""
        return self.seen([range(self.count)]).compute()

    def halves(self) -> tuple[Sequence[int], Sequence[int]]:
        """Return the items, halved."""
        every = range(self.count)
        return every[: self.count // 2], every[self.count // 2 :]


def _same(
    found: Values,
    expected: Values,
    words: str,
    hint: str = "",
    bound: float = EXACT,
    whole: str = "over the whole batch",
) -> None:
    """Require the values of the whole batch; `words` say how they were found instead."""
    names = sorted(found), sorted(expected)
    require(names[0] == names[1], f"{words} it reports {names[0]}, not {names[1]}")
    for name, value in expected.items():
        one, other = float(found[name]), float(value)
        near = equal(one, other) or abs(one - other) <= bound * max(1.0, abs(other))
        require(near, f"'{name}' is {one:.9g} {words}, and {other:.9g} {whole}{hint}")


def has_the_protocol(case: MetricCase) -> None:
    """It has `names`, `update`, `merge` and `compute`, and takes outputs with their batch."""
    live = case.build()
    lacking = missing(live, "names", "update", "merge", "compute")
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    case.whole()


def two_share_nothing(case: MetricCase) -> None:
    """What one built metric sees doesn't change another's values."""
    lives = case.seen([case.halves()[0]]), case.build()
    require(lives[0] is not lives[1], "two builds return one object; make it anew in each")
    before = [dict(live.compute()) for live in lives]
    case.seen([range(case.count)])
    for live, was in zip(lives, before, strict=True):
        now = dict(live.compute())
        words = f"its values were {was}, and {now} after another was updated"
        require(equal(now, was), f"{words}; keep what it saw in an object made by each build")


def names_are_known_before(case: MetricCase) -> None:
    """What `names()` says before any update are the names that `compute()` reports."""
    live = case.build()
    names = list(live.names())
    require(names, "names() is empty: it reports nothing")
    require(all(isinstance(name, str) for name in names), f"names() are {names}, not all texts")
    said = listing(sorted(names))
    require(len(set(names)) == len(names), f"names() are {said}, one of them more than once")
    found = listing(sorted(case.feed(live, [range(case.count)]).compute()))
    require(said == found, f"names() are {said} before any update, but compute() reports {found}")
    require(list(live.names()) == names, "names() changes with what is seen; say all at once")


def values_are_floats(case: MetricCase) -> None:
    """Every value is a float, and over a batch of items not all are NaN."""
    values = case.whole()
    for name, value in values.items():
        kind = type(value).__name__
        require(isinstance(value, float), f"'{name}' is a {kind}; return float(value)")
    nothing = all(math.isnan(value) for value in values.values())
    require(not nothing, "every value is NaN; give outputs and a batch that have one")


def batches_do_not_matter(case: MetricCase) -> None:
    """The values are the same however the items are cut into batches, an empty one among them."""
    whole = case.whole()
    for cut in samples.pieces(case.count):
        words = f"in batches of {[len(chosen) for chosen in cut]} items"
        _same(case.seen(cut).compute(), whole, words, "; keep sums, not means of batches")


def shards_do_not_matter(case: MetricCase) -> None:
    """Metrics of any shards of the items, merged in any order, give the values of the whole."""
    whole = case.whole()
    for cut in samples.pieces(case.count):
        for order in (cut, cut[::-1]):
            first, *others = [case.seen([chosen]) for chosen in order]
            first.merge([])
            first.merge(others)
            sizes = [len(chosen) for chosen in order]
            _same(first.compute(), whole, f"merged from shards of {sizes} items")
    idle, every = case.build(), [range(case.count)]
    idle.merge([case.build(), case.seen(every)])
    _same(idle.compute(), whole, "merged into a metric that saw no batch")


def order_of_items_is_free(case: MetricCase) -> None:
    """The values don't depend on the order of the items."""
    whole, every = case.whole(), range(case.count)
    for name, order in {"reverse": every[::-1], "another": [*every[1::2], *every[::2]]}.items():
        _same(case.seen([order]).compute(), whole, f"with the items in {name} order")


def nothing_has_values_too(case: MetricCase) -> None:
    """Over no items at all it gives floats under its names, NaN where there is no value."""
    cases: dict[str, Cut] = {"without any update": [], "of an empty batch": [[]]}
    for words, cut in cases.items():
        live = case.seen(cut)
        values = live.compute()
        found, said = listing(sorted(values)), listing(sorted(live.names()))
        require(found == said, f"{words} compute() reports {found}, not {said}")
        odd = [name for name, value in values.items() if not isinstance(value, float)]
        require(not odd, f"{words} '{''.join(odd[:1])}' is no float; return NaN for no value")


def ignored_items_count_for_nothing(case: MetricCase) -> None:
    """With the labels of some items ignored, values are those of the others: -100 is no label."""
    ignored = case.ignored()
    hidden, others = case.hidden()
    if ignored is None or not hidden:
        raise Skip("its batch has no class indexes under 'labels', as [B] beside outputs [B, C]")
    some = samples.mixed(case.batch, ignored, hidden)
    assert some is not None  # it differs in its labels alone
    found, none = case.build(), case.build()
    found.update(case.outputs, some)
    none.update(case.outputs, ignored)
    whole, nothing = case.whole(), none.compute()
    # a value that is the same without any label is of the records, as a count of them
    of_labels = [name for name in whole if not equal(float(whole[name]), float(nothing[name]))]
    if not of_labels:
        raise Skip("no value depends on the batch's labels")
    values, expected = (
        {name: made[name] for name in of_labels}
        for made in (found.compute(), case.seen([others]).compute())
    )
    words = f"with the labels of items {hidden} at {samples.IGNORED}"
    _same(values, expected, words, "; leave out what has no label", whole="without those items")


def inputs_stay_as_they_are(case: MetricCase) -> None:
    """Neither the outputs nor the batch are changed."""
    before = frozen_copy({"outputs": case.outputs, "batch": case.batch})
    live = case.build()
    live.update(case.outputs, case.batch)
    live.compute()
    for name, now in {"outputs": case.outputs, "batch": case.batch}.items():
        was = before[name]
        changed = [key for key in was.keys() | now.keys() if not equal(was.get(key), now.get(key))]
        require(not changed, f"it changes {listing(changed)} of the {name}")


def pickling_keeps_what_it_saw(case: MetricCase) -> None:
    """A copy by pickle, half-way, gives the same values: ranks exchange their metrics so."""
    left, right = case.halves()
    copied, other = _pickled(case.seen([left])), _pickled(case.seen([right]))
    copied.merge([other])
    _same(copied.compute(), case.whole(), "from halves that were pickled and merged")
    half = _pickled(case.seen([left]))
    _same(case.feed(half, [right]).compute(), case.whole(), "with a pickled copy from half-way on")


def _pickled(live: LiveMetric) -> LiveMetric:
    try:
        copied: LiveMetric = pickle.loads(pickle.dumps(live))  # noqa: S301 - our own bytes
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Failure(f"it can't be pickled ({error}); keep no lambda or file in it") from error
    return copied


def computing_ends_nothing(case: MetricCase) -> None:
    """`compute()` gives the same a second time, and what is seen after it still counts."""
    left, right = case.halves()
    live = case.seen([left])
    first, second = dict(live.compute()), dict(live.compute())
    require(equal(first, second), f"compute() gives {first}, and then {second}")
    found = case.feed(live, [right]).compute()
    _same(found, case.whole(), "with compute() called half-way", "; it must change nothing")


def low_precision_is_accepted(case: MetricCase) -> None:
    """Outputs in bf16 and fp16 give the values of the same numbers in float64."""
    for dtype in (torch.bfloat16, torch.float16):
        found, expected = case.build(), case.build()
        found.update(case.cast(dtype), case.batch)
        expected.update(samples.cast(case.cast(dtype), torch.float64), case.batch)
        words = f"from outputs in {str(dtype).removeprefix('torch.')}"
        hint = " of the same in float64; compute in float32 or better"
        _same(found.compute(), expected.compute(), words, hint, ROUNDED)


@attrs.frozen(eq=False)
class _Saved:
    """What a graph keeps of one tensor: it is there as long as the graph."""

    value: Tensor


def gradients_are_let_go(case: MetricCase) -> None:
    """Outputs that require gradients are accepted, and their graph is not kept in memory."""
    graph: weakref.WeakSet[_Saved] = weakref.WeakSet()

    def save(value: Tensor) -> _Saved:
        graph.add(saved := _Saved(value))
        return saved

    with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved.value):
        outputs = {
            k: v.clone().requires_grad_() * torch.ones_like(v) if v.is_floating_point() else v
            for k, v in case.outputs.items()
        }
    live = case.build()
    live.update(outputs, case.batch)
    del outputs
    require(not graph, "it keeps the graph of the outputs in memory; detach what it keeps")
    _same(live.compute(), case.whole(), "from outputs that require gradients")


SUITE = Suite(
    "metric",
    MetricCase,
    (
        has_the_protocol,
        two_share_nothing,
        names_are_known_before,
        values_are_floats,
        batches_do_not_matter,
        shards_do_not_matter,
        order_of_items_is_free,
        nothing_has_values_too,
        ignored_items_count_for_nothing,
        inputs_stay_as_they_are,
        pickling_keeps_what_it_saw,
        computing_ends_nothing,
        low_precision_is_accepted,
        gradients_are_let_go,
    ),
)


def check_metric(
    options: Any,
    *,
    info: Info | None = None,
    outputs: Outputs | None = None,
    batch: Batch | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Hold a metric against its contract; `ConformanceError` tells every check that fails.

    Args:
        options: The plugin's options, as in `MyMetric(average="macro")`.
        info: What its dataset would say; by default of three classes.
        outputs: What its model would return, made float64 here; by default `logits` [B, C].
        batch: The batch they belong to, with `id`; by default `labels` [B] and `meta`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures, info=info, outputs=outputs, batch=batch)
