"""Intermediate Layer Optimization (Daras et al. 2021; paper, section 2.2 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from rtil.inverters.inverter import Inverter, Loss, Reconstruction, Watch
from rtil.inverters.minimise import Minimum, Schedule, Variable, minimise, norm, randn
from rtil.inverters.prior import check_map, half_square, prior_weight
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.models.generator import EMPTY, Generator, State, StylePrior
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator
from rtil.process.rng import seeded


@dataclass(frozen=True)
class ILO(Inverter):
    """Optimises styles and noise, then block by block the feature map that crosses the cut.

    Stage 0 optimises styles w = lrelu(std v + mean) and noise maps. Stage k >= 1 freezes the
    output x_k of block k where the last stage left it and optimises z_k, starting from 0, with
    the styles and noise of later blocks: image = g_k(x_k + z_k). This is the member G^k that
    training draws, so each stage starts exactly where the one before ended.

    Differs from the published code, with the keys that restore it: the image accumulated before
    the cut is kept (keep_rgb: false drops it), and the best iterate is that of all stages
    (best_per_stage: true).

    With `map` = f every stage minimises data term + f (-log p), maximum a posteriori for the
    latents that it optimises, given those it has frozen: z_k ~ N(0, sigma_k^2 I) as RTIL training
    draws it, and v and the noise maps ~ N(0, I), so that

        -log p = ||z_k||^2 / (2 sigma_k^2) + ||v||^2 / 2 + sum_i ||n_i||^2 / 2 + const.

    The last two are constant on their spheres and so are added with sphere: false alone. f =
    "posterior" makes the sum the negative log-posterior: see `prior_weight`.

    Args:
        steps: Adam updates of each stage; one number stands for depth + 1 equal stages.
        depth: last block optimised, where steps is one number.
        lr_style, lr_noise, lr_feature: step size of v, of the noise maps and of z_k; one number,
            or one per stage (App. A.3: 0.2 for RTIL, 0.1 for vanilla models).
        feature_relative: lr_feature counts in standard deviations of x_k, image by image.
        sphere: project styles and noise maps back to their initial norm after every step
            (published code).
        geodesic: weight of the mean squared angle between styles (published code: 0.01).
        geodesic_stages: leading stages that use it (published code: in effect the first).
        l1_radius: None, or for each stage from 1 on the radius of the l1 ball that z_k is kept
            in (Daras et al. 2021, Algorithm 1), as a share of the l1 norm of x_k.
        noise_maps, noise_maps_per_stage: stage k optimises the first noise_maps +
            k noise_maps_per_stage maps (published code: 5 and 2).
        keep_rgb: see above.
        best_per_stage: each stage forgets the best iterate of those before it, so that `image`
            and what `watch` is shown are of the last stage.
        map: None, "posterior" or the factor f.
        map_sigma: sigma_k, in feature units; one number, or one per stage from 1 on.
        map_relative: map_sigma counts in units of the rms of x_k, image by image, as in Additive.
        noise_std: of the measurements, in units of the [0, 1] image; read by "posterior".
        fit_samples: draws of the Gaussian fit of the mapping network.
        rampup, rampdown: shares of each stage, see Schedule.

    Raises:
        ValueError: settings out of range.
    """

    steps: int | Sequence[int]
    depth: int = 4
    lr_style: float | Sequence[float] = 0.2
    lr_noise: float | Sequence[float] = 0.2
    lr_feature: float | Sequence[float] = 0.2
    feature_relative: bool = False
    sphere: bool = True
    geodesic: float = 0.01
    geodesic_stages: int = 1
    l1_radius: Sequence[float] | None = None
    noise_maps: int = 5
    noise_maps_per_stage: int = 2
    keep_rgb: bool = True
    best_per_stage: bool = False
    map: str | float | None = None
    map_sigma: float | Sequence[float] | None = None
    map_relative: bool | None = None
    noise_std: float = 0.0
    fit_samples: int = 100_000
    rampup: float = 0.05
    rampdown: float = 0.75

    def __post_init__(self) -> None:
        stages = self.stages
        if not stages or min(stages) < 1 or self.depth < 0:
            raise ValueError(
                f"ILO: steps={self.steps}, depth={self.depth}: steps must be 1 or more for each "
                "stage, depth 0 or more."
            )
        for key in ("lr_style", "lr_noise", "lr_feature"):
            rates = _per_stage(getattr(self, key), len(stages))
            if len(rates) != len(stages) or min(rates) < 0:
                raise ValueError(
                    f"ILO: {key}={getattr(self, key)} must be one number, or one for each of "
                    f"the {len(stages)} stages, none negative."
                )
        radii = self.l1_radius
        if radii is not None and (len(radii) != len(stages) - 1 or min(radii, default=1) <= 0):
            raise ValueError(
                f"ILO: l1_radius={list(radii)} must hold one positive number for each of the "
                f"{len(stages) - 1} stages after the first."
            )
        if self.fit_samples < 2:
            raise ValueError(f"ILO: fit_samples={self.fit_samples} must be 2 or more.")
        check_map("ILO", self.map, self.noise_std)
        later = len(stages) - 1
        if self.map is not None and later and self.map_sigma is None:
            raise ValueError(
                f"ILO: map={self.map} needs the standard deviation of the maps z_k. Training with "
                "rtil=ilo or ilo_mixture gives them one (rtil.family.sigma) and other training "
                "none: give inverter.map_sigma=NUMBER, or leave map out."
            )
        if self.map_sigma is not None:
            sigmas = _per_stage(self.map_sigma, later)
            if len(sigmas) != later or min(sigmas, default=1) <= 0:
                raise ValueError(
                    f"ILO: map_sigma={self.map_sigma} must be one number, or one for each of the "
                    f"{later} stages after the first, all above 0."
                )

    @property
    def stages(self) -> tuple[int, ...]:
        """Steps of each stage."""
        if isinstance(self.steps, int):
            return (self.steps,) * (self.depth + 1)
        return tuple(int(n) for n in self.steps)

    def check(self, G: Generator) -> None:
        if len(self.stages) - 1 > G.num_blocks:
            raise ValueError(
                f"ILO: {len(self.stages)} stages reach block {len(self.stages) - 1}, the "
                f"generator has {G.num_blocks}; shorten inverter.steps."
            )

    @frozen()
    def invert(
        self,
        G: Generator,
        A: ForwardOperator,
        y: Tensor,
        loss: Loss,
        rngs: Sequence[torch.Generator],
        watch: Watch | None = None,
    ) -> Reconstruction:
        weights = next(G.parameters())
        key = (weights.dtype, weights.device, sum(p._version for p in G.parameters()))
        prior = fit_styles(G, self.fit_samples, key)
        v = randn(G.w_shape, rngs, y)
        noise = tuple(randn(shape, rngs, y) for shape in G.noise_shapes)
        radii = None, [None] * len(noise)
        if self.sphere:
            radii = norm(v, 1), [norm(n, 3) for n in noise]
        z, state, minima = None, EMPTY, []
        for k, steps in enumerate(self.stages):
            scale = 1.0
            if k:
                state = self._advance(G, k, prior(v), noise, state, z)
                z = torch.zeros_like(state.x)
                if self.feature_relative:
                    scale = state.x.std((1, 2, 3), keepdim=True)
            shown = watch if k == len(self.stages) - 1 or not self.best_per_stage else None
            found = self._stage(
                G, A, y, loss, shown, k, steps, prior, v, noise, radii, state, z, scale
            )
            z = None if z is None else z * scale
            minima.append(found)
        k = len(self.stages) - 1
        latents = Latents(prior(v), noise, {k: z} if k else {}, member=(0,) * len(y))
        return _join(minima, latents, self.best_per_stage)

    def _stage(
        self, G, A, y, loss, watch, k, steps, prior, v, noise, radii, state, z, scale
    ) -> Minimum:
        """Stage k: free variables, penalty, and one call of the optimisation loop."""
        rate = {
            key: _per_stage(getattr(self, f"lr_{key}"), len(self.stages))[k]
            for key in ("style", "noise", "feature")
        }
        variables = [Variable(v, rate["style"], radii[0], 1)]
        used = self.noise_maps + k * self.noise_maps_per_stage
        for value, radius in list(zip(noise, radii[1]))[:used]:
            variables.append(Variable(value, rate["noise"], radius, 3))
        if k:
            l1 = None
            if self.l1_radius is not None:
                l1 = self.l1_radius[k - 1] * (state.x / scale).abs().sum((1, 2, 3))
            variables.append(Variable(z, rate["feature"], l1=l1))
        angles = self.geodesic and k < self.geodesic_stages and v.ndim == 3
        prior_term = self._prior(G, loss, k, v, noise[:used], state)
        start = state if self.keep_rgb or k == G.num_blocks else state._replace(keep_rgb=False)

        def render() -> tuple[Tensor, Tensor | None]:
            add = {k: z * scale} if k else {}
            latents = Latents(prior(v), noise, add, member=(0,) * len(v))
            penalty = self.geodesic * geodesic_cross(v) if angles else None
            if prior_term is not None:
                term = prior_term(add.get(k))
                penalty = term if penalty is None else penalty + term
            return Additive(k).synthesize(G, latents, k, start), penalty

        schedule = Schedule(self.rampup, self.rampdown)
        return minimise(render, variables, A, y, loss, steps, schedule, watch=watch)

    def _prior(
        self, G: Generator, loss: Loss, k: int, v: Tensor, noise: tuple[Tensor, ...], state: State
    ) -> Callable[[Tensor | None], Tensor] | None:
        """Stage k's f (-log p) as a function of z_k; None without `map`.

        Args:
            v, noise: free variables of the stage.
        """
        weight = prior_weight(self.map, loss, self.noise_std)
        free = [] if self.sphere else [*noise]
        if not self.sphere and (k == 0 or G.per_block_styles):
            free.append(v)
        if not weight or not (k or free):
            return None
        sigma = 1.0
        if k:
            sigma = _per_stage(self.map_sigma, len(self.stages) - 1)[k - 1]
            if self.map_relative:
                sigma = sigma * state.x.square().mean((1, 2, 3), keepdim=True).sqrt()

        def term(z: Tensor | None) -> Tensor:
            parts = [half_square(x) for x in free] + ([half_square(z / sigma)] if k else [])
            return weight * sum(parts)

        return term

    @torch.no_grad()
    def _advance(
        self,
        G: Generator,
        k: int,
        w: Tensor,
        noise: tuple[Tensor, ...],
        state: State,
        z: Tensor | None,
    ) -> State:
        """State after block k, from the state after block k - 1 and its z.

        Its map has the latents' type, whatever the generator keeps its maps in.
        """
        if z is not None:
            state = state._replace(x=state.x + z, keep_rgb=self.keep_rgb)
        state = G.step(k, state, w, noise or None)
        return state._replace(x=state.x.to(w.dtype))


@lru_cache(maxsize=1)
def fit_styles(G: Generator, num_samples: int, key: tuple) -> StylePrior:
    """G.style_prior on its own fixed draws, fitted once for all batches of a run.

    Args:
        key: type, device and version of the weights; a change fits anew.
    """
    return G.style_prior(num_samples, seeded("cpu", "style prior"))


def geodesic_cross(v: Tensor) -> Tensor:
    """Mean over pairs of layers of the squared angle between styles (published code).

    Args:
        v: (B, layers, w_dim).

    Returns:
        (B,): w_dim / 8 times the mean of angle^2.
    """
    a, b = v[:, :, None], v[:, None]
    minus = ((a - b).square().sum(-1) + 1e-9).sqrt()
    plus = ((a + b).square().sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(minus, plus)
    return angle.square().mean((1, 2)) * v.shape[-1] / 8


def _per_stage(value: float | Sequence[float], stages: int) -> list[float]:
    one = isinstance(value, (int, float))
    return [float(value)] * stages if one else [float(x) for x in value]


def _join(minima: list[Minimum], latents: Latents, per_stage: bool) -> Reconstruction:
    """Best iterate of all stages (of the last) for each image, and the last of the last stage."""
    first, *later = minima[-1:] if per_stage else minima
    best, best_loss = first.best, first.best_loss
    for found in later:
        better = found.best_loss < best_loss
        best = torch.where(better.view(-1, 1, 1, 1), found.best, best)
        best_loss = torch.where(better, found.best_loss, best_loss)
    history = torch.cat([found.history for found in minima])
    starts = tuple(accumulate((len(found.history) for found in minima[:-1]), initial=0))
    return Reconstruction(
        best, minima[-1].last, best_loss, minima[-1].last_loss, history, latents, starts
    )
