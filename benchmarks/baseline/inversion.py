"""Inversion steps of ILO and mGANprior, one image at a time (Daras et al. 2021, Gu et al. 2020).

As in the circulating codes, ILO leaves the generator's weights differentiable, takes the filter's
full transform and the measurements of the true image anew in every step; mGANprior runs its codes
one after the other on frozen weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from benchmarks.baseline.pggan import PGGANGenerator
from benchmarks.baseline.stylegan2 import StyleGAN2Generator, style_of


class Circulant:
    """y = R (h * (s . x)) (paper, section 4).

    Args:
        filter, signs: (n,). indices: (m,) positions that are kept.
    """

    def __init__(self, filter: Tensor, signs: Tensor, indices: Tensor) -> None:
        self.filter, self.signs, self.indices = filter, signs, indices

    def __call__(self, x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1) * self.signs
        product = torch.fft.fft(flat) * torch.fft.fft(self.filter)
        return torch.fft.ifft(product).real[:, self.indices]


def geodesic(v: Tensor) -> Tensor:
    """Mean squared angle between the styles of a sample, times w_dim / 8 (published ILO code)."""
    x, y = v[:, :, None], v[:, None]
    minus = ((x - y).pow(2).sum(-1) + 1e-9).sqrt()
    plus = ((x + y).pow(2).sum(-1) + 1e-9).sqrt()
    return (2 * torch.atan2(minus, plus)).pow(2).mean((1, 2)).sum() * v.shape[2] / 8


def ramp(t: float, up: float = 0.05, down: float = 0.75) -> float:
    """Factor on the step size at the share t of a stage (published ILO code)."""
    return min(1.0, t / up) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / down)))


def descend(
    loss: Callable[[], tuple[Tensor, Tensor]],
    variables: Sequence[tuple[Tensor, float]],
    radii: Sequence[tuple[Tensor, Tensor, tuple[int, ...]]],
    steps: int,
    watch: Callable[[Tensor], None],
) -> Tensor:
    """Adam with a ramped step size and projection onto spheres; returns the best image.

    Args:
        loss: of the current values: (total to differentiate, image). Evaluated steps + 1 times.
        variables: (value, step size).
        radii: (value, radius, dimensions) of what is projected back after every step.
        steps: updates.
        watch: is shown every image.
    """
    for value, _ in variables:
        value.requires_grad_(True)
    optim = torch.optim.Adam([{"params": [value], "lr": lr} for value, lr in variables])
    best, best_loss = None, math.inf
    for step in range(steps + 1):
        total, image = loss()
        watch(image.detach())
        if total.item() < best_loss:
            best, best_loss = image.detach().clone(), total.item()
        if step == steps:
            break
        for group, (_, lr) in zip(optim.param_groups, variables):
            group["lr"] = lr * ramp(step / steps)
        optim.zero_grad()
        total.backward()
        optim.step()
        with torch.no_grad():
            for value, radius, dims in radii:
                value.mul_(radius / value.norm(dim=dims, keepdim=True))
    for value, _ in variables:
        value.requires_grad_(False)
    return best


def ilo_loss(
    G: StyleGAN2Generator,
    A: Circulant,
    target: Tensor,
    prior: tuple[Tensor, Tensor],
    v: Tensor,
    noise: list[Tensor],
    k: int = 0,
    z: Tensor | None = None,
    x: Tensor | None = None,
    rgb: Tensor | None = None,
    mse: float = 0.25,
    angles: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Loss of stage k and its image g_k(x + z).

    Args:
        target: the true image (1, C, H, W), measured anew.
        prior: mean and standard deviation of the styles before their leaky ReLU.
        v, noise, z: free variables.
        x, rgb: state after block k.
        mse, angles: weights of the measurement error and, in stage 0, of the style angles.
    """
    w = style_of(v, *prior)
    image = G(w, noise, {k: z} if k else None, k, x, rgb)
    loss = mse * (A(image) - A(target)).pow(2).mean()
    return (loss + angles * geodesic(v) if k == 0 else loss), image


def ilo(
    G: StyleGAN2Generator,
    A: Circulant,
    target: Tensor,
    prior: tuple[Tensor, Tensor],
    v: Tensor,
    noise: list[Tensor],
    stages: Sequence[int],
    watch: Callable[[Tensor], None],
    lr: float = 0.2,
    noise_maps: int = 5,
    noise_maps_per_stage: int = 2,
) -> Tensor:
    """Runs every stage from v (1, num_styles, w_dim) and noise maps; returns the last's best."""
    G.requires_grad_(True)
    spheres = [(v, v.norm(dim=-1, keepdim=True), (-1,))]
    spheres += [(n, n.norm(dim=(2, 3), keepdim=True), (2, 3)) for n in noise]
    x = rgb = z = None
    for k, steps in enumerate(stages):
        free = noise[: noise_maps + k * noise_maps_per_stage]
        variables = [(value, lr) for value in (v, *free)]
        if k:
            with torch.no_grad():
                before = x if z is None else x + z
                x, rgb = G.step(k, before, rgb, style_of(v, *prior), noise)
            z = torch.zeros_like(x)
            variables.append((z, lr))

        def loss(k=k, z=z, x=x, rgb=rgb) -> tuple[Tensor, Tensor]:
            return ilo_loss(G, A, target, prior, v, noise, k, z, x, rgb)

        best = descend(loss, variables, spheres[: 1 + len(free)], steps, watch)
    return best


def mgan_loss(
    G: PGGANGenerator,
    A: nn.Module,
    y: Tensor,
    codes: Tensor,
    alpha: Tensor,
    block: int,
    mse: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """Loss and image of codes (N, z_dim) and channel weights (N, C); y is measured once."""
    image = G(list(codes[:, None]), list(alpha[:, None]), block)
    return mse * (A(image) - y).pow(2).mean(), image


def mgan(
    G: PGGANGenerator,
    A: nn.Module,
    y: Tensor,
    codes: Tensor,
    alpha: Tensor,
    block: int,
    steps: int,
    watch: Callable[[Tensor], None],
    lr: float = 0.1,
) -> Tensor:
    """Adam on codes and weights; returns the best image."""
    G.requires_grad_(False)

    def loss() -> tuple[Tensor, Tensor]:
        return mgan_loss(G, A, y, codes, alpha, block)

    return descend(loss, [(codes, lr), (alpha, lr)], [], steps, watch)
