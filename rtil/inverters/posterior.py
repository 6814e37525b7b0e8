"""The posterior mean of the image, with what the generator cannot draw as a Gaussian residual.

    x = m(z) + r,   m(z) = (1 - a) mu + a G(z),   y = A x + e,
    z ~ N(0, I),    r ~ N(0, C),                  e ~ N(0, s^2 I),

where z are the first latent z0, the maps z_k / sigma_k as RTIL training draws them, and noise
maps, and mu is the mean of the training images. The generator has the share a of the standard
deviation of images. The residual has the rest, unless told otherwise: C is 1 - a^2 times the
covariance of the training images. With a -> 0 the estimate is the linear one, LMMSE.

With r marginalised (`rtil.inverters.residual`) the negative log-posterior of z is

    (y - A m(z))^T M^-1 (y - A m(z)) / 2 + |z|^2 / 2,    M = A C A^T + s^2 I.

What is known of r is in `residual`, how variables move in `minimise`, how chains make one estimate
in `chains`. To add a sampler, write what its chains start from and minimise in `Posterior._chain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count, takewhile
from typing import final

import torch
from torch import Tensor

from rtil.inverters.chains import Chain, Draw, Model, mean_of
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import (
    FamilyInverter,
    FittedInverter,
    Loss,
    Reconstruction,
    Spread,
    Watch,
    with_adjoint,
)
from rtil.inverters.lmmse import GaussianPrior
from rtil.inverters.minimise import (
    Descent,
    Observation,
    Schedule,
    Variable,
    minimise,
    randn,
)
from rtil.inverters.prior import common_scale, half_square, per_stage
from rtil.inverters.residual import Residual, Solver, View
from rtil.inverters.start import best_starts
from rtil.latents.family import Family
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator

RTO, MODES = "rto", "modes"
MOST = 10**6  # draws that chains compare with y, all together
LINEAR = "so what it measures of a residual is not Gaussian. Use inverter=ilo or inverter=csgm."


@final
@dataclass(frozen=True)
class Posterior(FamilyInverter, FittedInverter):
    """Mean over chains of E[x | z, y] = m(z) + C A^T M^-1 (y - A m(z)).

    sampler=rto, randomise then optimise (Bardsley et al. 2014): each chain draws z', r', e' from
    the model and minimises

        (y - A r' - e' - A m(z))^T M^-1 (...) / 2 + |z - z'|^2 / 2,

    from z' on. Chains come in pairs of opposite draws. With a linear G each z is a draw from the
    posterior and a pair's mean is the posterior mean; else both are approximations.
    sampler=modes: each chain is a mode, found from its own z0' and maps of 0. With `temperature` T
    the mean weighs a mode z by exp(-E / T), E the negative log-posterior above: T = 1 is the
    mixture of modes of equal width, None the plain mean.

    Args:
        steps: Adam updates of each chain.
        chains: R.
        sampler: see above.
        candidates: 1, or of how many draws of G each chain of `modes` starts from the one that is
            nearest to y (`rtil.inverters.start`).
        temperature: T of `modes`, see above.
        lr: step size of all latents, in standard deviations of their priors.
        maps: z_1 .. z_maps are latents; None: those that training drew.
        map_sigma: sigma_k, in feature units; one number or one for each map; None: as in training.
        map_relative: map_sigma counts in units of the rms of the map that z_k joins; None: as in
            training.
        noise_maps: the first so many noise maps are latents; the others stay as a chain draws
            them.
        share: a of the generator, above 0 up to 1.
        residual: C is so many times the covariance of the training images; None: 1 - a^2.
        noise_std: of the measurements, in units of the [0, 1] image (s = 2 noise_std).
        tolerance, max_steps: of the solver where M is not factored.
        rampup, rampdown: shares of the steps, see Schedule.
        prior: covariance of the training images; None until `fit`.

    Raises:
        ValueError: settings out of range.
    """

    steps: int
    chains: int = 4
    sampler: str = MODES
    candidates: int = 1
    temperature: float | None = None
    lr: float = 0.1
    maps: int | None = None
    map_sigma: float | Sequence[float] | None = None
    map_relative: bool | None = None
    noise_maps: int = 0
    share: float = 0.5
    residual: float | None = None
    noise_std: float = 0.0
    tolerance: float = 1e-6
    max_steps: int = 3000
    rampup: float = 0.05
    rampdown: float = 0.75
    prior: GaussianPrior | None = None

    needs_generator = True
    has_chains = True

    def __post_init__(self) -> None:
        if not (self.steps >= 1 and self.chains >= 1 and self.lr > 0):
            raise ValueError(
                f"Posterior: steps={self.steps}, chains={self.chains} must be 1 or more, "
                f"lr={self.lr} above 0."
            )
        if self.sampler not in (RTO, MODES):
            raise ValueError(f"Posterior: sampler={self.sampler} must be {RTO} or {MODES}.")
        if self.candidates < 1 or not (self.temperature is None or self.temperature > 0):
            raise ValueError(
                f"Posterior: candidates={self.candidates} must be 1 or more, "
                f"temperature={self.temperature} above 0, or null."
            )
        if self.chains * self.candidates > MOST:
            raise ValueError(
                f"Posterior: chains={self.chains} times candidates={self.candidates} must be at "
                f"most {MOST}; so many images are drawn."
            )
        if (self.maps or 0) < 0 or self.noise_maps < 0:
            raise ValueError(
                f"Posterior: maps={self.maps}, noise_maps={self.noise_maps} must be 0 or more."
            )
        if not (0 < self.share <= 1 and self.scale >= 0 and self.noise_std >= 0):
            raise ValueError(
                f"Posterior: share={self.share} must be above 0 and at most 1, "
                f"residual={self.residual} and noise_std={self.noise_std} must be 0 or more."
            )
        if self.scale == 0 == self.noise_std:
            raise ValueError(
                f"Posterior: share={self.share}, residual={self.residual} and noise_std=0 leave "
                "nothing to weigh measurements by: it must be a share below 1, or a residual or "
                "noise_std above 0."
            )
        sigmas = [] if self.map_sigma is None else per_stage(self.map_sigma, self.maps or 0)
        if min(sigmas, default=1) <= 0 or (self.maps and sigmas and len(sigmas) != self.maps):
            raise ValueError(
                f"Posterior: map_sigma={self.map_sigma} must be one number, or one for each of "
                f"the {self.maps} maps, all above 0."
            )

    @property
    def scale(self) -> float:
        """C, in units of the covariance of the training images."""
        return 1 - self.share**2 if self.residual is None else self.residual

    def check(self, G: Generator) -> None:
        maps = self.maps or 0
        if maps > G.num_blocks:
            raise ValueError(
                f"Posterior: maps={maps} asks for a map after block {maps}, the generator has "
                f"{G.num_blocks}; lower inverter.maps."
            )
        if maps and self.map_sigma is None:
            raise ValueError(
                f"Posterior: maps={maps} needs the standard deviation of z_k. Training with a "
                "family that injects maps, such as rtil=ilo, gives them one (rtil.family.sigma) "
                "and other training none: give inverter.map_sigma=NUMBER, or inverter.maps=0."
            )
        if self.noise_maps > len(G.noise_shapes):
            raise ValueError(
                f"Posterior: noise_maps={self.noise_maps}, the generator has "
                f"{len(G.noise_shapes)}; lower inverter.noise_maps."
            )

    def check_operator(self, A: ForwardOperator) -> None:
        """Raises ValueError where A is not linear."""
        with_adjoint(A, self, LINEAR)

    def trained_with(self, family: Family) -> Posterior:
        """With the maps that training drew, and their standard deviations, unless given.

        Raises:
            ValueError: training drew some of the maps asked for and not all, or not alike.
        """
        drawn = [*takewhile(lambda k: family.map_scale(k) is not None, count(1))]
        maps = len(drawn) if self.maps is None else self.maps
        scales = [family.map_scale(k) for k in range(1, maps + 1)]
        trained = [scale for scale in scales if scale is not None]
        if self.map_sigma is not None or not trained:
            return replace(self, maps=maps)
        if len(trained) < maps:
            raise ValueError(
                f"Posterior: inverter.maps={maps} needs the standard deviation of z_1 .. z_{maps},"
                f" and training drew z_1 .. z_{len(trained)} (rtil.family). Lower inverter.maps, "
                "or give inverter.map_sigma."
            )
        sigma, relative = common_scale("Posterior", trained)
        given = self.map_relative
        return replace(
            self,
            maps=maps,
            map_sigma=sigma,
            map_relative=relative if given is None else given,
        )

    def fit(self, images: Tensor) -> Posterior:
        """With the covariance of images (N, C, H, W) in [-1, 1].

        Raises:
            ValueError: fewer than two images.
        """
        return replace(self, prior=GaussianPrior(images))

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
        """As Inverter.invert; of `loss` it takes which entries of y may be seen.

        Raises:
            ValueError: it was not fitted, or A is not linear.
        """
        if self.prior is None:
            raise ValueError(
                "Posterior: it knows no training images yet; use what fit(images) returns."
            )
        residual = self._residual(self.prior, A, loss, y.device)
        model = self._model(G, self.prior)
        starts = self._starts(model, A, y, residual, rngs)
        chains: list[Chain] = []
        draw: Draw | None = None
        for number in range(self.chains):
            if draw is not None and self.sampler == RTO and number % 2:
                # Opposite draws: what is linear in them cancels in the mean of a pair.
                draw = draw.mirrored()
            else:
                draw = self._draw(G, residual, y, rngs)
            chains.append(self._chain(model, A, y, residual, draw, starts[number]))
            if watch is not None:
                watch(chains[-1].image)

        temperature = self.temperature if self.sampler == MODES else None
        image, between = mean_of(chains, temperature, self.sampler == RTO)
        if watch is not None:
            watch(image)
        last = chains[-1]
        lengths = (len(chain.history) for chain in chains[:-1])
        return Reconstruction(
            image,
            last.image,
            loss(A(image), y),
            loss(A(last.image), y),
            torch.cat([chain.history for chain in chains]),
            last.latents,
            tuple(accumulate(lengths, initial=0)),
            Spread(
                (between + residual.variance().to(between)).sqrt(),
                torch.stack([chain.draw for chain in chains]),
            ),
        )

    def _residual(
        self, prior: GaussianPrior, A: ForwardOperator, loss: Loss, device: torch.device
    ) -> Residual:
        """What the seen measurements tell of r.

        Raises:
            ValueError: A is not linear.
        """
        kept = loss.kept if isinstance(loss, MeasurementLoss) else None
        view = View(with_adjoint(A, self, LINEAR), 2 * self.noise_std, kept, device)
        return Residual(view, prior, self.scale, Solver(self.tolerance, self.max_steps))

    def _model(self, G: Generator, prior: GaussianPrior) -> Model:
        sigmas = per_stage(self.map_sigma or 1.0, self.maps or 0)
        mu = prior.mean.view(G.image_shape).to(next(G.parameters()))
        return Model(G, mu, self.share, sigmas, bool(self.map_relative))

    def _starts(
        self,
        model: Model,
        A: ForwardOperator,
        y: Tensor,
        residual: Residual,
        rngs: Sequence[torch.Generator],
    ) -> Sequence[Tensor | None]:
        """For each chain where z0 starts (B, z_dim), None: at its draw."""
        if self.sampler == RTO or self.candidates == 1:
            return [None] * self.chains
        observation = Observation(A, y, residual.nearness)
        return [*best_starts(model, observation, rngs, self.candidates, self.chains)]

    def _draw(
        self, G: Generator, residual: Residual, y: Tensor, rngs: Sequence[torch.Generator]
    ) -> Draw:
        """Latents, residual and noise of the model, from each image's own generator."""
        maps = [G.shapes[k] for k in range(1, (self.maps or 0) + 1)]
        z = [randn(shape, rngs, y) for shape in ((G.z_dim,), *maps, *G.noise_shapes)]
        return Draw(z, *residual.draw(rngs, y))

    def _chain(
        self,
        model: Model,
        A: ForwardOperator,
        y: Tensor,
        residual: Residual,
        draw: Draw,
        start: Tensor | None,
    ) -> Chain:
        """One chain, from its draw on, or from another z0."""
        perturbed = self.sampler == RTO
        z = [value.clone() for value in draw.z]
        free = 1 + len(model.sigmas) + self.noise_maps
        if not perturbed:
            # From its prior's mean: what a drawn map adds is not gone after so few steps.
            for value in z[1 : 1 + len(model.sigmas)]:
                value.zero_()
        if start is not None:
            z[0].copy_(start)

        def prior() -> Tensor:
            pairs = zip(z[:free], draw.z)
            parts = [half_square(value - mean if perturbed else value) for value, mean in pairs]
            return sum(parts[1:], start=parts[0])

        def penalised() -> tuple[Tensor, Tensor]:
            return model.render(z)[0], prior()

        # The measurements less A r' + e': what the latents have to explain in this draw.
        target = y - draw.seen if perturbed else y
        variables = [Variable(value, self.lr) for value in z[:free]]
        descent = Descent(self.steps, Schedule(self.rampup, self.rampdown))
        minimum = minimise(penalised, variables, Observation(A, target, residual.misfit), descent)
        with torch.no_grad():
            image, latents = minimum.last, model.render(z)[1]
            energy = minimum.last_loss + prior()
            rest = y - A(image)
            expected = image + residual.expected(rest)
            # r' + C A^T M^-1 (y - A m(z) - A r' - e'): Matheron's draw of r given z and y.
            drawn = image + draw.r + residual.expected(rest - draw.seen)
        return Chain(expected, drawn, energy, latents, minimum.history)
