"""Physics of deepinv as operators: `physics_operator` (docs/deepinv.md).

deepinv measures images u in [0, 1], rtil images x = 2 u - 1. A linear physics has y = A x, which
is 2 y_d - A(1) of its own measurement y_d = A u; any other has y = 2 A((x + 1) / 2) - 1. Both
double its noise, so that its sigma is rtil's noise_std. Nothing here imports deepinv.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from rtil.operators.instrument import Instrument, drawn, is_linear, operator_of, real
from rtil.operators.operator import ForwardOperator
from rtil.process.brief import brief, reason

INSTALL = 'pip install "rtil[deepinv]"'


def is_physics(module: object) -> bool:
    """Whether a module is a physics of deepinv, or a class of the user's that extends one."""
    homes = [kind.__module__.partition(".")[0] for kind in type(module).__mro__]
    return "deepinv" in homes and hasattr(module, "noise_model")


def physics_operator(
    physics: nn.Module, in_shape: Sequence[int], noise_std: float | None = None
) -> ForwardOperator:
    """A physics as an operator for images of one shape, a `LinearOperator` where it is linear.

    It is copied: what becomes of the operator leaves the physics as it is.

    Args:
        physics: a `deepinv.physics.Physics`.
        in_shape: (C, H, W) of the images.
        noise_std: that is added, in units of the [0, 1] image; None: whatever the physics says.

    Raises:
        ValueError: noise that is not Gaussian or of another strength than noise_std, a sensor
            after it, several measurements (TensorList), or as `instrument.operator_of`.
    """
    name, sigma = type(physics).__name__, noise_of(physics)
    instrument = PhysicsInstrument(copy.deepcopy(physics), in_shape)
    if noise_std is not None and sigma and instrument.is_complex:
        raise ValueError(
            f"task.physics: {name} has a noise model and complex measurements; leave it out and "
            "say noise_std, which is of real and imaginary parts each."
        )
    if noise_std is not None and sigma and abs(sigma - noise_std) > 1e-6 * sigma:
        raise ValueError(
            f"task.physics: {name} has Gaussian noise of sigma={sigma:g} and "
            f"noise_std={noise_std:g}; say noise_std={sigma:g}, or another noise model."
        )
    return operator_of(instrument, in_shape)


def noise_of(physics: Any) -> float:
    """Standard deviation of a physics' noise in units of the [0, 1] image.

    Raises:
        ValueError: its noise is of another kind, or of several strengths, or passes a sensor.
    """
    name, model = type(physics).__name__, physics.noise_model
    kind = type(model).__name__
    if not _keeps(physics.sensor_model):
        raise ValueError(
            f"task.physics: {name} has a sensor_model, which acts after the noise; rtil adds "
            "noise to what an operator measures. Make it a part of A, or leave it out."
        )
    if kind == "ZeroNoise":
        return 0.0
    if kind != "GaussianNoise":
        raise ValueError(
            f"task.physics: {name} has the noise model {kind}; rtil adds Gaussian noise alone: "
            "+task.physics.noise_model._target_=deepinv.physics.ZeroNoise leaves it out."
        )
    if model.sigma.numel() != 1:
        raise ValueError(
            f"task.physics: {name} has noise of sigma={brief(model.sigma.tolist())}; one number "
            "for all images is needed."
        )
    return float(model.sigma)


def _keeps(sensor: Callable) -> bool:
    """Whether a sensor passes on what it gets."""
    level = torch.linspace(-1, 2, 64).view(1, 1, 8, 8)
    try:
        return bool(torch.equal(sensor(level), level))
    # One that does not take numbers of this shape is none that passes them on.
    except Exception:
        return False


@final
class PhysicsInstrument(Instrument):
    """How a physics is asked.

    What takes complex images gets real ones as complex numbers, or, of one channel, with a second
    channel of zeros for the imaginary part, as in magnetic resonance imaging.

    Args:
        physics: a `deepinv.physics.Physics`, which may change.
        in_shape: (C, H, W) of the images.

    Raises:
        ValueError: it does not measure such images.
    """

    white: Tensor

    def __init__(self, physics: Any, in_shape: Sequence[int]) -> None:
        super().__init__(type(physics).__name__)
        self.physics = physics.requires_grad_(False)
        self.present: Callable[[Tensor], Tensor] = self._presented(in_shape)
        unit = (drawn(in_shape) + 1) / 2
        with torch.no_grad():
            y = self._plain(unit[:1])
            self.is_complex = bool(self.physics.A(self.present(unit[:1])).is_complex())
            self.linear = is_linear(self._plain, unit)
            white = self._plain(torch.ones(1, *in_shape)) if self.linear else torch.ones_like(y)
        self.register_buffer("white", white)

    def measure(self, x: Tensor) -> Tensor:
        return self._plain(x) if self.linear else 2 * self._plain((x + 1) / 2) - 1

    def signed(self, y: Tensor) -> Tensor:
        """What `measure` would return where the physics measured y of the same images."""
        return 2 * real(y) - self.white.to(y.device)

    def _plain(self, u: Tensor) -> Tensor:
        return real(self.physics.A(self.present(u)))

    def _presented(self, in_shape: Sequence[int]) -> Callable[[Tensor], Tensor]:
        """The first way to present an image that the physics takes."""
        image = (drawn(in_shape, 1) + 1) / 2
        ways = [as_it_is, as_complex]
        if in_shape[0] == 1:
            ways.append(as_two_channels)
        failures: list[BaseException] = []
        for present in ways:
            try:
                with torch.no_grad():
                    real(self.physics.A(present(image)))
            # Code of others raises whatever it likes; the first error is that of the image.
            except Exception as error:
                failures.append(error)
                continue
            return present
        raise ValueError(
            f"task.physics: {self.name} does not measure images of shape {tuple(in_shape)}, as "
            f"the generator draws them ({reason(failures[0])})."
        ) from failures[0]


def as_it_is(u: Tensor) -> Tensor:
    """A real image."""
    return u


def as_complex(u: Tensor) -> Tensor:
    """A complex image without imaginary part."""
    return torch.complex(u, torch.zeros_like(u))


def as_two_channels(u: Tensor) -> Tensor:
    """A grey image as real part, and an imaginary part of zeros, as two channels."""
    return torch.cat([u, torch.zeros_like(u)], 1)
