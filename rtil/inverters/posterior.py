"""The posterior mean of the image, with what the generator cannot draw as a Gaussian residual.

    x = (1 - a) mu + a G(z) + r,   y = A x + e,   z ~ N(0, I),   r ~ N(0, C),   e ~ N(0, s^2 I),

where z are the first latent z0, the maps z_k / sigma_k as RTIL training draws them, and noise
maps. The generator has the share a of the standard deviation of images and the residual the rest,
C = (1 - a^2) times the covariance of training images, mu their mean: with a -> 0 the estimate is
the linear one, LMMSE. With r marginalised (`rtil.inverters.residual`) the negative log-posterior
of z is, in x' = (x - (1 - a) mu) / a = G(z) + r / a and y' = A x' + e / a,

    (y' - A G(z))^T M^-1 (y' - A G(z)) / 2 + |z|^2 / 2,    M = (A C A^T + s^2 I) / a^2.

What is known of r is in `residual`, how variables move in `minimise`, how chains make one estimate
in `chains`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, count, takewhile
from typing import final

import torch
from torch import Tensor

from rtil.inverters.chains import Chain, Draw, mixture
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
from rtil.latents.additive import Additive
from rtil.latents.family import Family
from rtil.latents.space import Latents
from rtil.models.generator import Generator
from rtil.models.layers import frozen
from rtil.operators.operator import ForwardOperator

RTO, MODES = "rto", "modes"
LINEAR = "so what it measures of a residual is not Gaussian. Use inverter=ilo or inverter=csgm."


@final
@dataclass(frozen=True)
class Posterior(FamilyInverter, FittedInverter):
    """Mean over chains of E[x | z, y]; for share a = 1, G(z) + C A^T M^-1 (y - A G(z)).

    sampler=rto, randomise then optimise (Bardsley et al. 2014): each chain draws z', r', e' from
    the model and minimises

        (y - A r' - e' - A G(z))^T M^-1 (...) / 2 + |z - z'|^2 / 2,

    from z' on. Chains come in pairs of opposite draws. With a linear G each z is a draw from the
    posterior and a pair's mean is the posterior mean; else both are approximations.
    sampler=modes: each chain is a mode, found from its own z0' and maps of 0. With `temperature` T
    the mean weighs a mode z by exp(-E / T), E the negative log-posterior above: T = 1 is the
    mixture of modes of equal width, None the plain mean.

    Args:
        steps: Adam updates of each chain.
        chains: R.
        sampler: see above.
        candidates: 1, or of how many draws of G each chain of `modes` starts from the one whose
            misfit is the lowest (`rtil.inverters.start`).
        temperature: T, see above.
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
        if self.sampler == RTO and (self.candidates > 1 or self.temperature is not None):
            raise ValueError(
                f"Posterior: candidates={self.candidates}, temperature={self.temperature} are of "
                "sampler=modes: a chain of rto starts at its own draw, and each counts alike. "
                "Give inverter.candidates=1 inverter.temperature=null beside inverter.sampler=rto."
            )
        if (self.maps or 0) < 0 or self.noise_maps < 0:
            raise ValueError(
                f"Posterior: maps={self.maps}, noise_maps={self.noise_maps} must be 0 or more."
            )
        if not 0 < self.share <= 1:
            raise ValueError(f"Posterior: share={self.share} must be above 0 and at most 1.")
        scale = self.scale
        if not (scale >= 0 and self.noise_std >= 0 and scale + self.noise_std > 0):
            raise ValueError(
                f"Posterior: residual={scale:g}, noise_std={self.noise_std} must be 0 or more, "
                "and one of them above 0: measurements are weighed by them. Of share=1 the "
                "residual is 0 unless given."
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
        residual = self._residual(self.prior, A, y, loss)
        centre = (1 - self.share) * self.prior.mean.view(G.image_shape).to(y)
        target = (y - A(centre[None])) / self.share

        def image_of(x: Tensor) -> Tensor:
            return centre + self.share * x

        chains: list[Chain] = []
        draw: Draw | None = None
        starts: Tensor | None = None
        if self.candidates > 1:
            observation = Observation(A, target, residual.misfit)
            starts = best_starts(G, observation, rngs, self.candidates, self.chains)
        for number in range(self.chains):
            # Opposite draws: what is linear in them cancels in the mean of a pair.
            pairs = self.sampler == RTO and number % 2
            draw = draw.mirrored() if draw and pairs else self._draw(G, residual, target, rngs)
            if starts is not None:
                draw.z[0] = starts[number]
            chains.append(self._chain(G, A, target, residual, draw))
            if watch is not None:
                watch(image_of(chains[-1].image))
        images = torch.stack([image_of(chain.image) for chain in chains])
        energies = torch.stack([chain.energy for chain in chains])
        image, between = mixture(images, energies, self.temperature, self.sampler == RTO)
        last = images[-1]
        if watch is not None:
            watch(image)
        std = (between + self.share**2 * residual.variance().to(between)).sqrt()
        lengths = (len(chain.history) for chain in chains[:-1])
        return Reconstruction(
            image,
            last,
            loss(A(image), y),
            loss(A(last), y),
            torch.cat([chain.history for chain in chains]),
            chains[-1].latents,
            tuple(accumulate(lengths, initial=0)),
            Spread(std, torch.stack([image_of(chain.draw) for chain in chains])),
        )

    def _residual(
        self, prior: GaussianPrior, A: ForwardOperator, y: Tensor, loss: Loss
    ) -> Residual:
        """What the seen measurements tell of r / a.

        Raises:
            ValueError: A is not linear.
        """
        kept = loss.kept if isinstance(loss, MeasurementLoss) else None
        noise = 2 * self.noise_std / self.share
        view = View(with_adjoint(A, self, LINEAR), noise, kept, y.device)
        solver = Solver(self.tolerance, self.max_steps)
        return Residual(view, prior, self.scale / self.share**2, solver)

    def _draw(
        self, G: Generator, residual: Residual, y: Tensor, rngs: Sequence[torch.Generator]
    ) -> Draw:
        """Latents, residual and noise of the model, from each image's own generator."""
        maps = [G.shapes[k] for k in range(1, (self.maps or 0) + 1)]
        z = [randn(shape, rngs, y) for shape in ((G.z_dim,), *maps, *G.noise_shapes)]
        return Draw(z, *residual.draw(rngs, y))

    def _chain(
        self, G: Generator, A: ForwardOperator, y: Tensor, residual: Residual, draw: Draw
    ) -> Chain:
        """One chain, from its draw on, in units of x'."""
        perturbed = self.sampler == RTO
        z = [value.clone() for value in draw.z]
        maps = self.maps or 0
        free = 1 + maps + self.noise_maps
        if not perturbed:
            # From its prior's mean: what a drawn map adds is not gone after so few steps.
            for value in z[1 : 1 + maps]:
                value.zero_()
        render = self._render(G, z)

        def prior() -> Tensor:
            pairs = zip(z[:free], draw.z)
            parts = [half_square(value - mean if perturbed else value) for value, mean in pairs]
            return sum(parts[1:], start=parts[0])

        def penalised() -> tuple[Tensor, Tensor]:
            return render()[0], prior()

        # The measurements less A r' + e': what the latents have to explain in this draw.
        target = y - draw.seen if perturbed else y
        variables = [Variable(value, self.lr) for value in z[:free]]
        descent = Descent(self.steps, Schedule(self.rampup, self.rampdown))
        minimum = minimise(penalised, variables, Observation(A, target, residual.misfit), descent)
        with torch.no_grad():
            image, latents = minimum.last, render()[1]
            energy = minimum.last_loss + prior()
            rest = y - A(image)
            expected = image + residual.expected(rest)
            # r' + C A^T M^-1 (y - A G(z) - A r' - e'): Matheron's draw of r given z and y.
            drawn = image + draw.r + residual.expected(rest - draw.seen)
        return Chain(expected, drawn, energy, latents, minimum.history)

    def _render(self, G: Generator, z: list[Tensor]) -> Callable[[], tuple[Tensor, Latents]]:
        """Draws G(z) and its latents from the values of z."""
        maps = self.maps or 0
        sigmas = per_stage(self.map_sigma or 1.0, maps)
        member = Additive(maps, relative=bool(self.map_relative))

        def render() -> tuple[Tensor, Latents]:
            add = {k: sigmas[k - 1] * z[k] for k in range(1, maps + 1)}
            latents = Latents(G.map(z[0]), tuple(z[1 + maps :]), add, member=(0,) * len(z[0]))
            return member.synthesize(G, latents), latents

        return render
