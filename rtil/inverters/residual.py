"""What a generator cannot draw: a Gaussian residual r ~ N(0, C) beside its image.

With x = G(z) + r and y = A x + e, e ~ N(0, s^2 I), the measurements given z are Gaussian,

    y | z ~ N(A G(z), M),    M = A C A^T + s^2 I,

and so is the residual given z and y,

    E[r | z, y] = C A^T M^-1 (y - A G(z)),    Cov[r | z, y] = C - C A^T M^-1 A C.

M is factored where it is small and solved by conjugate gradients where not. Priors of latents are
in `rtil.inverters.prior`, the covariance of images in `rtil.inverters.lmmse`.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from rtil.inverters.lmmse import GaussianPrior, conjugate_gradient
from rtil.inverters.minimise import randn
from rtil.operators.operator import LinearOperator
from rtil.process.rng import seeded

LARGEST = 2**25  # numbers of A C that are kept, 268 MB: 64x64 images at any m
CHUNK = 256  # rows of it computed at a time
DRAWS = 64  # of r, for its variance where A C is not kept: 9 % of the standard deviation


@dataclass(frozen=True)
class Solver:
    """How exactly conjugate gradients solve: relative residual, and cap on their steps."""

    tolerance: float = 1e-6
    max_steps: int = 3000


class View:
    """The seen entries of A x + e, as rows of float64.

    Args:
        A: linear operator.
        s: standard deviation of e, in units of the [-1, 1] image.
        kept: bool, broadcastable to `A.out_shape`, entries that may be looked at; None: all.
        device: of the work.

    Raises:
        ValueError: no entry is seen.
    """

    def __init__(
        self, A: LinearOperator, s: float, kept: Tensor | None, device: torch.device
    ) -> None:
        self.A, self.s = copy.deepcopy(A).to(device).double(), s
        seen = torch.ones(A.out_shape, dtype=torch.bool, device=device)
        for mask in (A.observed, kept):
            if mask is not None:
                seen = seen & mask.to(device)
        self.index = seen.flatten().nonzero()[:, 0]
        if not len(self.index):
            raise ValueError(f"Posterior: {type(A).__name__} leaves no entry of y to look at.")

    def rows(self, y: Tensor) -> Tensor:
        """The seen entries (B, m) of measurements (B, *out_shape)."""
        return y.flatten(1)[:, self.index]

    def forward(self, x: Tensor) -> Tensor:
        """A x (B, m) for rows x (B, n)."""
        return self.rows(self.A(x.view(-1, *self.A.in_shape)))

    def adjoint(self, v: Tensor) -> Tensor:
        """A^T v (B, n) for rows v (B, m)."""
        y = v.new_zeros(len(v), torch.Size(self.A.out_shape).numel())
        y[:, self.index] = v
        return self.A.adjoint(y.view(-1, *self.A.out_shape)).flatten(1)


class Marginal(ABC):
    """M = A C A^T + s^2 I, for rows (B, m) of seen entries."""

    @abstractmethod
    def half_form(self, rest: Tensor) -> Tensor:
        """rest^T M^-1 rest / 2, (B,), in the type of `rest`; differentiable."""

    @abstractmethod
    def solve(self, rest: Tensor) -> Tensor:
        """M^-1 rest, (B, m), float64."""

    @abstractmethod
    def variance(self) -> Tensor:
        """The diagonal of C - C A^T M^-1 A C, (n,)."""


@final
class Factored(Marginal):
    """M = L L^T, with A C kept."""

    def __init__(self, view: View, prior: GaussianPrior, scale: float) -> None:
        identity = torch.eye(len(view.index), dtype=torch.float64, device=view.index.device)
        chunks = [prior.covariance(view.adjoint(rows)) for rows in identity.split(CHUNK)]
        gain = scale * torch.cat(chunks)
        M = view.forward(gain) + view.s**2 * identity
        # Rounding leaves M unlike its transpose, and Cholesky reads one half of it alone.
        self.factor = torch.linalg.cholesky((M + M.T) / 2)
        whitened = torch.linalg.solve_triangular(self.factor, gain, upper=False)
        self._variance = scale * prior.variance - whitened.square().sum(0)
        # L^-1 is formed once: the data term of every step is then a matrix product in the type of
        # the generator, where a triangular solve would run in double.
        self._inverse = torch.linalg.solve_triangular(self.factor, identity, upper=False)
        self._whitening: dict[torch.dtype, Tensor] = {}

    def half_form(self, rest: Tensor) -> Tensor:
        if rest.dtype not in self._whitening:
            self._whitening[rest.dtype] = self._inverse.to(rest.dtype)
        return (rest @ self._whitening[rest.dtype].T).square().sum(1) / 2

    def solve(self, rest: Tensor) -> Tensor:
        return torch.cholesky_solve(rest.double().T, self.factor).T

    def variance(self) -> Tensor:
        return self._variance.clamp_min(0)


@final
class Iterated(Marginal):
    """M as a product, solved by conjugate gradients."""

    def __init__(self, view: View, prior: GaussianPrior, scale: float, solver: Solver) -> None:
        self.view, self.prior, self.scale, self.solver = view, prior, scale, solver

    def half_form(self, rest: Tensor) -> Tensor:
        with torch.no_grad():
            dual = self.solve(rest).to(rest)
        # Its gradient is M^-1 rest: that of the quadratic form, without one through the solver.
        product = (rest * dual).sum(1)
        return product - product.detach() / 2

    def solve(self, rest: Tensor) -> Tensor:
        view, prior, solver = self.view, self.prior, self.solver

        def normal(v: Tensor) -> Tensor:
            explained = self.scale * prior.covariance(view.adjoint(v))
            return view.forward(explained) + view.s**2 * v

        return conjugate_gradient(normal, rest.double(), solver.tolerance, solver.max_steps)

    def variance(self) -> Tensor:
        # It depends on neither z nor y, so a few draws serve every image.
        view, prior = self.view, self.prior
        rngs = [seeded("cpu", "residual", number) for number in range(DRAWS)]
        r = self.scale**0.5 * prior.draw(rngs)
        seen = view.forward(r) + view.s * randn((len(view.index),), rngs, r)
        r = r - self.scale * prior.covariance(view.adjoint(self.solve(seen)))
        return r.square().mean(0)


@final
class Residual:
    """r ~ N(0, scale C) as the seen measurements tell of it.

    Args:
        view: what is measured, and its noise.
        prior: its covariance C is that of r; its mean is not used.
        scale: see above.
        solver: of M where A C has more than `largest` numbers.
    """

    def __init__(
        self,
        view: View,
        prior: GaussianPrior,
        scale: float,
        solver: Solver = Solver(),
        largest: int = LARGEST,
    ) -> None:
        self.view, self.scale = view, scale
        self.prior = prior.to(view.index.device)
        # With A C at hand its rows give every E[r | z, y] and the exact variance.
        small = len(view.index) * len(prior.mean) <= largest
        self.marginal: Marginal
        if small:
            self.marginal = Factored(view, self.prior, scale)
        else:
            self.marginal = Iterated(view, self.prior, scale, solver)

    def misfit(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """(y - y_hat)^T M^-1 (y - y_hat) / 2 of measurements (B, *out_shape), (B,)."""
        return self.marginal.half_form(self.view.rows(y - y_hat))

    def nearness(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """What ranks draws of a generator by their measurements, (B,).

        The misfit, or the squared error where each misfit takes a solver: draws are thousands.
        """
        if isinstance(self.marginal, Factored):
            return self.misfit(y_hat, y)
        return self.view.rows(y - y_hat).square().sum(1)

    def expected(self, rest: Tensor) -> Tensor:
        """C A^T M^-1 rest (B, C, H, W) for y - A G(z) = rest (B, *out_shape)."""
        dual = self.marginal.solve(self.view.rows(rest))
        r = self.scale * self.prior.covariance(self.view.adjoint(dual))
        return r.view(-1, *self.view.A.in_shape).to(rest)

    def draw(self, rngs: Sequence[torch.Generator], y: Tensor) -> tuple[Tensor, Tensor]:
        """r ~ N(0, C) (B, C, H, W), and A r + e (B, *out_shape), in the type of y."""
        r = (self.scale**0.5 * self.prior.draw(rngs)).view(-1, *self.view.A.in_shape)
        e = randn(self.view.A.out_shape, rngs, r)
        return r.to(y), (self.view.A(r) + self.view.s * e).to(y)

    def variance(self) -> Tensor:
        """The diagonal of Cov[r | z, y], (C, H, W)."""
        return self.marginal.variance().view(self.view.A.in_shape)
