"""The only optimisation loop of inversion: schedule, best iterate per image, projections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inverters.inverter import Loss, Watch
from rtil.operators.operator import ForwardOperator
from rtil.process import replay


@dataclass(frozen=True)
class Variable:
    """A free variable of the inversion.

    value: (B, ...) leaf, changed in place. lr: step size at the top of the schedule.
    radius: None, or the Euclidean norm over the last `ball_dims` dimensions that every step
        projects back to; shape of value with those dimensions kept as 1.
    l1: None, or (B,) radius of the l1 ball that each image's value is projected onto.
    """

    value: Tensor
    lr: float
    radius: Tensor | None = None
    ball_dims: int = 1
    l1: Tensor | None = None

    def project(self) -> None:
        """Puts the value back onto its sphere or into its ball."""
        if self.radius is not None:
            self.value.mul_(self.radius / norm(self.value, self.ball_dims).clamp_min(1e-12))
        if self.l1 is not None:
            self.value.copy_(project_l1(self.value, self.l1))


class NotFinite(RuntimeError):
    """A measurement loss that is not finite: these step sizes have no result."""


class Schedule(NamedTuple):
    """Ramp of the step size: linear up, then cosine down to zero (published code).

    up: share of the steps until it is at the top. down: share over which it falls.
    """

    up: float = 0.05
    down: float = 0.75

    def __call__(self, t: float) -> float:
        """Factor in [0, 1] at the share t in [0, 1] of the steps."""
        fall = 1.0 if self.down == 0 else min(1.0, (1.0 - t) / self.down)
        rise = 1.0 if self.up == 0 else min(1.0, t / self.up)
        return rise * (0.5 - 0.5 * math.cos(math.pi * fall))


CONSTANT = Schedule(0.0, 0.0)


class Minimum(NamedTuple):
    """best, last: images. best_loss, last_loss: (B,). history: (steps + 1, B) on the CPU."""

    best: Tensor
    last: Tensor
    best_loss: Tensor
    last_loss: Tensor
    history: Tensor


def minimise(
    render: Callable[[], tuple[Tensor, Tensor | None]],
    variables: Sequence[Variable],
    A: ForwardOperator,
    y: Tensor,
    loss: Loss,
    steps: int,
    schedule: Schedule,
    optimiser: str = "adam",
    watch: Watch | None = None,
) -> Minimum:
    """Minimises loss(A x, y) + penalty over the variables, for each image of a batch by itself.

    The losses are summed over the batch and the updates act entry by entry, so each image goes
    the way it would go alone.

    Args:
        render: draws images (B, C, H, W) and a penalty (B,) or None from the variables' values.
        variables: what is optimised; values end at the last iterate.
        A, y, loss, watch: as in Inverter.invert.
        steps: updates; steps + 1 iterates are evaluated.
        schedule: factor on every step size.
        optimiser: "adam" or "sgd" (no momentum).

    Raises:
        NotFinite: a loss that is not finite; names the step and the images of the batch.
    """
    values = [v.value.requires_grad_(True) for v in variables]
    groups: dict[float, list[Tensor]] = {}
    for v in variables:
        groups.setdefault(v.lr, []).append(v.value)
    sizes = [[lr * schedule(step / steps) for lr in groups] for step in range(steps)]
    # To replay a step, all that changes from one to the next has to lie in tensors on the device.
    replayed = replay.wanted(y.device, steps)
    more = {"capturable": True} if replayed and optimiser == "adam" else {}
    rates = [y.new_zeros((), dtype=torch.float32) if replayed else 0.0 for _ in groups]
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]
    optim = kind(
        [{"params": group, "lr": lr} for lr, group in zip(rates, groups.values())],
        rates[0],
        fused=True,
        **more,
    )
    table, coming = torch.tensor(sizes, device=y.device) if replayed else None, iter(sizes)
    row = torch.zeros(1, dtype=torch.long, device=y.device)
    record = y.new_empty(steps + 1, len(y))
    best, best_loss = y.new_zeros(len(y), *A.in_shape), y.new_full((len(y),), torch.inf)

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        """Image, measurement losses, and what is minimised; notes the first two."""
        image, penalty = render()
        data = loss(A(image), y)
        total = data.sum() if penalty is None else (data + penalty).sum()
        with torch.no_grad():
            image, data = image.detach(), data.detach()
            record.index_copy_(0, row, data[None])
            better = data < best_loss
            best.copy_(torch.where(better.view(-1, 1, 1, 1), image, best))
            best_loss.copy_(torch.where(better, data, best_loss))
        return image, data, total

    def step() -> Tensor:
        image, _, total = evaluate()
        for value, grad in zip(values, torch.autograd.grad(total, values, allow_unused=True)):
            value.grad = grad
        if replayed:
            for rate, size in zip(rates, table.index_select(0, row)[0].unbind()):
                rate.copy_(size)
        else:
            for group, size in zip(optim.param_groups, next(coming)):
                group["lr"] = size
        optim.step()
        with torch.no_grad():
            for variable in variables:
                variable.project()
            row.add_(1)
        return image

    for image in replay.repeated(step, steps, replayed):
        if watch is not None:
            with torch.no_grad():
                watch(image)
    with torch.no_grad():
        image, data, _ = evaluate()
        if watch is not None:
            watch(image)
    for value in values:
        value.requires_grad_(False)
        value.grad = None
    record = record.cpu()
    bad = torch.nonzero(~record.isfinite())
    if len(bad):
        images = sorted({int(b) for s, b in bad if s == bad[0, 0]})
        raise NotFinite(
            f"inversion: the measurement loss is not finite from step {int(bad[0, 0])} on, images "
            f"{images} of the batch. Lower the inverter's step sizes."
        )
    return Minimum(best, image, best_loss, data, record)


def norm(x: Tensor, dims: int) -> Tensor:
    """Euclidean norm over the last `dims` dimensions, kept as 1."""
    return torch.linalg.vector_norm(x, dim=tuple(range(-dims, 0)), keepdim=True)


def project_l1(x: Tensor, radius: Tensor) -> Tensor:
    """Nearest point of the l1 ball for each image (Duchi et al. 2008, Fig. 1).

    Args:
        x: (B, ...). radius: (B,), positive.
    """
    flat = x.flatten(1)
    size = flat.abs()
    ordered = size.sort(1, descending=True).values
    excess = ordered.cumsum(1) - radius[:, None]
    count = torch.arange(1, flat.shape[1] + 1, device=x.device)
    last = ((ordered * count > excess) * count).amax(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= radius[:, None]
    shrunk = flat.sign() * (size - threshold).clamp_min(0)
    return torch.where(inside, flat, shrunk).view_as(x)


def randn(shape: Sequence[int], rngs: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal draws (B, *shape), each image's from its own CPU generator."""
    return torch.stack([torch.randn(tuple(shape), generator=rng) for rng in rngs]).to(like)
