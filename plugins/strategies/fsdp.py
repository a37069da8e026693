"""Fully sharded data parallel: every rank a part of the model and a share of each batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

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
    only while it computes. Layers are what the model has in lists (`nn.ModuleList`). All ranks
    write their parts of a checkpoint into the run folder, which they must share.
    """

    device: Literal["auto", "cpu", "cuda"] = option("auto", help="where the models run")

    @property
    def alone(self) -> str:
        """What one process uses a model by that ranks have trained."""
        return f"{{use='auto', device='{self.device}'}}"

    def build(self) -> LiveFsdp:
        """Join the ranks; `UserError` outside torchrun, or where there are too few GPUs."""
        return LiveFsdp(*_ranks.join("fsdp", self.device))


@attrs.define(eq=False)
class LiveFsdp:
    """One rank of several, with its part of the model and of what the optimizer keeps."""

    device: torch.device
    world_size: int
    rank: int
    mesh: DeviceMesh | None = None
    optimizer: torch.optim.Optimizer | None = None

    def wrap(self, module: nn.Module) -> nn.Module:
        """Share the module out over the ranks' devices, with the first rank's weights."""
        for tensor in (*module.parameters(), *module.buffers()):
            same = tensor.detach().contiguous()
            dist.broadcast(same, 0)
            tensor.detach().copy_(same)
        self.mesh = init_device_mesh(self.device.type, (self.world_size,))
        for part in (*_layers(module), module):
            # outside of a pass no weight is whole, so that they can be read and set at any time
            made = fully_shard(part, mesh=self.mesh, reshard_after_forward=True)
            # the losses were divided by the whole batch's counts: gradients are summed
            made.set_gradient_divide_factor(1.0)
            made.set_force_sum_reduction_for_comms(True)
        _hook(module)
        return _Sharded(module)

    def accumulate(self, module: nn.Module, *, last: bool) -> AbstractContextManager[Any]:  # noqa: ARG002
        """Gradients are summed in every micro-batch: to wait, each rank would keep them whole."""
        return nullcontext()

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
        parts = {
            f"{at}.{name}": value
            for at, parameter in enumerate(self._parameters())
            for name, value in self._states().get(parameter, {}).items()
            if isinstance(value, DTensor)
        }
        try:
            save(parts, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
        except CheckpointException as error:
            raise RunError(f"{target}: can't write the checkpoint ({_reason(error)})") from None
        # the first rank's writer takes them away at once
        files = [] if self.rank else folder.iterdir()
        return {f"{SHARDS}/{file.name}": _Written(file) for file in files}

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
        """Return memory for a part of a tensor, cut as weights are."""
        kind = about.properties.dtype
        return empty(about.size, dtype=kind, device_mesh=self.mesh, placements=[Shard(0)])

    def sum(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Sum the counts over ranks."""
        return _ranks.total(counts)

    def gather(self, value: Any) -> list[Any]:
        """Collect an object of every rank."""
        return _ranks.every(value)


@attrs.frozen
class _Written:
    """A file that is written already, for a checkpoint to take up."""

    file: Path

    def write(self, path: Path) -> str:
        """Put it into its place; its hash isn't known."""
        path.parent.mkdir(exist_ok=True)
        self.file.rename(path)
        with suppress(OSError):
            self.file.parent.rmdir()  # the last one leaves an empty folder
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
