"""Processes: who am I, which device, and the few exchanges that the loop needs. One process needs no group at all.

Started by torchrun, a process finds RANK, WORLD_SIZE and LOCAL_RANK in its environment. The device index is LOCAL_RANK:
the global rank is wrong beyond one node. CPU tensors and objects travel by gloo, GPU tensors by NCCL.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn, TypeGuard

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ICHAnalysisLib.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

#: Parameters of a block that is worth sharding by itself.
_LARGE = 1_000_000
#: How long processes wait for each other; a dead one is noticed at once, by its closed connection.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class World:
    """The processes of a run, as seen from this one."""

    device: torch.device
    rank: int = 0
    local_rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def start_world(device: str = "auto") -> World:
    """Join the other processes, where torchrun started several. device: auto | cpu | cuda | cuda:N.

    Raises UsageError where cuda is asked for and absent.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    chosen = _choose_device(device, local_rank)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if size > 1 and not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=_PATIENCE)
    return World(chosen, rank, local_rank, size)


def _choose_device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r} is unknown; use auto, cpu or cuda.") from error
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"device {name!r}: this PyTorch sees no CUDA device; use cpu, or install a CUDA build.")
        return torch.device("cuda", local_rank if device.index is None else device.index)
    return device


def stop_world(world: World) -> None:
    """Leave the group."""
    if world.size > 1 and dist.is_initialized():
        dist.destroy_process_group()


def end_process(code: int) -> NoReturn:
    """Exit with `code`; one of several processes does it without tearing the interpreter down.

    Gloo's threads outlive `destroy_process_group` where FSDP2 or a reference cycle still holds the group, and one that
    lets go of a tensor while the interpreter goes away aborts the process after all its work is done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        sys.exit(code)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def barrier(world: World) -> None:
    """Wait for every process, by gloo: NCCL would give up on one that still writes an evaluation."""
    any_process(world, [False])


def any_process(world: World, flags: Sequence[bool]) -> list[bool]:
    """Each flag, true where it is true in any process. One small exchange."""
    if world.size == 1:
        return list(flags)
    tensor = torch.tensor([int(flag) for flag in flags], dtype=torch.int32)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [bool(flag) for flag in tensor.tolist()]


def gather(world: World, value: Any) -> list[Any]:
    """The values of all processes in order of rank, known to every process."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def mean_of_processes(world: World, values: dict[str, float]) -> dict[str, float]:
    """Mean over the processes of each value; the keys must agree."""
    if world.size == 1 or not values:
        return dict(values)
    tensor = torch.tensor(list(values.values()), dtype=torch.float64)
    dist.all_reduce(tensor)
    return dict(zip(values, (tensor / world.size).tolist(), strict=True))


def share_buffers(world: World, model: nn.Module) -> None:
    """Rank 0's buffers (running means) everywhere, so that every process evaluates and saves the same network."""
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def wrap_model(world: World, model: nn.Module, parallel: str, find_unused: bool) -> nn.Module:
    """`model` on its device, made to exchange gradients: DDP, or FSDP2 with each large block sharded by itself."""
    if world.size == 1:
        return model
    if parallel == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for block in _large_blocks(model):
            fully_shard(block)
        fully_shard(model)
        return model
    ids = [world.device.index] if world.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=ids, find_unused_parameters=find_unused)


def _large_blocks(model: nn.Module) -> list[nn.Module]:
    """Elements of module lists and sequences with at least `_LARGE` parameters, outermost only."""
    blocks: list[nn.Module] = []
    for child in model.children():
        if isinstance(child, (nn.ModuleList, nn.Sequential)):
            blocks += [block for block in child if sum(p.numel() for p in block.parameters()) >= _LARGE]
        else:
            blocks += _large_blocks(child)
    return blocks


def unwrap_model(model: nn.Module) -> nn.Module:
    """The network itself. FSDP2 shards in place, so only DDP has something to take off."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


def is_sharded(model: nn.Module) -> TypeGuard[FSDPModule]:
    """Whether FSDP2 has sharded the module's parameters."""
    return hasattr(model, "set_requires_gradient_sync")  # what fully_shard adds


def set_gradient_exchange(model: nn.Module, on: bool) -> None:
    """Switch the exchange off while micro-batches accumulate and on for the last of them."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        model.require_backward_grad_sync = on
    elif is_sharded(model):
        model.set_requires_gradient_sync(on)


def reshard(model: nn.Module) -> None:
    """Give back the whole parameters that FSDP2 keeps after a forward without a backward."""
    for module in model.modules():
        if is_sharded(module):
            module.reshard()


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered; any other tensor as it is. Every process must take part."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def like(full: Tensor, template: Any) -> Tensor:
    """`full` sharded as `template` is; as it is where that is an ordinary tensor."""
    if not hasattr(template, "full_tensor"):
        return full
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(full.to(template.device), template.device_mesh, template.placements)
