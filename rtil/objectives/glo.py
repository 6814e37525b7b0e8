"""Generative latent optimisation (Bojanowski et al. 2018): a code for each training image.

The codes and G are learned together, with no discriminator and no encoder:

    min over G and codes of  sum_i loss(G(z_i), x_i),  each code in its ball

With RTIL the maps z_k of the intermediate layers are codes too. A member reads those that it
injects, so that z0 and z_1 of an image are the same ones in G^1 and in G^2.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor

from rtil.kernels.upfirdn2d import fir, upfirdn2d
from rtil.latents.family import Family
from rtil.latents.space import Latents, LatentSpace
from rtil.models.generator import Generator
from rtil.objectives.objective import Assigned, Objective, Shown
from rtil.process.distributed import gathered

DISTANCES = ("laplacian", "mse")
SMALLEST = 4  # side of the last level of a pyramid
TAPS = (1.0, 4.0, 6.0, 4.0, 1.0)  # of Burt and Adelson


@final
class GLO(Objective):
    """A code for each training image, and a loss between the image and what G makes of the code.

    Codes lie in the ball that draws of the family lie in, up to a few per cent: z0 in that of
    radius sqrt(z_dim), z_k in that of radius sigma sqrt(entries of z_k). They are the paper's
    unit ball in these units, so that what draws from N(0, I), as samples and inverters do, stays
    where G was trained. Codes begin as draws. A step moves the codes of its images by

        z <- P(z - code_lr radius g / sqrt(sum of |g|^2 of this code so far)),  P onto the ball

    Differs from the paper, where all steps of codes have one length per gradient: this one does
    not depend on the unit of the loss, and still ends. Where a family has several codes an image,
    each is learned, and their weights are drawn as in any training.

    Args:
        members: number of family members of each space (not used: codes are of images).
        distance: "laplacian", see `laplacian_l1`, or "mse", the mean square over an image.
        code_lr: length of a code's first step, in radii of its ball.

    Raises:
        ValueError: another distance, or a step that is not above 0.
    """

    paired = True
    by_image = True

    def __init__(
        self, members: list[int], distance: str = "laplacian", code_lr: float = 0.2
    ) -> None:
        super().__init__()
        if distance not in DISTANCES or code_lr <= 0:
            raise ValueError(
                f"GLO: distance={distance!r} must be {' or '.join(DISTANCES)}, code_lr={code_lr} "
                "above 0."
            )
        self.distance, self.code_lr = distance, code_lr
        self.radius: dict[str, float] = {}
        self.leaves: list[tuple[str, Tensor]] = []

    def begin(self, family: Family, G: Generator, images: int) -> None:
        codes = max(member.num_codes for member in family.members)
        self._keep("z0", torch.randn(images, codes, G.z_dim), 1.0)
        for k in range(1, G.max_blocks + 1):
            scale = family.map_scale(k)
            if scale is not None:
                maps = torch.randn(images, 1, math.prod(G.shapes[k]))
                self._keep(f"z{k}", maps, scale.sigma)

    def _keep(self, name: str, draws: Tensor, sigma: float) -> None:
        """Codes (images, codes, entries) of standard normal draws, in their ball."""
        self.radius[name] = sigma * math.sqrt(draws.shape[2])
        self.register_buffer(name, into_ball(sigma * draws, self.radius[name]))
        # Sum of squared gradients of each code.
        self.register_buffer(f"{name}_seen", draws.new_zeros(draws.shape[:2]))

    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None, "its loss is of pairs"
        if self.distance == "mse":
            return (scores - real).square().mean((1, 2, 3))
        return laplacian_l1(scores - real)

    def assign(self, G: Generator, space: LatentSpace, drawn: Latents, shown: Shown) -> Assigned:
        z0 = self._leaf("z0", shown)
        if drawn.counts is None:
            codes = z0[:, 0]
        else:
            codes = torch.cat([own[:count] for own, count in zip(z0, drawn.counts)])
        add = drawn.add
        if add is not None:
            # A member of a mixture that lacks a map has zeros there.
            add = {
                k: self._leaf(f"z{k}", shown).view_as(z)
                * z.ne(0).flatten(1).any(1).view(-1, 1, 1, 1)
                for k, z in add.items()
            }
        return Assigned(drawn._replace(w=G.map(codes), add=add))

    def _leaf(self, name: str, shown: Shown) -> Tensor:
        """The codes of some images, which `settle` moves by their gradient."""
        leaf = self.get_buffer(name)[shown.index].requires_grad_()
        self.leaves.append((name, leaf))
        return leaf

    @torch.no_grad()
    def settle(self, shown: Shown) -> None:
        assert shown.index is not None, "codes are of images"
        grads: dict[str, Tensor] = {}
        for name, leaf in self.leaves:
            if leaf.grad is not None:
                # The loop takes the mean over a process's images; a code's own loss has no mean.
                grads[name] = grads.get(name, 0.0) + len(leaf) * leaf.grad
        self.leaves = []
        index = gathered(shown.index)
        # Every process moves all codes of the batch, so that they stay alike.
        for name, grad in grads.items():
            self._move(name, index, gathered(grad))

    def _move(self, name: str, index: Tensor, grad: Tensor) -> None:
        table, seen = self.get_buffer(name), self.get_buffer(f"{name}_seen")
        seen.index_add_(0, index, grad.square().sum(2))
        # 0 where nothing has depended on a code yet.
        norm = seen[index].sqrt().clamp_min(torch.finfo(seen.dtype).tiny)
        direction = grad / norm[:, :, None]
        # A batch that goes over the end of an epoch may hold an image twice.
        table.index_add_(0, index, direction, alpha=-self.code_lr * self.radius[name])
        table[index] = into_ball(table[index], self.radius[name])


def into_ball(codes: Tensor, radius: float) -> Tensor:
    """The nearest points (..., d) of the ball of this radius around 0."""
    norm = codes.norm(dim=-1, keepdim=True)
    return codes * (radius / norm.clamp_min(radius))


def laplacian_l1(difference: Tensor) -> Tensor:
    """Lap_1(x, y) = sum_j 4^j |L_j(x) - L_j(y)|_1 / pixels for each image (B,), of x - y.

    L_j is level j of the Laplacian pyramid, which is linear: what a level loses where it is
    halved, and last what is left at 4 pixels a side or at an odd one (Ling and Okada 2006, the
    loss of Bojanowski et al. 2018, section 3.2). Divided by the number of entries of an image, it
    is the sum over levels of their mean absolute differences.
    """
    levels = pyramid(difference)
    sums = [4**j * level.abs().sum((1, 2, 3)) for j, level in enumerate(levels)]
    return torch.stack(sums).sum(0) / math.prod(difference.shape[1:])


def pyramid(x: Tensor) -> list[Tensor]:
    """Levels of the Laplacian pyramid of images (B, C, H, W); black beyond their edge."""
    taps, levels = fir(TAPS).to(x), []
    while min(x.shape[2:]) > SMALLEST and all(side % 2 == 0 for side in x.shape[2:]):
        half = upfirdn2d(x, taps, down=2, padding=(2, 1))
        levels.append(x - expanded(half, taps))
        x = half
    return [*levels, x]


def expanded(x: Tensor, taps: Tensor) -> Tensor:
    """Images (B, C, H, W) at twice the side, (B, C, 2 H, 2 W)."""
    return upfirdn2d(x, taps, up=2, padding=(2, 2), gain=4.0)
