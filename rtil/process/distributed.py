"""What the processes of one command share: sums, gradients, leaving the group."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor


def all_sum(x: Tensor) -> Tensor:
    """Sum of x over all processes."""
    if dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Replaces gradients by their mean over processes, in one all-reduce of a flat vector."""
    if not dist.is_initialized():
        return
    grads = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat.split([g.numel() for g in grads])):
        grad.copy_(part.view_as(grad))


def barrier(device: torch.device) -> None:
    """Waits for the other processes."""
    all_sum(torch.zeros(1, device=device))


def stop() -> None:
    """Leaves the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()
