"""Non-saturating logistic loss with lazy R1 and path-length penalties (Karras et al. 2020).

The path penalty of a sample is weight (l - a)^2, where l = |J_w^T y| is its length and a the
running mean of its member, which first moves to the mean length of the batch, <l>:

    a <- a + decay (<l> - a)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import Generator
from rtil.objectives.objective import Critic, GeneratorPenalty, Objective, RealPenalty
from rtil.process.distributed import all_sum, gathered
from rtil.process.rng import Draws


@final
class Logistic(Objective):
    """D: softplus(-D(x)) + softplus(D(G)); G: softplus(-D(G)) (Goodfellow et al. 2014).

    Args:
        members: number of family members of each space, in the family's order.
        r1_weight: gamma of R1, (gamma / 2) |grad D(x)|^2 (Karras et al. 2020, section 2).
        r1_every: steps between R1 penalties, each scaled by this number.
        path_weight: weight of (|J^T y| - a)^2 (Karras et al. 2020, eq. 4).
        path_every: steps between path-length penalties, each scaled by this number.
        path_batch: samples of a path-length penalty over all processes (published: 2).
        path_decay: step of the running mean a, of which there is one per member.
        path_mean_detached: a is a constant of the penalty, as in Karras et al. 2020. Differs from
            the published code (false), which takes the gradient through <l> in a as well: along
            what the batch's errors have in common it is smaller by the share `path_decay`.

    Raises:
        ValueError: negative weights, or intervals and batch below 1.
    """

    def __init__(
        self,
        members: list[int],
        r1_weight: float = 10.0,
        r1_every: int = 16,
        path_weight: float = 2.0,
        path_every: int = 4,
        path_batch: int = 2,
        path_decay: float = 0.01,
        path_mean_detached: bool = True,
    ) -> None:
        super().__init__()
        if min(r1_weight, path_weight) < 0 or min(r1_every, path_every, path_batch) < 1:
            raise ValueError(
                f"Logistic: r1_weight={r1_weight}, path_weight={path_weight} must be 0 or more, "
                f"r1_every={r1_every}, path_every={path_every}, path_batch={path_batch} 1 or more."
            )
        self.r1_weight, self.r1_every = r1_weight, r1_every
        self.path_weight, self.path_every = path_weight, path_every
        self.path_decay, self.path_mean_detached = path_decay, path_mean_detached
        if r1_weight:
            self.d_lazy = RealPenalty("r1", r1_every, self.r1)
        if path_weight:
            self.g_lazy = GeneratorPenalty(
                "path", path_every, path_batch, self.path_length, self.start_path_means
            )
        for i, count in enumerate(members):
            self.register_buffer(f"path_mean_{i}", torch.zeros(count))

    def real(self, scores: Tensor) -> Tensor:
        return F.softplus(-scores)

    def fake(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        return F.softplus(scores)

    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        return F.softplus(-scores)

    def r1(self, D: Critic, real: Tensor) -> Tensor:
        """r1_every (gamma / 2) |grad_x D(x)|^2 for each image (B,)."""
        return self.r1_every * self.r1_weight / 2 * gradient_norm2(D, real)

    def path_length(
        self,
        G: Generator,
        space: LatentSpace,
        index: int,
        latents: Latents,
        draws: Draws,
    ) -> Tensor:
        """path_every weight (|J_w^T y| - a)^2 for each sample (B',); updates the means a."""
        y = draws.normal(*G.image_shape)
        lengths = path_lengths(G, space, latents, y.to(latents.w))

        # The running mean moves before the error is taken, as in the published code, with the
        # lengths that all processes have drawn.
        mean = getattr(self, f"path_mean_{index}")
        member = _members(latents.member, mean.device)
        total, count = all_sum(_sums(lengths, member, mean))
        average = total / count.clamp_min(1)
        mean += torch.where(count > 0, self.path_decay * (average - mean), 0.0)
        error = lengths - mean[member].to(lengths)
        if not self.path_mean_detached:
            batch_mean = _mean_of_member(lengths, member)
            # The value of a is in `mean` already; this adds the gradient of decay <l> alone.
            error = error - self.path_decay * (batch_mean - batch_mean.detach())
        return self.path_every * self.path_weight * error.square()

    def start_path_means(
        self,
        G: Generator,
        space: LatentSpace,
        index: int,
        drawn: Iterable[Latents],
        draws: Draws,
    ) -> None:
        """Sets the means a of a space's members to the mean lengths of these latents.

        A generator that is trained has long paths. From a = 0, as at the start of any training,
        the first penalties would shorten them.
        """
        mean = getattr(self, f"path_mean_{index}")
        seen = mean.new_zeros(2, len(mean))
        for latents in drawn:
            y = draws.normal(*G.image_shape)
            lengths = path_lengths(G, space, latents, y.to(latents.w))
            seen += _sums(lengths, _members(latents.member, mean.device), mean)
        total, count = seen
        mean.copy_(total / count.clamp_min(1))


@lru_cache(maxsize=256)
def _members(member: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices on the device; a copy from the host cannot be part of a recorded step."""
    return torch.tensor(member, device=device)


def _sums(lengths: Tensor, member: Tensor, mean: Tensor) -> Tensor:
    """Sum and number of the lengths (B,) of each member: (2, members), as `mean` is."""
    seen = mean.new_zeros(2, len(mean))
    seen[0].index_add_(0, member, lengths.detach().to(mean))
    seen[1].index_add_(0, member, torch.ones_like(member, dtype=seen.dtype))
    return seen


def _mean_of_member(lengths: Tensor, member: Tensor) -> Tensor:
    """Mean of lengths (B,) over the samples of all processes of each sample's member (B,)."""
    alike = (member[:, None] == gathered(member)).to(lengths)
    return (alike @ gathered(lengths)) / alike.sum(1)


def gradient_norm2(D: Critic, x: Tensor) -> Tensor:
    """|grad_x D(x)|^2 for each image (B,), differentiable in D's weights."""
    x = x.detach().requires_grad_(True)
    (grad,) = torch.autograd.grad(D(x).sum(), x, create_graph=True)
    return grad.square().sum((1, 2, 3))


def path_lengths(G: Generator, space: LatentSpace, latents: Latents, y: Tensor) -> Tensor:
    """|J_w^T y| / sqrt(H W), the mean over layers inside the root (Karras et al. 2020, eq. 4).

    Args:
        latents: drawn by `space` with gradients enabled.
        y: image-space directions (B, C, H, W) ~ N(0, I).

    Returns:
        (B,), differentiable in G's weights; over all codes of a sample where it has several.
    """
    if not latents.w.requires_grad:  # w is z0 itself
        latents = latents._replace(w=latents.w.detach().requires_grad_(True))
    image = space.synthesize(G, latents)
    direction = y / math.sqrt(image.shape[2] * image.shape[3])
    (grad,) = torch.autograd.grad((image * direction).sum(), latents.w, create_graph=True)
    # w is (B, layers, w_dim) for StyleGAN2 and (B, z_dim) for a generator with one latent.
    squares = grad.square().sum(-1)
    if squares.ndim == 2:
        squares = squares.mean(1)
    if latents.counts is not None:
        squares = torch.stack([part.sum() for part in squares.split(latents.counts)])
    return squares.sqrt()
