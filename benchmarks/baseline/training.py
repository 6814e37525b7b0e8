"""Training steps: every member in turn, Adam, averaged weights (paper, sections 3.1 and 3.2)."""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Training:
    """Networks, averaged generator and optimisers of either model.

    Args:
        G, D: networks; their devices and types are kept.
        settings: the `model` group of a configuration: lr, betas, ema_decay, style_mixing and the
            objective's weights and intervals.
        members: depths of G^depth (StyleGAN2) or numbers of codes (PGGAN).
        block: where codes are mixed (PGGAN).
    """

    def __init__(
        self, G: nn.Module, D: nn.Module, settings: dict, members: list[int], block: int = 0
    ) -> None:
        self.G, self.D, self.members, self.block = G, D, members, block
        self.G_ema = copy.deepcopy(G).requires_grad_(False)
        self.settings, self.objective = settings, settings["objective"]
        self.G_optim = self._adam(G, self.objective.get("path_every", 0))
        self.D_optim = self._adam(D, self.objective.get("r1_every", 0))
        self.mean_length = [torch.zeros(()) for _ in members]

    def _adam(self, network: nn.Module, every: int) -> torch.optim.Adam:
        share = every / (every + 1) if every else 1.0
        betas = tuple(beta**share for beta in self.settings["betas"])
        return torch.optim.Adam(network.parameters(), self.settings["lr"] * share, betas)

    def freeze(self, generator: bool, discriminator: bool) -> None:
        self.G.requires_grad_(not generator)
        self.D.requires_grad_(not discriminator)

    @torch.no_grad()
    def follow(self) -> None:
        decay = self.settings["ema_decay"]
        for a, p in zip(self.G_ema.parameters(), self.G.parameters()):
            a.mul_(decay).add_(p, alpha=1.0 - decay)

    def randn(self, *shape: int, rng: torch.Generator) -> Tensor:
        weight = next(self.G.parameters())
        return torch.randn(shape, generator=rng, device=rng.device).to(weight)


class StyleGAN2Training(Training):
    """Logistic loss, lazy R1 and path length (Karras et al. 2020), G^depth for each depth."""

    def draw(self, depth: int, batch: int, rng: torch.Generator) -> tuple:
        """Styles with mixing, noise maps, and maps injected after blocks 1 .. depth."""
        G = self.G
        w = G.map(self.randn(batch, G.z_dim, rng=rng))
        second = G.map(self.randn(batch, G.z_dim, rng=rng))
        mixed = torch.rand(batch, generator=rng, device=rng.device)
        cut = torch.randint(1, G.num_styles, (batch,), generator=rng, device=rng.device)
        cut[mixed >= self.settings["style_mixing"]] = G.num_styles
        keep = torch.arange(G.num_styles, device=rng.device)[None] < cut[:, None]
        w = torch.where(keep[:, :, None].to(w.device), w, second)
        noise = [self.randn(batch, 1, size, size, rng=rng) for size in G.noise_sizes]
        add = {k: self.randn(batch, *G.shapes[k], rng=rng) for k in range(1, depth + 1)}
        return w, noise, add

    def d_step(self, real: Tensor, rng: torch.Generator, step: int) -> None:
        self.freeze(generator=True, discriminator=False)
        self.D_optim.zero_grad()
        F.softplus(-self.D(real)).mean().backward()
        for depth in self.members:
            with torch.no_grad():
                fake = self.G(*self.draw(depth, len(real), rng))
            (F.softplus(self.D(fake)).mean() / len(self.members)).backward()
        self.D_optim.step()

        every = self.objective["r1_every"]
        if step % every == 0:
            self.D_optim.zero_grad()
            real = real.detach().requires_grad_(True)
            (grad,) = torch.autograd.grad(self.D(real).sum(), real, create_graph=True)
            penalty = grad.pow(2).sum((1, 2, 3)).mean()
            (self.objective["r1_weight"] / 2 * every * penalty).backward()
            self.D_optim.step()

    def g_step(self, batch: int, rng: torch.Generator, step: int) -> None:
        self.freeze(generator=False, discriminator=True)
        self.G_optim.zero_grad()
        for depth in self.members:
            fake = self.G(*self.draw(depth, batch, rng))
            (F.softplus(-self.D(fake)).mean() / len(self.members)).backward()
        self.G_optim.step()

        every = self.objective["path_every"]
        if step % every == 0:
            self.G_optim.zero_grad()
            for i, depth in enumerate(self.members):
                penalty = self.path_penalty(i, depth, rng)
                (self.objective["path_weight"] * every * penalty / len(self.members)).backward()
            self.G_optim.step()

    def path_penalty(self, i: int, depth: int, rng: torch.Generator) -> Tensor:
        """(|J_w^T y| - a)^2 with member i's running mean a (Karras et al. 2020, eq. 4)."""
        batch = self.objective["path_batch"]
        w, noise, add = self.draw(depth, batch, rng)
        image = self.G(w, noise, add)
        y = self.randn(*image.shape, rng=rng) / math.sqrt(image.shape[2] * image.shape[3])
        (grad,) = torch.autograd.grad((image * y).sum(), w, create_graph=True)
        lengths = grad.pow(2).sum(2).mean(1).sqrt()
        mean = self.mean_length[i].to(lengths)
        mean = mean + self.objective["path_decay"] * (lengths.detach().mean() - mean)
        self.mean_length[i] = mean
        return (lengths - mean).pow(2).mean()


class PGGANTraining(Training):
    """WGAN-GP with drift (Gulrajani et al. 2017), N codes for each N, a loop over the codes."""

    def draw(self, count: int, batch: int, rng: torch.Generator) -> tuple:
        """Codes and weights alpha' ~ Dir_N(1), equal over channels (paper, section 3.2)."""
        codes = [self.randn(batch, self.G.z_dim, rng=rng) for _ in range(count)]
        gamma = -torch.log1p(-torch.rand(batch, count, generator=rng, device=rng.device))
        alpha = (gamma / gamma.sum(1, keepdim=True)).to(codes[0])
        return codes, list(alpha.split(1, dim=1)), self.block

    def d_step(self, real: Tensor, rng: torch.Generator, step: int) -> None:
        self.freeze(generator=True, discriminator=False)
        self.D_optim.zero_grad()
        score = self.D(real)
        (self.objective["drift"] * score.pow(2) - score).mean().backward()
        for count in self.members:
            with torch.no_grad():
                fake = self.G(*self.draw(count, len(real), rng))
            loss = self.D(fake).mean()
            e = torch.rand(len(real), 1, 1, 1, generator=rng, device=rng.device).to(real)
            between = (e * real + (1 - e) * fake).requires_grad_(True)
            (grad,) = torch.autograd.grad(self.D(between).sum(), between, create_graph=True)
            penalty = (grad.flatten(1).norm(dim=1) - 1).pow(2).mean()
            loss = loss + self.objective["gp_weight"] * penalty
            (loss / len(self.members)).backward()
        self.D_optim.step()

    def g_step(self, batch: int, rng: torch.Generator, step: int) -> None:
        self.freeze(generator=False, discriminator=True)
        self.G_optim.zero_grad()
        for count in self.members:
            fake = self.G(*self.draw(count, batch, rng))
            (-self.D(fake).mean() / len(self.members)).backward()
        self.G_optim.step()
