"""Strategies that are wrong on purpose."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from broken import Defect


class Right:
    """A right strategy of one rank, and its own options; subclasses break a piece each."""

    device: Any = torch.device("cpu")
    world_size: Any = 1
    rank: Any = 0

    def build(self) -> Any:
        """Build another."""
        return type(self)()

    def wrap(self, module: nn.Module) -> Any:
        """Move it."""
        return module.to(self.device)

    def accumulate(self, module: nn.Module, *, last: bool) -> Any:
        """Do nothing."""
        return nullcontext()

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return the counts."""
        return dict(counts)

    def gather(self, value: Any) -> Any:
        """Return the value."""
        return [value]


class NoGather:
    """Its live object can't gather."""

    def build(self) -> Any:
        """Build it."""
        made = Right()
        names = ("device", "world_size", "rank", "wrap", "accumulate", "sum")
        return SimpleNamespace(**{name: getattr(made, name) for name in names})


class NoAccumulate:
    """Its live object knows nothing of micro-batches."""

    def build(self) -> Any:
        """Build it."""
        made = Right()
        names = ("device", "world_size", "rank", "wrap", "sum", "gather")
        return SimpleNamespace(**{name: getattr(made, name) for name in names})


class DeviceByName(Right):
    """Its device is a text."""

    device = "cpu"


class CountsFromOne(Right):
    """Its first rank is 1."""

    rank = 1


class RankAsText(Right):
    """Its rank is what the environment says."""

    rank = "0"


class OtherRankEachTime(Right):
    """Every build joins as the next rank."""

    world_size = 1000
    ranks = itertools.count()

    def build(self) -> Any:
        """Build the next."""
        made = OtherRankEachTime()
        made.rank = next(self.ranks)
        return made

    def gather(self, value: Any) -> Any:
        """Return the value, for each rank."""
        return [value] * self.world_size


class LeavesItWhereItWas(Right):
    """It says that it computes elsewhere, and leaves the module where it was."""

    device = torch.device("meta")

    def wrap(self, module: nn.Module) -> Any:
        """Move nothing."""
        return module


class JustAFunction(Right):
    """What it wraps is no module any more."""

    def wrap(self, module: nn.Module) -> Any:
        """Return the forward pass."""
        return module.forward


class Initialises(Right):
    """It draws the weights anew."""

    def wrap(self, module: nn.Module) -> Any:
        """Reset the layers."""
        for part in module.children():
            if hasattr(part, "reset_parameters"):
                part.reset_parameters()
        return module


class Freezes(Right):
    """It freezes the weights."""

    def wrap(self, module: nn.Module) -> Any:
        """Freeze."""
        return module.requires_grad_(requires_grad=False)


class TrainsACopy(Right):
    """It wraps a copy, so that optimizer and checkpoints have other weights."""

    def wrap(self, module: nn.Module) -> Any:
        """Copy."""
        return copy.deepcopy(module)


class Halves(Right):
    """It averages over two ranks where there is one."""

    def wrap(self, module: nn.Module) -> Any:
        """Halve the gradients."""
        for parameter in module.parameters():
            parameter.register_hook(lambda gradient: gradient / 2)
        return module


class Rounds(Right):
    """It runs the module in bfloat16, which is the precision's to say."""

    def wrap(self, module: nn.Module) -> Any:
        """Round the outputs."""
        module.register_forward_hook(
            lambda *given: {k: v.bfloat16().float() for k, v in given[2].items()}
        )
        return module


class NoContext(Right):
    """It notes which micro-batch is the last, and returns nothing."""

    def accumulate(self, module: nn.Module, *, last: bool) -> Any:
        """Note it."""
        self.last = last


