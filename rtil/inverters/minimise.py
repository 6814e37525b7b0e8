"""The only optimisation loop of inversion: schedule, best iterate per image, projections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.inverters.inverter import Loss, Reconstruction, Watch
from rtil.latents.space import Latents
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

    def release(self) -> None:
        """Ends its being optimised; the value stays."""
        self.value.requires_grad_(False)
        self.value.grad = None

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


@dataclass(frozen=True)
class Observation:
    """What iterates are compared with: measurements y, and how; see Inverter.invert."""

    A: ForwardOperator
    y: Tensor
    loss: Loss
    watch: Watch | None = None

    @torch.no_grad()
    def show(self, image: Tensor) -> None:
        """Shows an iterate (B, C, H, W) to who watches, if anyone does."""
        if self.watch is not None:
            self.watch(image)


@dataclass(frozen=True)
class Descent:
    """How variables move.

    steps: updates; steps + 1 iterates are evaluated.
    schedule: factor on every step size.
    optimiser: "adam" or "sgd" (no momentum).
    """

    steps: int
    schedule: Schedule
    optimiser: str = "adam"

    def __post_init__(self) -> None:
        assert self.optimiser in ("adam", "sgd"), self.optimiser


class Minimum(NamedTuple):
    """best, last: images. best_loss, last_loss: (B,). history: (steps + 1, B) on the CPU."""

    best: Tensor
    last: Tensor
    best_loss: Tensor
    last_loss: Tensor
    history: Tensor


class Rates:
    """An optimiser of the variables, and the step size of each of its groups at every step.

    Args:
        variables: with their step size at the top of the schedule; those of one size are a group.
        descent: how they move.
        replayed: whether steps are recorded and replayed, so that all that changes from one step
            to the next has to lie in tensors on the device.
    """

    def __init__(
        self, variables: Sequence[Variable], descent: Descent, device: torch.device, replayed: bool
    ) -> None:
        # torch keeps a step size for each group, and a kernel starts once a group.
        groups: dict[float, list[Tensor]] = {}
        for variable in variables:
            groups.setdefault(variable.lr, []).append(variable.value)
        steps, schedule = descent.steps, descent.schedule
        sizes = [[lr * schedule(step / steps) for lr in groups] for step in range(steps)]
        self._coming = iter(sizes)
        self._table = torch.tensor(sizes, device=device) if replayed else None
        self._rates = [torch.zeros((), device=device) for _ in groups] if replayed else []

        # torch.optim takes a step size as a number, or as a tensor that it reads in each step.
        rates: list[Tensor] | list[float] = self._rates or [0.0] * len(groups)
        params = [{"params": group, "lr": lr} for lr, group in zip(rates, groups.values())]
        self.optim: torch.optim.Optimizer
        if descent.optimiser == "sgd":
            self.optim = torch.optim.SGD(params, rates[0], fused=True)
        else:
            self.optim = torch.optim.Adam(params, rates[0], fused=True, capturable=replayed)

    def advance(self, row: Tensor) -> None:
        """Sets the step sizes of the next step, whose number is row (1,)."""
        if self._table is None:
            for group, size in zip(self.optim.param_groups, next(self._coming)):
                group["lr"] = size
            return
        for rate, value in zip(self._rates, self._table.index_select(0, row)[0].unbind()):
            rate.copy_(value)


class Iterates:
    """Losses of every iterate, and for each image the iterate with the lowest."""

    def __init__(self, observation: Observation, steps: int) -> None:
        y, batch = observation.y, len(observation.y)
        self.row = torch.zeros(1, dtype=torch.long, device=y.device)  # number of the next one
        self.losses = y.new_empty(steps + 1, batch)
        self.best = y.new_zeros(batch, *observation.A.in_shape)
        self.best_loss = y.new_full((batch,), torch.inf)

    @torch.no_grad()
    def note(self, image: Tensor, data: Tensor) -> None:
        """Adds an iterate (B, C, H, W) with its measurement losses (B,)."""
        # All in place, at tensors that stay where they are: a replayed step writes there again.
        self.losses.index_copy_(0, self.row, data[None])
        better = data < self.best_loss
        self.best.copy_(torch.where(better.view(-1, 1, 1, 1), image, self.best))
        self.best_loss.copy_(torch.where(better, data, self.best_loss))

    def history(self) -> Tensor:
        """The losses of all iterates (steps + 1, B), on the CPU.

        Raises:
            NotFinite: one of them is not finite; names the step and the images of the batch.
        """
        # Looked at once, after the last step: a look in between would wait for the device.
        losses = self.losses.cpu()
        bad = torch.nonzero(~losses.isfinite())
        if len(bad):
            first = int(bad[0, 0])
            images = sorted({int(image) for step, image in bad if step == first})
            raise NotFinite(
                f"inversion: the measurement loss is not finite from step {first} on, images "
                f"{images} of the batch. Lower the inverter's step sizes."
            )
        return losses


def minimise(
    render: Callable[[], tuple[Tensor, Tensor | None]],
    variables: Sequence[Variable],
    observation: Observation,
    descent: Descent,
) -> Minimum:
    """Minimises loss(A x, y) + penalty over the variables, for each image of a batch by itself.

    The losses are summed over the batch and the updates act entry by entry, so each image goes
    the way it would go alone.

    Args:
        render: draws images (B, C, H, W) and a penalty (B,) or None from the variables' values.
        variables: what is optimised; values end at the last iterate.
        observation: measurements, and what is shown every iterate.
        descent: steps, their sizes and the optimiser.

    Raises:
        NotFinite: a loss that is not finite; names the step and the images of the batch.
    """
    A, y, steps = observation.A, observation.y, descent.steps
    values = [variable.value.requires_grad_(True) for variable in variables]
    replayed = replay.wanted(y.device, steps)
    rates = Rates(variables, descent, y.device, replayed)
    iterates = Iterates(observation, steps)

    def evaluate() -> tuple[Tensor, Tensor, Tensor]:
        """Image, measurement losses, and what is minimised; notes the first two."""
        image, penalty = render()
        data = observation.loss(A(image), y)
        # The penalty steers and does not choose: the best iterate is that of the data term.
        total = data.sum() if penalty is None else (data + penalty).sum()
        image, data = image.detach(), data.detach()
        iterates.note(image, data)
        return image, data, total

    def step() -> Tensor:
        image, _, total = evaluate()
        # A variable that the image does not depend on stays: noise maps of blocks before a cut.
        gradients = torch.autograd.grad(total, values, allow_unused=True)
        for value, gradient in zip(values, gradients):
            value.grad = laid_out(gradient, value)
        rates.advance(iterates.row)
        rates.optim.step()
        with torch.no_grad():
            # After the update and not in the loss, so that every iterate shown is feasible.
            for variable in variables:
                variable.project()
            iterates.row.add_(1)
        return image

    for image in replay.repeated(step, steps, replayed):
        observation.show(image)
    # The iterate that the last update led to is evaluated and shown too, but nothing follows it.
    with torch.no_grad():
        image, data, _ = evaluate()
    observation.show(image)
    for variable in variables:
        variable.release()
    return Minimum(iterates.best, image, iterates.best_loss, data, iterates.history())


def laid_out(gradient: Tensor | None, like: Tensor) -> Tensor | None:
    """The gradient in the memory format of its variable.

    Fused optimisers read both entry by entry in the order of memory, and that of a map is
    channels-last where the generator's is.
    """
    if gradient is None or gradient.stride() == like.stride():
        return gradient
    return torch.empty_like(like).copy_(gradient)


def reconstruction(minimum: Minimum, latents: Latents | None = None) -> Reconstruction:
    """What an inverter of one `minimise` returns; latents are those of its last iterate."""
    return Reconstruction(
        minimum.best,
        minimum.last,
        minimum.best_loss,
        minimum.last_loss,
        minimum.history,
        latents,
    )


def joined(first: Reconstruction, second: Reconstruction) -> Reconstruction:
    """Two stages of an inverter: the best iterate of both, and the last of the second."""
    better = second.loss < first.loss
    later = tuple(len(first.history) + start for start in second.starts)
    return second._replace(
        image=torch.where(better.view(-1, 1, 1, 1), second.image, first.image),
        loss=torch.where(better, second.loss, first.loss),
        history=torch.cat([first.history, second.history]),
        starts=(*first.starts, *later),
    )


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
    # The largest number of entries that stay above the threshold they lead to.
    last = ((ordered * count > excess) * count).amax(1, keepdim=True).clamp_min(1)
    threshold = (excess.gather(1, last - 1) / last).clamp_min(0)
    inside = size.sum(1, keepdim=True) <= radius[:, None]
    shrunk = flat.sign() * (size - threshold).clamp_min(0)
    return torch.where(inside, flat, shrunk).view_as(x)


def randn(shape: Sequence[int], rngs: Sequence[torch.Generator], like: Tensor) -> Tensor:
    """Standard normal draws (B, *shape), each image's from its own CPU generator."""
    return torch.stack([torch.randn(tuple(shape), generator=rng) for rng in rngs]).to(like)
