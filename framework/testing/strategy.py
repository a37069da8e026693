"""The suite of kind strategy."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from framework.errors import UserError, listing
from framework.protocols import LiveStrategy
from framework.testing.suite import Failure, Report, Skip, Suite, missing, not_built, require
from framework.testing.values import close, equal, frozen_copy
from framework.testing.watching import Planned

EXACT = 1e-6
"""Of the same products in float32, by the same device."""
SUMS = 1e-5
"""Of float32 sums that are the same numbers added in another order."""
ITEMS = 6
CUTS = ((6,), (2, 2, 2), (1, 5))
"""Into how many micro-batches, and of how many items each, a step is cut."""


class _Network(nn.Module):
    """A network with weights, buffers and dropout; it takes what it uses of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.norm = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)

    def forward(self, features: Tensor, **_: Any) -> dict[str, Tensor]:
        """Return `logits` [B, C]."""
        return {"logits": self.dropout(self.norm(self.layer(features)))}


def _whole(tensor: Any) -> Any:
    """Return a tensor, if it is one, that ranks may have shared out."""
    return getattr(tensor, "full_tensor", lambda: tensor)()


@attrs.frozen(kw_only=True)
class StrategyCase:
    """A strategy, in this process and with this machine's devices."""

    options: Any

    def build(self) -> LiveStrategy:
        """Build the live strategy; skip the check where its device or its ranks aren't there."""
        try:
            live: LiveStrategy = self.options.build()
        except UserError as error:
            raise not_built(error) from error
        return live

    def alone(self) -> LiveStrategy:
        """Build it, and skip the check where there are other ranks."""
        live = self.build()
        if live.world_size != 1:
            raise Skip(f"there are {live.world_size} ranks")
        return live


def has_the_protocol(case: StrategyCase) -> None:
    """It has a `torch.device`, `world_size`, `rank`, `wrap`, `accumulate`, `sum`, `gather`."""
    live = case.build()
    methods = ("wrap", "accumulate", "sum", "gather")
    lacking = missing(live, "device", "world_size", "rank", *methods)
    require(not lacking, f"{type(live).__qualname__} lacks {', '.join(lacking)}")
    kind = type(live.device).__name__
    require(isinstance(live.device, torch.device), f"'device' is a {kind}, no torch.device")


def its_rank_is_one_of_the_ranks(case: StrategyCase) -> None:
    """`rank` is a whole number from 0 to below `world_size`, and two builds agree on both."""
    live = case.build()
    for name in ("world_size", "rank"):
        value = getattr(live, name)
        require(type(value) is int, f"'{name}' is {value!r}, no whole number")
    require(live.world_size >= 1, f"'world_size' is {live.world_size}; this process is one")
    require(
        0 <= live.rank < live.world_size,
        f"'rank' is {live.rank} of {live.world_size}; ranks are counted from 0",
    )
    again = case.build()
    one, other = [(made.device, made.world_size, made.rank) for made in (live, again)]
    require(one == other, f"device, world size and rank are {one}, and {other} built again")


def wrap_moves_to_the_device(case: StrategyCase) -> None:
    """All parameters and buffers are on its device after `wrap`, the given module's too."""
    live, module = case.build(), _Network()
    wrapped = live.wrap(module)
    require(isinstance(wrapped, nn.Module), f"wrap returns a {type(wrapped).__name__}, no module")
    for name, made in {"returns": wrapped, "is given": module}.items():
        for key, value in (*made.named_parameters(), *made.named_buffers()):
            index = live.device.index
            there = value.device.type == live.device.type and index in {None, value.device.index}
            where = f"'{key}' of what it {name} is on {value.device}, not on {live.device}"
            require(there, f"after wrap, {where}")


