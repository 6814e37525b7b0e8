"""The only optimisation loop of inversion: schedule, best iterate per image, projections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rtil import graphs
from rtil.inverters.inverter import Loss, Watch
from rtil.operators.operator import ForwardOperator


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
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimiser]
    factors = [schedule(step / steps) for step in range(steps)]

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        """Image, measurement losses, and what is minimised."""
        image, penalty = render()
        data = loss(A(image), y)
        return image, data, data.sum() if penalty is None else (data + penalty).sum()

    def descend(optim: torch.optim.Optimizer, total: Tensor) -> None:
        for value, grad in zip(values, torch.autograd.grad(total, values, allow_unused=True)):
            value.grad = grad
        optim.step()
        with torch.no_grad():
            for variable in variables:
                variable.project()

    way = _replayed if graphs.wanted(y.device, steps) else _one_by_one
    image, data, best, best_loss, record = way(
        evaluate, descend, kind, groups, factors, y, A.in_shape, watch
    )
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


def _one_by_one(
    evaluate: Callable[[], tuple[Tensor, Tensor, Tensor]],
    descend: Callable[[torch.optim.Optimizer, Tensor], None],
    kind: type[torch.optim.Optimizer],
    groups: dict[float, list[Tensor]],
    factors: Sequence[float],
    y: Tensor,
    in_shape: tuple[int, ...],
    watch: Watch | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Every step started from Python.

    Args:
        evaluate, descend: one half each of a step. kind: of optimiser.
        groups: variables by step size. factors: on the step sizes, one each step.
        y, in_shape, watch: measurements, shape of an image, as for `minimise`.

    Returns:
        Last image and its losses, best image and its losses, (steps + 1, B) losses.
    """
    optim = kind([{"params": group, "lr": lr} for lr, group in groups.items()], 0.0, fused=True)
    best = best_loss = None
    history = []
    for step in range(len(factors) + 1):
        more = step < len(factors)
        with torch.set_grad_enabled(more):
            image, data, total = evaluate()
        with torch.no_grad():
            data, seen = data.detach(), image.detach()
            history.append(data)
            if watch is not None:
                watch(seen)
            if best is None:
                best, best_loss = seen.clone(), data
            else:
                better = data < best_loss
                best = torch.where(better.view(-1, 1, 1, 1), seen, best)
                best_loss = torch.where(better, data, best_loss)
        if more:
            for group, lr in zip(optim.param_groups, groups):
                group["lr"] = lr * factors[step]
            descend(optim, total)
    return seen, data, best, best_loss, torch.stack(history)


def _replayed(
    evaluate, descend, kind, groups, factors, y, in_shape, watch
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The same with steps replayed as CUDA graphs: whatever changes lies in tensors on the GPU."""
    count, batch, device = len(factors), len(y), y.device
    table = torch.tensor([[lr * factor for lr in groups] for factor in factors], device=device)
    rates = [torch.zeros((), device=device) for _ in groups]
    more = {"capturable": True} if kind is torch.optim.Adam else {}
    optim = kind([{"params": group, "lr": lr} for lr, group in zip(rates, groups.values())],
                 rates[0], fused=True, **more)
    row = torch.zeros(1, dtype=torch.long, device=device)
    history = y.new_empty(count + 1, batch)
    best, best_loss = y.new_zeros(batch, *in_shape), y.new_full((batch,), torch.inf)

    @torch.no_grad()
    def keep(image: Tensor, data: Tensor) -> None:
        history.index_copy_(0, row, data[None])
        better = data < best_loss
        best.copy_(torch.where(better.view(-1, 1, 1, 1), image, best))
        best_loss.copy_(torch.where(better, data, best_loss))

    def step() -> Tensor:
        image, data, total = evaluate()
        keep(image.detach(), data.detach())
        for rate, value in zip(rates, table.index_select(0, row)[0].unbind()):
            rate.copy_(value)
        descend(optim, total)
        row.add_(1)
        return image.detach()

    for image in graphs.repeated(step, count):
        if watch is not None:
            watch(image)
    with torch.no_grad():
        image, data, _ = evaluate()
        keep(image, data)
        if watch is not None:
            watch(image)
    return image, data, best, best_loss, history


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
