"""Intermediate Layer Optimization (Daras et al. 2021; paper, section 2.2 and Algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

from rtil.inverters.inverter import (
    FamilyInverter,
    GeneratorInverter,
    Loss,
    Reconstruction,
    Watch,
)
from rtil.inverters.minimise import (
    Descent,
    Minimum,
    Observation,
    Schedule,
    Variable,
    minimise,
)
from rtil.inverters.prior import (
    check_map,
    common_scale,
    half_square,
    per_stage,
    prior_weight,
)
from rtil.inverters.start import best_start
from rtil.inverters.styles import Styles, draw_styles, geodesic_cross
from rtil.latents.additive import Additive
from rtil.latents.family import Family
from rtil.latents.space import Latents
from rtil.models.generator import EMPTY, Generator, State
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator


@dataclass(frozen=True)
class Stage:
    """The cut that stage k optimises at.

    state: after block k, where the stage before left it; EMPTY in stage 0.
    z: (B, C_k, H_k, W_k), a leaf that `scale` times joins its map; None in stage 0.
    """

    k: int = 0
    state: State = EMPTY
    z: Tensor | None = None
    scale: Tensor | float = 1.0

    def add(self) -> dict[int, Tensor]:
        """{k: z_k}, as Latents take it."""
        return {} if self.z is None else {self.k: self.z * self.scale}


@final
@dataclass(frozen=True)
class ILO(GeneratorInverter, FamilyInverter):
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
        candidates: 1, or how many draws of G are compared with y before stage 0, which then
            starts from the styles of the one that fits best (`rtil.inverters.start`).
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
    candidates: int = 1
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
            rates = per_stage(getattr(self, key), len(stages))
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
        if self.fit_samples < 2 or self.candidates < 1:
            raise ValueError(
                f"ILO: fit_samples={self.fit_samples} must be 2 or more, "
                f"candidates={self.candidates} 1 or more."
            )
        check_map("ILO", self.map, self.noise_std)
        later = len(stages) - 1
        if self.map_sigma is not None:
            sigmas = per_stage(self.map_sigma, later)
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
        if self.map is not None:
            self._sigmas()

    def trained_with(self, family: Family) -> ILO:
        """With `map`, the standard deviation that training gave to z_k, unless another is given.

        Raises:
            ValueError: training drew some of the z_k of the stages and not all, or not alike.
        """
        stages = range(1, len(self.stages))
        scales = {k: family.map_scale(k) for k in stages}
        drawn = {k: scale for k, scale in scales.items() if scale is not None}
        if self.map is None or self.map_sigma is not None or not drawn:
            return self
        if len(drawn) < len(scales):
            raise ValueError(
                f"ILO: inverter.map needs the standard deviation of z_1 .. z_{stages[-1]}, and "
                f"training drew z_1 .. z_{max(drawn)} (rtil.family). Shorten inverter.steps, or "
                "give inverter.map_sigma."
            )
        sigma, relative = common_scale("ILO", list(drawn.values()))
        given = self.map_relative  # may differ from training where the user says so
        return replace(self, map_sigma=sigma, map_relative=relative if given is None else given)

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
        styles = draw_styles(G, y, rngs, self.fit_samples, self.sphere)
        if self.candidates > 1:
            observation = Observation(A, y, loss)
            styles = styles.begun_at(G.map(best_start(G, observation, rngs, self.candidates)))
        stage, minima, last = Stage(), [], len(self.stages) - 1
        for k in range(last + 1):
            if k:
                stage = self._next_stage(G, styles, stage)
            # Where each stage forgets the iterates before it, only the last one's can be returned.
            shown = watch if k == last or not self.best_per_stage else None
            minima.append(self._minimise(G, Observation(A, y, loss, shown), styles, stage))
        latents = Latents(styles.w(), styles.noise, stage.add(), member=(0,) * len(y))
        return _join(minima, latents, self.best_per_stage)

    @torch.no_grad()
    def _next_stage(self, G: Generator, styles: Styles, before: Stage) -> Stage:
        """The stage after one that has ended: one block further, with z_k = 0.

        Its map has the latents' type, whatever the generator keeps its maps in.
        """
        k, state, w = before.k + 1, before.state, styles.w()
        if before.k:
            x = state.x + before.add()[before.k]
            state = state._replace(x=x, keep_rgb=self.keep_rgb)
        state = G.step(k, state, w, styles.noise or None)
        state = state._replace(x=state.x.to(w.dtype))
        scale = state.x.std((1, 2, 3), keepdim=True) if self.feature_relative else 1.0
        # From z_k = 0 the stage starts exactly where the one before ended: same image, same loss.
        return Stage(k, state, torch.zeros_like(state.x), scale)

    def _minimise(
        self, G: Generator, observation: Observation, styles: Styles, stage: Stage
    ) -> Minimum:
        """Stage k: free variables, penalty, and one call of the optimisation loop."""
        k, v = stage.k, styles.v
        # The published restart drops the image accumulated before the cut, which the next block
        # reads; after the last one there is nothing to drop.
        dropped = not self.keep_rgb and k < G.num_blocks
        start = stage.state._replace(keep_rgb=False) if dropped else stage.state
        # Styles of one layer have no angles between them.
        bends = self.geodesic and k < self.geodesic_stages and v.ndim == 3
        prior = self._prior(G, observation.loss, styles, stage)

        def render() -> tuple[Tensor, Tensor | None]:
            add = stage.add()
            latents = Latents(styles.w(), styles.noise, add, member=(0,) * len(v))
            penalty = self.geodesic * geodesic_cross(v) if bends else None
            if prior is not None:
                term = prior(add.get(k))
                penalty = term if penalty is None else penalty + term
            return Additive(k).synthesize(G, latents, k, start), penalty

        schedule = Schedule(self.rampup, self.rampdown)
        descent = Descent(self.stages[k], schedule)
        return minimise(render, self._variables(styles, stage), observation, descent)

    def _variables(self, styles: Styles, stage: Stage) -> list[Variable]:
        """What stage k moves: styles, its first noise maps, and from stage 1 on z_k."""
        k = stage.k
        style, noise, feature = (
            per_stage(rates, len(self.stages))[k]
            for rates in (self.lr_style, self.lr_noise, self.lr_feature)
        )
        variables = [Variable(styles.v, style, styles.v_radius, 1)]
        used = self._used_noise(k)
        for value, radius in zip(styles.noise[:used], styles.noise_radii[:used]):
            variables.append(Variable(value, noise, radius, 3))
        if stage.z is not None:
            ball = None
            if self.l1_radius is not None:
                # A share of |x_k|_1; z is in units of `scale`, so the ball is too.
                ball = self.l1_radius[k - 1] * (stage.state.x / stage.scale).abs().sum((1, 2, 3))
            variables.append(Variable(stage.z, feature, l1=ball))
        return variables

    def _used_noise(self, k: int) -> int:
        """Noise maps that stage k optimises, counted from the first block."""
        return self.noise_maps + k * self.noise_maps_per_stage

    def _prior(
        self, G: Generator, loss: Loss, styles: Styles, stage: Stage
    ) -> Callable[[Tensor | None], Tensor] | None:
        """Stage k's f (-log p) as a function of z_k; None without `map`."""
        weight, k = prior_weight(self.map, loss, self.noise_std), stage.k
        # On spheres the densities of v and of the noise maps are constant. After the first block
        # v acts only where blocks read styles.
        free: list[Tensor] = []
        if not self.sphere:
            free = [*styles.noise[: self._used_noise(k)]]
            if k == 0 or G.per_block_styles:
                free.append(styles.v)
        if not weight or not (k or free):
            return None
        sigma = self._sigma(stage)

        def term(z: Tensor | None) -> Tensor:
            parts = [half_square(x) for x in free]
            if z is not None:
                parts.append(half_square(z / sigma))
            return weight * sum(parts[1:], start=parts[0])

        return term

    def _sigma(self, stage: Stage) -> Tensor | float:
        """Standard deviation of z_k, in feature units."""
        if stage.k == 0:
            return 1.0
        sigma = self._sigmas()[stage.k - 1]
        if not self.map_relative:
            return sigma
        return sigma * stage.state.x.square().mean((1, 2, 3), keepdim=True).sqrt()

    def _sigmas(self) -> list[float]:
        """map_sigma of each stage from 1 on.

        Raises:
            ValueError: it was neither given nor that of training.
        """
        later = len(self.stages) - 1
        if later and self.map_sigma is None:
            raise ValueError(
                f"ILO: map={self.map} needs the standard deviation of the maps z_k. Training with "
                "a family that injects maps, such as rtil=ilo, gives them one "
                "(rtil.family.sigma) and other training none: give inverter.map_sigma=NUMBER, or "
                "leave map out."
            )
        return [] if self.map_sigma is None else per_stage(self.map_sigma, later)


def _join(minima: list[Minimum], latents: Latents, per_stage: bool) -> Reconstruction:
    """Best iterate of all stages (of the last) for each image, and the last of the last stage."""
    # Within a stage `minimise` has kept the best; a later stage replaces an image only where its
    # data term is lower.
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