def wrap_keeps_the_values(case: StrategyCase) -> None:
    """The weights that optimizer and checkpoints take from the given module stay as they were."""
    live, module = case.build(), _Network()
    before = frozen_copy(module.state_dict())
    parameters = dict(module.named_parameters())
    live.wrap(module)
    after = {name: _whole(value).cpu() for name, value in module.state_dict().items()}
    require(set(before) == set(after), f"wrap makes the weights {listing(after)}")
    changed = [name for name, value in after.items() if not equal(value, before[name])]
    require(not changed, f"wrap changes {listing(changed)}")
    frozen = [name for name, value in parameters.items() if not value.requires_grad]
    require(not frozen, f"wrap freezes {listing(frozen)}")


def wrap_keeps_what_it_computes(case: StrategyCase) -> None:
    """In one process the outputs are the module's own, and its gradients reach its parameters."""
    live, module = case.alone(), _Network()
    reference = copy.deepcopy(module).to(live.device)
    wrapped = live.wrap(module)
    batch = {"id": ["a", "b"], "features": torch.randn(2, 4, device=live.device)}
    found, expected = (made.eval()(**batch)["logits"] for made in (wrapped, reference))
    require(close(found, expected, EXACT), "the wrapped module gives other outputs than before")
    found.square().sum().backward()
    expected.square().sum().backward()
    right = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in module.named_parameters():
        one, other = _whole(parameter.grad), right[name]
        if one is None or other is None:
            raise Failure(f"no gradient reaches '{name}' of the given module; wrap it, not a copy")
        require(close(one, other, EXACT), f"the gradient of '{name}' is another than without wrap")


@attrs.frozen
class _Step:
    """A training step whose gradients are known: those of the whole in plain torch.

    Every rank has the same share of it, so that the sum over ranks is known too.
    """

    live: LiveStrategy
    module: _Network
    wrapped: nn.Module
    features: Tensor
    expected: Mapping[str, Tensor | None]

    @classmethod
    def of(cls, live: LiveStrategy) -> _Step:
        """Wrap a network, and compute the gradients without the strategy."""
        module = _Network()
        module.norm.running_mean = torch.randn(3)
        reference = copy.deepcopy(module).to(live.device)
        features = torch.randn(ITEMS, 4, device=live.device)
        wrapped = live.wrap(module)
        for made in (wrapped, reference):
            made.train()
        for made in (module, reference):
            # what depends on a batch's company, or on chance, doesn't add up
            made.norm.eval()
            made.dropout.eval()
        reference(features=features)["logits"].square().sum().backward()
        right = {
            name: None if parameter.grad is None else parameter.grad * live.world_size
            for name, parameter in reference.named_parameters()
        }
        return cls(live, module, wrapped, features, right)

    def backward(self, part: Tensor, *, last: bool) -> None:
        """Add the gradients of a micro-batch, as a step does."""
        context = self.live.accumulate(self.wrapped, last=last)
        entered = hasattr(context, "__enter__") and hasattr(context, "__exit__")
        require(entered, f"accumulate returns a {type(context).__name__}, no context for `with`")
        with context:
            self.wrapped(id=["a"] * len(part), features=part)["logits"].square().sum().backward()

    def break_off(self) -> None:
        """Fail between the passes forward and backward."""
        self.wrapped(id=["a"] * ITEMS, features=self.features)
        raise Planned("memory has run out")

    def take(self, cut: Sequence[int], words: str) -> None:
        """Add up a step's micro-batches, hold them against the whole, and clear the gradients."""
        parts = torch.split(self.features, list(cut))
        for at, part in enumerate(parts):
            self.backward(part, last=at == len(parts) - 1)
        for name, parameter in self.module.named_parameters():
            one, other = _whole(parameter.grad), self.expected[name]
            if one is None or other is None:
                raise Failure(f"{words}, no gradient reaches '{name}' of the given module")
            of_ranks = f", summed over {self.live.world_size} ranks" * (self.live.world_size > 1)
            message = f"{words}, the gradient of '{name}' is not that of the whole batch{of_ranks}"
            require(close(one, other, SUMS), message)
        self.module.zero_grad()


