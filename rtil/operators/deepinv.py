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
        noise_std: that is added, in units of the [0, 1] image; None: measurements are given, and
            their noise may be any.

    Raises:
        ValueError: noise that is not Gaussian or of another strength than noise_std, a sensor
            after it, several measurements (TensorList), or as `instrument.operator_of`.
    """
    name = type(physics).__name__
    _check_sensor(physics)
    sigma = 0.0 if noise_std is None else noise_of(physics)
    instrument = PhysicsInstrument(copy.deepcopy(physics), in_shape)
    if noise_std is None:
        return operator_of(instrument, in_shape)
    if sigma and instrument.is_complex:
        raise ValueError(
            f"task.physics: {name} has a noise model and complex measurements; leave it out and "
            "say noise_std, which is of real and imaginary parts each."
        )
    if sigma and abs(sigma - noise_std) > 1e-6 * sigma:
        raise ValueError(
            f"task.physics: {name} has Gaussian noise of sigma={sigma:g} and "
            f"noise_std={noise_std:g}; say noise_std={sigma:g}, or another noise model."
        )
    return operator_of(instrument, in_shape)


def noise_of(physics: Any) -> float:
    """Standard deviation of a physics' noise in units of the [0, 1] image.

    Raises:
        ValueError: its noise is of another kind, or of several strengths.
    """
    name, model = type(physics).__name__, physics.noise_model
    kind = type(model).__name__
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


def _check_sensor(physics: Any) -> None:
    """Raises ValueError unless the sensor of a physics passes on what it gets."""
    level = torch.linspace(-1, 2, 64).view(1, 1, 8, 8)
    try:
        passes = bool(torch.equal(physics.sensor_model(level), level))
    # One that does not take numbers of this shape is none that passes them on.
    except Exception:
        passes = False
    if not passes:
        raise ValueError(
            f"{type(physics).__name__} has a sensor_model, which acts after the noise; rtil adds "
            "noise to what an operator measures. Make it a part of A, or leave it out."
        )


def signed(A: ForwardOperator, y: Tensor) -> Tensor:
    """What an operator of `physics_operator` measures where its physics measured y.

    Args:
        y: (B, ...), as the physics returns it of images in [0, 1].

    Raises:
        ValueError: y of another shape.
    """
    A.check_measurement(real(y))
    instrument = A.instrument
    assert isinstance(instrument, PhysicsInstrument)
    return instrument.signed(y)


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
        self.unit = self.unit.to(place_of(physics))
        unit = (drawn(in_shape).to(self.unit) + 1) / 2
        self.present: Callable[[Tensor], Tensor] = self._presented(unit[:1])
        with torch.no_grad():
            y = self._plain(unit[:1])
            self.is_complex = bool(self.physics.A(self.present(unit[:1])).is_complex())
            self.linear = is_linear(self._plain, unit)
            white = self._plain(torch.ones_like(unit[:1])) if self.linear else torch.ones_like(y)
        self.register_buffer("white", white)

    def measure(self, x: Tensor) -> Tensor:
        return self._plain(x) if self.linear else 2 * self._plain((x + 1) / 2) - 1

    def signed(self, y: Tensor) -> Tensor:
        """What `measure` would return where the physics measured y of the same images."""
        return 2 * real(y) - self.white.to(y.device)

    def _plain(self, u: Tensor) -> Tensor:
        return real(self.physics.A(self.present(u)))

    def _presented(self, image: Tensor) -> Callable[[Tensor], Tensor]:
        """The first way to present an image (1, C, H, W) that the physics takes."""
        ways = [as_it_is, as_complex]
        if image.shape[1] == 1:
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
            f"{self.name} does not measure images of shape {tuple(image.shape[1:])}, as the "
            f"generator draws them ({reason(failures[0])})."
        ) from failures[0]


def place_of(module: nn.Module) -> torch.device:
    """The device that holds the numbers of a module; the CPU where it has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.device
    return torch.device("cpu")


def as_it_is(u: Tensor) -> Tensor:
    """A real image."""
    return u


def as_complex(u: Tensor) -> Tensor:
    """A complex image without imaginary part."""
    return torch.complex(u, torch.zeros_like(u))


def as_two_channels(u: Tensor) -> Tensor:
    """A grey image as real part, and an imaginary part of zeros, as two channels."""
    return torch.cat([u, torch.zeros_like(u)], 1)
