"""Fully sharded data parallel: every rank a part of the model and a share of each batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal
from weakref import WeakValueDictionary

import attrs
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from framework.errors import UserError
from framework.protocols import option
from plugins.strategies import _ranks


@attrs.frozen
class Fsdp:
    """Fully sharded data parallel under torchrun, by torch's `fully_shard` (FSDP2).

    Start it as `torchrun --standalone --nproc-per-node 2 -m framework run EXPERIMENT`. Each rank
    keeps its part of weights, gradients and optimizer states; the weights of a layer are whole
    only while it computes. Layers are what the model has in lists (`nn.ModuleList`).
    """

    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where the models run")

    @property
    def alone(self) -> str:
        """What one process uses a model by that ranks have trained."""
        return f"{{use='auto', device='{self.device}'}}"

    def build(self) -> LiveFsdp:
        """Join the ranks; `UserError` outside torchrun, or where there are too few GPUs."""
        return LiveFsdp(*_ranks.join("fsdp", self.device))


@attrs.frozen
class LiveFsdp:
    """One rank of several; what it is asked to save or load of its part is the whole."""

    device: torch.device
    world_size: int
    rank: int

    def wrap(self, module: nn.Module) -> nn.Module:
        """Share the module out over the ranks' devices, with the first rank's weights."""
        for tensor in (*module.parameters(), *module.buffers()):
            same = tensor.detach().contiguous()
            dist.broadcast(same, 0)
            tensor.detach().copy_(same)
        mesh = init_device_mesh(self.device.type, (self.world_size,))
        for part in (*_layers(module), module):
            # outside of a pass no weight is whole, so that they can be read and set at any time
            made = fully_shard(part, mesh=mesh, reshard_after_forward=True)
            # the losses were divided by the whole batch's counts: gradients are summed
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)
        _hook(module)
        return _Sharded(module)

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Gradients are summed in every micro-batch: to wait, each rank would keep them whole."""
        return nullcontext()

    def adopt(self, optimizer: Any) -> None:
        """Have the optimizer give and take whole states; `UserError` where it can't."""
        if not isinstance(optimizer, torch.optim.Optimizer):
            kind = type(optimizer).__qualname__
            raise UserError(f"strategy 'fsdp' needs a torch.optim.Optimizer, not a {kind}")
        optimizer.register_state_dict_post_hook(_gathered)
        optimizer.register_load_state_dict_pre_hook(_shared)

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Sum the counts over ranks."""
        return _ranks.total(counts)

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank."""
        return _ranks.every(value)


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


def _whole(value: Any) -> Any:
    """Return a tensor's whole in the processor's memory, which all ranks ask for together."""
    return value.full_tensor().cpu() if isinstance(value, DTensor) else value


def _part(value: Any, like: Tensor) -> Any:
    """Return this rank's part of a whole tensor, where there is one of its shape like that."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    mesh = like.device_mesh
    # every rank has read the whole of it
    return distribute_tensor(value.to(like.device), mesh, like.placements, src_data_rank=None)


def _hook(root: nn.Module) -> None:
    """Have a module give and take whole weights; those that are tied stay tied."""
    known: WeakValueDictionary[int, Tensor] = WeakValueDictionary()

    def begin(_: nn.Module, prefix: str, __: bool) -> None:  # noqa: FBT001 - torch's
        if not prefix:
            known.clear()

    def gather(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if prefix + name in state and isinstance(parameter, DTensor):
                found = known.get(id(parameter))
                found = _whole(parameter.detach()) if found is None else found
                state[prefix + name] = known[id(parameter)] = found

    def share(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if prefix + name in state:
                state[prefix + name] = _part(state[prefix + name], parameter)

    for module in root.modules():
        module.register_state_dict_pre_hook(begin)
        module.register_state_dict_post_hook(gather)
        module.register_load_state_dict_pre_hook(share)


def _gathered(_: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with whole tensors."""
    states = {
        at: {name: _whole(value) for name, value in found.items()}
        for at, found in state["state"].items()
    }
    return {**state, "state": states}


def _shared(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's state with this rank's parts."""
    numbers = [at for group in state["param_groups"] for at in group["params"]]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    likes = dict(zip(numbers, parameters, strict=False))  # torch says where they don't match
    states = {
        at: {name: _part(value, likes[at]) for name, value in found.items()}
        for at, found in state["state"].items()
        if at in likes
    }
    return {**state, "state": states}