def micro_batches_add_up(case: StrategyCase) -> None:
    """Gradients of micro-batches under `accumulate` add up to the whole's, summed over ranks."""
    step = _Step.of(case.build())
    for cut in CUTS:
        for time in ("first", "second"):
            word = "micro-batch" if len(cut) == 1 else "micro-batches"
            step.take(cut, f"in the {time} step of {len(cut)} {word}")


def a_step_may_break_off(case: StrategyCase) -> None:
    """An error passes through `accumulate`, as where memory runs out; then steps add up as ever."""
    step = _Step.of(case.alone())
    for last in (False, True):
        passed = False
        try:
            with step.live.accumulate(step.wrapped, last=last):
                step.break_off()
        except Planned:
            passed = True
        require(passed, f"accumulate(…, last={last}) keeps an error to itself")
        step.module.zero_grad()
        for cut in CUTS:
            step.take(cut, "after a step that an error broke off")


def modes_reach_the_module(case: StrategyCase) -> None:
    """`train()` and `eval()` of what `wrap` returns reach the given module, and its dropout."""
    live, module = case.build(), _Network()
    wrapped = live.wrap(module)
    for training in (False, True, False):
        wrapped.train(training)
        reached = module.training is training and module.dropout.training is training
        word = "train" if training else "eval"
        require(reached, f"{word}() of the wrapped module doesn't reach the given one")


def sum_keeps_the_keys(case: StrategyCase) -> None:
    """`sum` returns a new dict of whole numbers under the same keys; one rank's are its own."""
    live = case.build()
    for counts in ({"x": 3, "y": 0, "": 2**40}, {}):
        given = dict(counts)
        total = live.sum(given)
        require(given == counts, f"sum changes what it is given: {given}, not {counts}")
        require(isinstance(total, dict), f"sum returns a {type(total).__name__}, no dict")
        require(total is not given, "sum returns what it was given; return a new dict")
        require(set(total) == set(counts), f"sum returns {sorted(total)} of {sorted(counts)}")
        odd = {key: value for key, value in total.items() if type(value) is not int}
        require(not odd, f"sum returns {odd}: no whole numbers")
        if live.world_size == 1:
            require(total == counts, f"the sum over one rank is {total}, not {counts}")


def gather_gives_all_ranks(case: StrategyCase) -> None:
    """`gather` returns a list with a value for each rank, this one's in its place, unchanged."""
    live = case.build()
    values: tuple[Any, ...] = (None, 7, "text", {"a": [1.5, torch.arange(3)]}, ({"x": 2}, []))
    for value in values:
        before = copy.deepcopy(value)
        found = live.gather(value)
        require(isinstance(found, list), f"gather returns a {type(found).__name__}, no list")
        require(
            len(found) == live.world_size,
            f"gather returns {len(found)} values of {live.world_size} ranks",
        )
        own = found[live.rank]
        require(equal(own, before), f"gather returns {own!r} for this rank's {before!r}")
        require(equal(value, before), f"gather changes what it is given: {value!r}")


SUITE = Suite(
    "strategy",
    StrategyCase,
    (
        has_the_protocol,
        its_rank_is_one_of_the_ranks,
        wrap_moves_to_the_device,
        wrap_keeps_the_values,
        wrap_keeps_what_it_computes,
        micro_batches_add_up,
        a_step_may_break_off,
        modes_reach_the_module,
        sum_keeps_the_keys,
        gather_gives_all_ranks,
    ),
)


def check_strategy(options: Any, *, expected_failures: Mapping[str, str] | None = None) -> Report:
    """Hold a strategy against its contract; `ConformanceError` tells every check that fails.

    All is skipped where its device isn't there, some where there are several ranks.

    Args:
        options: The plugin's options, as in `MyStrategy(device="cpu")`.
        expected_failures: Reasons by name of check, for what is known to fail.
    """
    __tracebackhide__ = True
    return SUITE.run(options, expected_failures)
