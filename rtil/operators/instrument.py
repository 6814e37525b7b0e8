"""What code of others measures, as operators: a module that promises nothing is looked at first.

Lives here: `Instrument`, which says how such code is asked, and `operator_of`, which finds out by
measuring a few drawn images what rtil's own operators declare: the shape of y, whether A is
linear, which entries of y carry information. A^T is A's transpose by differentiation, in float32
and in float64, whatever adjoint the code has of its own. How deepinv is asked is
in `rtil.operators.deepinv`. To add another library, write a subclass of `Instrument` beside that.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import ceil, prod
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rtil.operators.operator import ForwardOperator, LinearOperator, with_peak_one
from rtil.process.brief import reason

TOLERANCE = 1e-4  # of float32 measurements, relative to their norm
MARGIN = 0.01  # by which a picture may leave its range
SAMPLES = 3  # drawn images


class Instrument(nn.Module, ABC):
    """Code that measures images in [-1, 1], which may know float32 alone.

    Args:
        name: of what measures, for messages.
    """

    carries_double: bool
    unit: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.carries_double = True
        # Of the type and on the device of what measures.
        self.register_buffer("unit", torch.zeros(()), persistent=False)

    @abstractmethod
    def measure(self, x: Tensor) -> Tensor:
        """y = A(x), real, for x (B, C, H, W) in [-1, 1] of the type of `unit`."""

    def forward(self, x: Tensor) -> Tensor:
        """y in the type of x, computed in that of `unit`."""
        return self.measure(x.to(self.unit.dtype)).to(x.dtype)

    @final
    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Instrument:
        """As every module's; float32 stays where `.double()` would leave a part of it behind."""
        super()._apply(fn, recurse)
        if self.unit.dtype == torch.float64 and not self.carries_double:
            super()._apply(lambda t: t.float() if t.is_floating_point() else t, recurse)
        return self


