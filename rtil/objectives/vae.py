"""Variational autoencoder (Kingma and Welling 2014): an encoder, and any generator as decoder.

Training maximises the evidence lower bound of log p(x),

    E over q(z0|x) of log N(x; G(z0), s^2 I)  -  KL(q(z0|x) | N(0, I)),   q = N(mean(x), var(x))

by minimising its negative per image, in nats.
"""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn

from rtil.latents.family import Family
from rtil.latents.space import Latents, LatentSpace
from rtil.models.encoder import Encoder
from rtil.models.generator import Generator
from rtil.objectives.objective import Assigned, Objective, Shown


@final
class VAE(Objective):
    """The bound's two terms: `generator` is -log N(x; G(z), s^2 I), the cost of latents the KL.

    A family's member draws its z_k as in any training. As a model that is a decoder with latents
    z_k ~ N(0, sigma^2 I) whose posterior is taken to be their prior: their KL is 0, and the bound
    still one of log p(x). G then learns to draw x whatever z_k is. With several codes an image
    each is drawn from q(z|x) on its own and pays its KL, and their weights are drawn.

    Args:
        members: number of family members of each space (not used: nothing is kept per member).
        image_std: s, in units of [-1, 1] images; None: learned, one number, from 1.
        width: channels of the encoder at full size.

    Raises:
        ValueError: a standard deviation or width that is not above 0.
    """

    paired = True
    encoder: nn.Module

    def __init__(
        self, members: list[int], image_std: float | None = None, width: int = 32
    ) -> None:
        super().__init__()
        if (image_std is not None and image_std <= 0) or width < 1:
            raise ValueError(
                f"VAE: image_std={image_std} must be above 0 or null, width={width} 1 or more."
            )
        self.width = width
        log_std = torch.tensor(math.log(image_std or 1.0))
        self.log_std = nn.Parameter(log_std) if image_std is None else None
        self.fixed_log_std = float(log_std)

    def begin(self, family: Family, G: Generator, images: int) -> None:
        self.encoder = Encoder(G.image_shape, G.z_dim, self.width)

    def generator(self, scores: Tensor, real: Tensor | None = None) -> Tensor:
        assert real is not None, "its loss is of pairs"
        log_std = self.fixed_log_std if self.log_std is None else self.log_std
        error = (scores - real).square().sum((1, 2, 3))
        pixels = math.prod(real.shape[1:])
        std = torch.as_tensor(log_std, device=real.device).exp()
        return error / (2 * std.square()) + pixels * (log_std + math.log(2 * math.pi) / 2)

    def assign(self, G: Generator, space: LatentSpace, drawn: Latents, shown: Shown) -> Assigned:
        mean, log_std = self.encoder(shown.real).chunk(2, 1)
        counts = drawn.counts or (1,) * len(mean)
        draws = shown.draws.normal(max(counts), G.z_dim).to(mean)
        codes = mean[:, None] + log_std.exp()[:, None] * draws
        taken = torch.cat([own[:count] for own, count in zip(codes, counts)])
        kl = (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).sum(1) / 2
        if drawn.counts is not None:
            kl = torch.stack([count * own for count, own in zip(counts, kl)])
        return Assigned(drawn._replace(w=G.map(taken)), kl)
