"""Fully sharded data parallel: every rank a part of the model and a share of each batch."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary, finalize

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, empty

from framework.errors import RunError, UserError
from framework.protocols import option
from plugins.strategies import _ranks

SHARDS = "shards"
"""The folder in a checkpoint that holds what each rank has written."""


@attrs.frozen
class Fsdp:
    """Fully sharded data parallel under torchrun, by torch's `fully_shard` (FSDP2).

    Start it as `torchrun --standalone --nproc-per-node 2 -m framework run EXPERIMENT`. Each rank
    keeps its part of weights, gradients and optimizer states; the weights of a layer are whole
    only while it computes. Layers are what the model has in lists (`nn.ModuleList`). Ranks may use
    different parameters in a batch, but must use the same layers in the same order. All ranks
    write their parts of a checkpoint into the run folder, which they must share. Of optimizers it
    takes those of torch that keep of a parameter numbers and tensors of its shape, as AdamW.
    """

    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where the models run")

    @property
    def alone(self) -> str:
        """What one process uses a model by that ranks have trained."""
        return f"{{use='auto', device='{self.device}'}}"

    def build(self) -> LiveFsdp:
        """Join the ranks; `UserError` outside torchrun, or where there are too few GPUs."""
        return LiveFsdp(*_ranks.join("fsdp", self.device))


@attrs.define
class _Used:
    """What this rank uses of a module: layers in their order, and parameters with a gradient."""

    order: list[str] = attrs.field(factory=list)
    names: set[str] = attrs.field(factory=set)
    whole: dict[str, Tensor] = attrs.field(factory=dict)

    def watch(self, root: nn.Module, layers: list[nn.Module]) -> None:
        """Note down what is used of it in training."""
        places = {module: name for name, module in root.named_modules()}
        for part in (*layers, root):
            # behind torch's own hook, and so with the weights whole
            part.register_forward_pre_hook(self._called(places[part]))

    def take(self) -> tuple[list[str], set[str]]:
        """Return it, and begin anew."""
        found = self.order, self.names
        self.order, self.names = [], set()
        return found

    def _called(self, place: str) -> Callable[..., None]:
        def called(part: nn.Module, _: Any) -> None:
            if not torch.is_grad_enabled():
                return
            self.order.append(place)
            for own, whole in part.named_parameters(prefix=place):
                shared = isinstance(whole, DTensor)
                if whole.requires_grad and not shared and self.whole.get(own) is not whole:
                    self.whole[own] = whole
                    reached = self._reached(place, own)
                    whole.register_post_accumulate_grad_hook(reached)  # type: ignore[no-untyped-call]

        hook: Callable[..., None] = torch.compiler.disable(called)  # type: ignore[no-untyped-call]
        return hook

    def _reached(self, place: str, name: str) -> Callable[[Tensor], None]:
        def reached(_: Tensor) -> None:
            self.names.add(name)
            # gradients outside of layers are summed last of all, whenever they came
            if place and self.order[-1] != f"{place} back":
                self.order.append(f"{place} back")

        return reached


@attrs.define(eq=False)
class LiveFsdp:
    """One rank of several, with its part of the model and of what the optimizer keeps."""

    device: torch.device
    world_size: int
    rank: int
    mesh: DeviceMesh | None = None
    optimizer: torch.optim.Optimizer | None = None
    used: _Used = attrs.field(factory=_Used)

    def wrap(self, module: nn.Module) -> nn.Module:
        """Share the module out over the ranks' devices, with the first rank's weights."""
        for tensor in (*module.parameters(), *module.buffers()):
            same = tensor.detach().contiguous()
            dist.broadcast(same, 0)
            tensor.detach().copy_(same)
        self.mesh = init_device_mesh(self.device.type, (self.world_size,))
        layers = _layers(module)
        for part in (*layers, module):
            # outside of a pass no weight is whole, so that they can be read and set at any time
            made = fully_shard(part, mesh=self.mesh, reshard_after_forward=True)
            # the losses were divided by the whole batch's counts: gradients are summed
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)
            # else ranks that use different parameters of it would sum one's with another's
            made.set_reduce_scatter_unused_params(True, recurse=False)
        _hook(module)
        self.used.watch(module, layers)
        return _Sharded(module)

    @contextmanager
    def accumulate(self, module: nn.Module, *, last: bool) -> Iterator[None]:
        """Gradients are summed in every micro-batch: to wait, each rank would keep them whole.

        `UserError` after the `last` where ranks have used different layers, or in another order:
        each has computed with parts of several of them.
        """
        yield
        if not last:
            return
        ranks = self.gather(self.used.take())
        orders = [order for order, _ in ranks]
        if any(order != orders[0] for order in orders):
            advice = "strategy 'fsdp' can't share them out; take 'ddp' with unused = true"
            raise UserError(f"ranks use different layers of the model in a batch; {advice}")
        found = set[str]().union(*(names for _, names in ranks))
        for name, parameter in module.named_parameters():
            if name.removeprefix("whole.") not in found:
                parameter.grad = None  # as in one process: an optimizer leaves it alone

    def adopt(self, optimizer: Any) -> None:
        """Keep what the optimizer holds of parts out of its state; `UserError` where it can't."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            kind = type(optimizer).__qualname__
            raise UserError(f"strategy 'fsdp' needs a torch optimizer, not a {kind}")
        optimizer.register_state_dict_post_hook(_without_parts)
        self.optimizer = optimizer

    def save(
        self, weights: Mapping[str, Tensor], target: Path
    ) -> tuple[dict[str, Tensor], dict[str, _Written]]:
        """Write the optimizer's tensors, each rank its part, beside a checkpoint that is to be.

        Returns the whole weights on the first rank, and the files by their place in the checkpoint.
        They are safetensors, from which any number of ranks can load. Raises `RunError` on all
        ranks where one can't write.
        """
        whole = {}
        for name, tensor in weights.items():
            value = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if not self.rank:  # for the others there is no more of it than one at a time
                whole[name] = value.cpu()
        if self.gather(target.exists())[0]:
            return whole, {}  # it is never changed
        return whole, self._written(target)

    def _written(self, target: Path) -> dict[str, _Written]:
        folder = target.with_name(f".{target.name}.{SHARDS}.part")
        if not self.rank:  # one that was killed may have left parts there
            shutil.rmtree(folder, ignore_errors=True)
        parts = self._parts()
        if not any(self.gather(bool(parts))):
            return {}
        try:
            save(parts, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
        except CheckpointException as error:
            if not self.rank:
                shutil.rmtree(folder, ignore_errors=True)
            raise RunError(f"{target}: can't write the checkpoint ({_reason(error)})") from None
        if self.rank:  # the first rank's writer takes them away at once
            return {}
        left = _Left(folder)
        return {f"{SHARDS}/{file.name}": _Written(file, left) for file in folder.iterdir()}

    def _parts(self) -> dict[str, DTensor]:
        """Return what the optimizer keeps in parts; `UserError` where that isn't cut as weights."""
        found = {}
        for at, parameter in enumerate(self._parameters()):
            for name, value in self._states().get(parameter, {}).items():
                if not isinstance(value, DTensor):
                    continue
                if value.shape != parameter.shape or value.placements != (Shard(0),):
                    kind = type(self.optimizer).__qualname__
                    what = f"{kind}'s '{name}', which is not of its parameter's shape"
                    raise UserError(f"strategy 'fsdp' can't keep {what}; take AdamW, or 'ddp'")
                found[f"{at}.{name}"] = value
        return found

    def load(self, checkpoint: Path) -> None:
        """Read this rank's part of the optimizer's tensors; `UserError` where that can't be."""
        folder = checkpoint / SHARDS
        if not folder.exists():  # an optimizer may keep nothing
            return
        reader = HuggingFaceStorageReader(str(folder))
        try:
            known = reader.read_metadata().state_dict_metadata
            parts = {name: self._empty(about) for name, about in known.items()}
            load(parts, storage_reader=reader)
        except (OSError, CheckpointException) as error:
            raise UserError(f"{folder}: can't be read ({_reason(error)})") from None
        parameters = self._parameters()
        for where, part in parts.items():
            at, _, name = where.partition(".")
            self._states()[parameters[int(at)]][name] = part

    def _parameters(self) -> list[nn.Parameter]:
        assert self.optimizer is not None
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _states(self) -> dict[Any, dict[str, Any]]:
        assert self.optimizer is not None
        return self.optimizer.state

    def _empty(self, about: Any) -> DTensor:
        """Return memory for a part of a tensor, cut as weights are: others aren't saved."""
        kind = about.properties.dtype
        return empty(about.size, dtype=kind, device_mesh=self.mesh, placements=[Shard(0)])

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Sum the counts over ranks."""
        return _ranks.total(counts)

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank."""
        return _ranks.every(value)


@attrs.frozen(eq=False)
class _Left:
    """The folder of files that are written already; it goes with the last who holds this."""

    folder: Path

    def __attrs_post_init__(self) -> None:
        """See to it, also where they were not taken up."""
        finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@attrs.frozen
class _Written:
    """A file that is written already, for a checkpoint to take up."""

    file: Path
    left: _Left

    def write(self, path: Path) -> str:
        """Put it into its place; its hash isn't known."""
        path.parent.mkdir(exist_ok=True)
        self.file.rename(path)
        return ""


class _Sharded(nn.Module):
    """The module, for training and for evaluation."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.whole = module
        self.training = module.training

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Compute; in training with the buffers of the first rank, which alone saves its own."""
        if torch.is_inference_mode_enabled():
            # what weights are gathered into then could not be used for training again
            with torch.inference_mode(mode=False), torch.no_grad():
                return self.whole(*inputs, **named)
        for buffer in self.whole.buffers() if self.training else ():
            if buffer.is_floating_point():
                dist.broadcast(buffer, 0)
        return self.whole(*inputs, **named)


def _layers(module: nn.Module) -> list[nn.Module]:
    """Return the layers of a module whose weights nothing else shares."""
    every = Counter(id(p) for _, p in module.named_parameters(remove_duplicate=False))
    found = dict.fromkeys(_listed(module))
    return [layer for layer in found if all(every[id(p)] == 1 for p in layer.parameters())]


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        lists = isinstance(child, (nn.ModuleList, nn.ModuleDict))
        if isinstance(module, nn.ModuleList) and not lists:
            yield child
        else:
            yield from _listed(child)


def _part(value: Any, like: Tensor) -> Any:
    """Return this rank's part of a whole tensor, where there is one of its shape like that."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    mesh = like.device_mesh
    # every rank has read the whole of it
    return distribute_tensor(value.to(like.device), mesh, like.placements, src_data_rank=None)


def _hook(root: nn.Module) -> None:
    """Have a module take up whole weights; in its state those that are tied are the same."""
    known: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def tie(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, DTensor) and not state[prefix + name].requires_grad:
                state[prefix + name] = known.setdefault(id(parameter), state[prefix + name])

    def share(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if prefix + name in state:
                state[prefix + name] = _part(state[prefix + name], parameter)

    for module in root.modules():
        module.register_state_dict_post_hook(tie)  # type: ignore[no-untyped-call]
        module.register_load_state_dict_pre_hook(share)  # type: ignore[no-untyped-call]


def _without_parts(_: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state but for what ranks have a part of each."""
    states = {
        at: {name: value for name, value in found.items() if not isinstance(value, DTensor)}
        for at, found in state["state"].items()
    }
    return {**state, "state": states}


def _reason(error: BaseException) -> str:
    """Say in a line what some rank met."""
    failures = getattr(error, "failures", {}).values()
    found = next((failure[0] for failure in failures), error)
    return (str(found).splitlines() or [type(found).__name__])[0]
