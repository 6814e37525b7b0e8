"""What the processes of one command share: sums, means, gathered samples, leaving the group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor


def all_sum(x: Tensor) -> Tensor:
    """Sum of x over all processes."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_mean(x: Tensor) -> Tensor:
    """Mean of x over all processes."""
    return all_sum(x) / world()


def own(x: Tensor) -> Tensor:
    """This process's rows of what `gathered` has put together."""
    return x.chunk(world())[dist.get_rank()] if dist.is_initialized() else x


def gathered(x: Tensor) -> Tensor:
    """The samples x (B, ...) of all processes, (world B, ...), by rank; differentiable twice.

    Every process has to call it, and to take gradients through it, equally often.
    """
    return cast(Tensor, _Gather.apply(x)) if dist.is_initialized() else x


class _Gather(torch.autograd.Function):
    """x of every process, one after the other; its adjoint is `_OwnSum`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return cast(Tensor, _OwnSum.apply(*grads))


class _OwnSum(torch.autograd.Function):
    """This process's rows of the sum over processes; its adjoint is `_Gather`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return own(all_sum(x)).clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return cast(Tensor, _Gather.apply(*grads))


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces gradients by their mean over processes, in one all-reduce of a flat vector."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= world()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))


def barrier(device: torch.device) -> None:
    """Waits for the other processes."""
    all_sum(torch.zeros(1, device=device))


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