class LastOnly(Right):
    """It keeps the gradients of the last micro-batch alone."""

    @contextmanager
    def accumulate(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Clear what others left."""
        if last:
            module.zero_grad()
        yield


class MeansOfMicroBatches(Right):
    """It takes the mean over the micro-batches."""

    count = 0

    @contextmanager
    def accumulate(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Divide in the last."""
        self.count += 1
        yield
        if last:
            for parameter in module.parameters():
                parameter.grad /= self.count
            self.count = 0


class OneStep(Right):
    """Its contexts can be entered in one step alone."""

    def __init__(self) -> None:
        """Make them."""
        self.contexts = {last: self.once() for last in (False, True)}

    @contextmanager
    def once(self) -> Iterator[None]:
        """Do nothing, once."""
        yield

    def accumulate(self, module: nn.Module, *, last: bool) -> Any:
        """Return what was made."""
        return self.contexts[last] if last else nullcontext()


class NoLast(Right):
    """It stops gradients until the last micro-batch."""

    def accumulate(self, module: nn.Module, *, last: bool) -> Any:
        """Stop them."""
        return nullcontext() if last else torch.no_grad()


class Suppresses(Right):
    """It takes errors for an end of the micro-batch."""

    def accumulate(self, module: nn.Module, *, last: bool) -> Any:
        """Suppress them."""
        return suppress(Exception)


class StaysInside(Right):
    """After an error it takes itself to be still inside, and every step for a part of that."""

    inside = 0

    @contextmanager
    def accumulate(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Count how deep it is, and clear what the outermost has not asked for."""
        self.inside += 1
        yield
        self.inside -= 1
        if self.inside:
            module.zero_grad()


class AlwaysTrains(Right):
    """Its wrapper keeps the module to itself."""

    class Wrapper(nn.Module):
        """A module that torch doesn't see."""

        def __init__(self, inner: nn.Module) -> None:
            """Keep it in a list."""
            super().__init__()
            self.inner = [inner]

        def forward(self, **batch: Any) -> Any:
            """Pass it on."""
            return self.inner[0](**batch)

    def wrap(self, module: nn.Module) -> Any:
        """Wrap it."""
        return self.Wrapper(module)


class SameDict(Right):
    """Its sums are the dict that it was given."""

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return it."""
        return counts


class FloatSums(Right):
    """Its sums pass through float."""

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return them."""
        return {key: float(value) for key, value in counts.items()}


class DropsZeros(Right):
    """It leaves out what counts nothing."""

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return the rest."""
        return {key: value for key, value in counts.items() if value}


class SmallSums(Right):
    """Its sums are of 32 bits."""

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return them."""
        return {key: value % 2**32 for key, value in counts.items()}


class BareValue(Right):
    """It gathers the value itself."""

    def gather(self, value: Any) -> Any:
        """Return it."""
        return value


class GathersText(Right):
    """It passes objects as text."""

    def gather(self, value: Any) -> Any:
        """Return it."""
        return [str(value)]


class GathersTwice(Right):
    """It gathers its own value from itself, too."""

    def gather(self, value: Any) -> Any:
        """Return it."""
        return [value, value]


class NoRanks(Right):
    """It knows of no rank at all."""

    world_size = 0


class AddsWeights(Right):
    """It gives the module a buffer of its own."""

    def wrap(self, module: nn.Module) -> Any:
        """Add it."""
        module.register_buffer("rank", torch.zeros(1))
        return module


class TakesOut(Right):
    """It takes out what it sums."""

    def sum(self, counts: Any) -> Any:
        """Return the counts."""
        return {key: counts.pop(key) for key in list(counts)}


class ListOfSums(Right):
    """Its sums are pairs."""

    def sum(self, counts: Mapping[str, int]) -> Any:
        """Return them."""
        return list(counts.items())


class Marks(Right):
    """It marks what it passes on."""

    def gather(self, value: Any) -> Any:
        """Return a copy."""
        before = copy.deepcopy(value)
        if isinstance(value, dict):
            value["rank"] = 0
        return [before]


DEFECTS = [
    Defect("has_the_protocol", NoGather(), "lacks gather"),
    Defect("has_the_protocol", NoAccumulate(), "lacks accumulate"),
    Defect("has_the_protocol", DeviceByName(), "'device' is a str, no torch.device"),
    Defect("its_rank_is_one_of_the_ranks", CountsFromOne(), "'rank' is 1 of 1"),
    Defect("its_rank_is_one_of_the_ranks", NoRanks(), "'world_size' is 0; this process is one"),
    Defect("its_rank_is_one_of_the_ranks", RankAsText(), "no whole number"),
    Defect("its_rank_is_one_of_the_ranks", OtherRankEachTime(), "built again"),
    Defect("wrap_moves_to_the_device", LeavesItWhereItWas(), "is on cpu, not on meta"),
    Defect("wrap_moves_to_the_device", JustAFunction(), "wrap returns a method, no module"),
    Defect("wrap_keeps_the_values", Initialises(), "wrap changes 'layer.weight'"),
    Defect("wrap_keeps_the_values", AddsWeights(), "wrap makes the weights"),
    Defect("wrap_keeps_the_values", Freezes(), "wrap freezes 'layer.weight'"),
    Defect("wrap_keeps_what_it_computes", TrainsACopy(), "no gradient reaches 'layer.weight'"),
    Defect("wrap_keeps_what_it_computes", Halves(), "the gradient of 'layer.weight'"),
    Defect("wrap_keeps_what_it_computes", Rounds(), "gives other outputs"),
    Defect("micro_batches_add_up", NoContext(), "accumulate returns a NoneType, no context"),
    Defect("micro_batches_add_up", LastOnly(), "in the first step of 3 micro-batches"),
    Defect("micro_batches_add_up", MeansOfMicroBatches(), "is not that of the whole batch"),
    Defect("micro_batches_add_up", OneStep(), "AttributeError"),
    Defect("micro_batches_add_up", NoLast(), "RuntimeError"),
    Defect("a_step_may_break_off", Suppresses(), "accumulate(…, last=False) keeps an error"),
    Defect("a_step_may_break_off", StaysInside(), "after a step that an error broke off"),
    Defect("modes_reach_the_module", AlwaysTrains(), "eval() of the wrapped module"),
    Defect("sum_keeps_the_keys", SameDict(), "return a new dict"),
    Defect("sum_keeps_the_keys", TakesOut(), "sum changes what it is given: {}"),
    Defect("sum_keeps_the_keys", ListOfSums(), "sum returns a list, no dict"),
    Defect("sum_keeps_the_keys", FloatSums(), "no whole numbers"),
    Defect("sum_keeps_the_keys", DropsZeros(), "sum returns ['', 'x'] of ['', 'x', 'y']"),
    Defect("sum_keeps_the_keys", SmallSums(), "the sum over one rank is"),
    Defect("gather_gives_all_ranks", BareValue(), "gather returns a NoneType, no list"),
    Defect("gather_gives_all_ranks", Marks(), "gather changes what it is given"),
    Defect("gather_gives_all_ranks", GathersText(), "gather returns 'None' for this rank's None"),
    Defect("gather_gives_all_ranks", GathersTwice(), "gather returns 2 values of 1 ranks"),
]