@final
class ModuleInstrument(Instrument):
    """A torch.nn.Module that takes images in [-1, 1]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(type(module).__name__)
        self.module = module

    def measure(self, x: Tensor) -> Tensor:
        return real(self.module(x))


class Facts(NamedTuple):
    """What was found out of an instrument; names as in `ForwardOperator`."""

    out_shape: tuple[int, ...]
    linear: bool
    observed: Tensor | None
    measures_images: bool


@final
class ForeignOperator(ForwardOperator):
    """y = A(x) of an instrument that is not linear."""

    def __init__(self, in_shape: Sequence[int], instrument: Instrument, facts: Facts) -> None:
        super().__init__(
            in_shape,
            facts.out_shape,
            measures_images=facts.measures_images,
            name=instrument.name,
        )
        self.instrument = instrument

    def forward(self, x: Tensor) -> Tensor:
        """y = A(x), shape (B, *out_shape)."""
        self.check_input(x)
        return self.instrument(x)

    def measurement_image(self, y: Tensor) -> Tensor:
        """y if it is an image, else its entries row by row in a square, with peak 1."""
        self.check_measurement(y)
        if self.measures_images:
            return y
        count = prod(self.out_shape)
        side = ceil(count**0.5)
        return with_peak_one(F.pad(y.flatten(1), (0, side**2 - count)).view(-1, 1, side, side))


@final
class ForeignLinear(LinearOperator):
    """y = A x of an instrument that is linear; A^T is the transpose of its derivative."""

    def __init__(self, in_shape: Sequence[int], instrument: Instrument, facts: Facts) -> None:
        super().__init__(
            in_shape,
            facts.out_shape,
            measures_images=facts.measures_images,
            observed=facts.observed,
            name=instrument.name,
        )
        self.instrument = instrument

    def forward(self, x: Tensor) -> Tensor:
        """y = A x, shape (B, *out_shape)."""
        self.check_input(x)
        return self.instrument(x)

    def adjoint(self, y: Tensor) -> Tensor:
        """A^T y, shape (B, C, H, W)."""
        self.check_measurement(y)
        differentiable = torch.is_grad_enabled() and y.requires_grad
        with torch.enable_grad():
            x = y.new_zeros(len(y), *self.in_shape).requires_grad_()
            (image,) = torch.autograd.grad(self.instrument(x), x, y, create_graph=differentiable)
        return image


def operator_of(instrument: Instrument, in_shape: Sequence[int]) -> ForwardOperator:
    """The operator of an instrument for images of one shape.

    Args:
        in_shape: (C, H, W).

    Raises:
        ValueError: it does not measure such images, draws random numbers when it measures, has
            parameters for several images, mixes images of a batch, or has no gradient, or another
            gradient than its own.
    """
    instrument.requires_grad_(False)
    facts = examine(instrument, in_shape)
    instrument.carries_double = carries_double(instrument, in_shape)
    if not facts.linear:
        return ForeignOperator(in_shape, instrument, facts)
    operator = ForeignLinear(in_shape, instrument, facts)
    _check_adjoint(operator)
    return operator


def drawn(in_shape: Sequence[int], count: int = SAMPLES) -> Tensor:
    """Images (count, C, H, W) with pixels drawn uniformly from [-1, 1], always the same."""
    rng = torch.Generator().manual_seed(0)
    return 2 * torch.rand(count, *in_shape, generator=rng) - 1


def real(y: object) -> Tensor:
    """A measurement in real numbers: complex ones with real and imaginary part as last axis.

    Raises:
        TypeError: it is no tensor.
    """
    if not isinstance(y, Tensor):
        raise TypeError(
            f"measures a {type(y).__name__}; rtil inverts one tensor: choose one measurement of it"
        )
    return torch.view_as_real(y) if y.is_complex() else y


def is_linear(measure: Callable[[Tensor], Tensor], x: Tensor) -> bool:
    """Whether measure(2.5 u - v) = 2.5 measure(u) - measure(v) for two drawn images."""
    u, v = x[:1], x[1:2]
    whole = measure(2.5 * u - v)
    off = whole - (2.5 * measure(u) - measure(v))
    return bool(off.norm() <= TOLERANCE * whole.norm())


def examine(instrument: Instrument, in_shape: Sequence[int]) -> Facts:
    """What measuring drawn images says of an instrument.

    Raises:
        ValueError: as `operator_of`.
    """
    name = instrument.name
    x = drawn(in_shape).to(instrument.unit)
    y = torch.cat([_alone(instrument, image[None]) for image in x])
    _check_alike(y[:1], _measured(instrument, x[:1]), f"{name} draws random numbers each time")
    at_once = _measured(instrument, x)
    _check_alike(y, at_once, f"{name} measures an image otherwise in a batch than alone")
    _check_gradient(instrument, x[:1])
    out_shape = tuple(y.shape[1:])
    linear = is_linear(instrument, x)
    observed = None
    if linear:
        # Of drawn images, an entry is exactly 0 only where no pixel enters it.
        seen = (y != 0).any(0)
        observed = None if bool(seen.all()) else seen
    as_picture = len(out_shape) == 3 and out_shape[0] == in_shape[0]
    if linear:
        # Entries are averages of pixels, or empty, where a white image measures 0 to 1.
        white = _measured(instrument, torch.ones_like(x[:1]))
        fits = bool((white >= -MARGIN).all() and (white <= 1 + MARGIN).all())
    else:
        fits = bool((y.abs() <= 1 + MARGIN).all())
    return Facts(out_shape, linear, observed, as_picture and fits)


def carries_double(instrument: Instrument, in_shape: Sequence[int]) -> bool:
    """Whether `.double()` reaches all that measures, and differentiates, in float64."""
    x = drawn(in_shape, 1).to(instrument.unit)
    try:
        other = copy.deepcopy(instrument).double()
        wide = x.double().requires_grad_()
        y = other.measure(wide)
        y.square().sum().backward()
    # Code of others raises whatever it likes where float32 and float64 meet.
    except Exception:
        return False
    with torch.no_grad():
        near = _is_near(y, instrument(x).double())
    return y.dtype == torch.float64 and near


def _check_adjoint(A: ForeignLinear) -> None:
    """Raises ValueError unless <A x, y> = <x, A^T y>: code may say its derivative by hand."""
    x = drawn(A.in_shape, 1).to(A.instrument.unit)
    y = drawn((1, 1, prod(A.out_shape)), 1).to(x).view(1, *A.out_shape)
    measured = A(x)
    gap = (measured * y).sum() - (x * A.adjoint(y)).sum()
    share = float(gap.abs() / (measured.norm() * y.norm()))
    if not share <= TOLERANCE:
        raise ValueError(
            f"{A.instrument.name} has a gradient that is not that of what it measures: <A x, y> "
            f"and <x, A^T y> differ by {share:.2g} of |A x| |y|."
        )


def _measured(instrument: Instrument, x: Tensor) -> Tensor:
    """y of some images; ValueError where there is none."""
    shape = tuple(x.shape[1:])
    try:
        with torch.no_grad():
            y = instrument(x)
    # Code of others raises whatever it likes.
    except Exception as error:
        raise ValueError(
            f"{instrument.name} does not measure images of shape {shape} in batches of {len(x)}, "
            f"as the generator draws them ({reason(error)})."
        ) from error
    if not bool(torch.isfinite(y).all()):
        raise ValueError(f"{instrument.name} measures what is not finite of images {shape}.")
    return y


def _alone(instrument: Instrument, x: Tensor) -> Tensor:
    """y of one image; ValueError where it is of another number of images."""
    y = _measured(instrument, x)
    if y.ndim < 2 or len(y) != 1:
        raise ValueError(
            f"{instrument.name} measures {tuple(y.shape)} of one image, with the batch first: its "
            "parameters, such as a mask, must be those of one image."
        )
    return y


def _check_alike(y: Tensor, other: Tensor, what: str) -> None:
    if y.shape != other.shape or not _is_near(other, y):
        raise ValueError(f"{what}; an operator of rtil is one and the same for every image.")


def _is_near(y: Tensor, other: Tensor) -> bool:
    return bool((y - other).norm() <= TOLERANCE * other.norm())


def _check_gradient(instrument: Instrument, x: Tensor) -> None:
    """Raises ValueError where inversions, which follow the gradient, have none to follow."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        y = instrument(x)
        gradient = None
        if y.requires_grad:
            (gradient,) = torch.autograd.grad(y.square().sum(), x, allow_unused=True)
    if gradient is None or not bool(torch.isfinite(gradient).all()):
        raise ValueError(
            f"{instrument.name} has no finite gradient in the image, to invert along."
        )
