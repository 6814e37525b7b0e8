"""Inverters as reconstructors of deepinv: what `deepinv.test` and its trainers call as a model.

    model = rtil.deepinv.Reconstructor(G, ILO(steps=(100, 50, 50), depth=2))
    deepinv.test(model, loader, physics)

Lives here: the way from deepinv's measurements to rtil's inverters. The other way, physics as
operators of rtil's commands, is in `rtil.operators.deepinv`. Nothing here imports deepinv, which
asks no more of a model than to be called.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Inverter
from rtil.models.generator import Generator
from rtil.operators.deepinv import physics_operator, signed
from rtil.process.rng import seeded

MSE = 0.25  # weight of the data term in the commands: the squared error of the [0, 1] image


@final
class Reconstructor(nn.Module):
    """x_hat = model(y, physics), images in [0, 1] of what a generator draws.

    G stays frozen and in evaluation mode, whatever `train` and `requires_grad_` say. Random draws
    of an image come from the seed and from its number since the last `restart`, so that a batch
    gives what its images give one by one.

    Args:
        G: generator, which is frozen.
        inverter: with all its settings; fitted, where it needs that.
        seed: of its random draws.

    Raises:
        ValueError: settings that do not fit the generator.
    """

    def __init__(self, G: Generator, inverter: Inverter, seed: int = 0) -> None:
        super().__init__()
        inverter.check(G)
        self.G = G.eval().requires_grad_(False)
        self.inverter, self.seed, self.count = inverter, seed, 0

    def train(self, mode: bool = True) -> Reconstructor:
        """As every module's; G stays in evaluation mode."""
        super().train(mode)
        self.G.eval()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Reconstructor:
        """Nothing here is trained."""
        return self

    def restart(self) -> None:
        """Makes the next image the first again, as a new pass over the same images begins."""
        self.count = 0

    def forward(self, y: Tensor, physics: nn.Module) -> Tensor:
        """Estimates images from what a physics measured of images in [0, 1].

        Args:
            y: measurements, of any floating type; with noise of any kind.
            physics: `deepinv.physics.Physics`, the same for all images of the batch.

        Returns:
            (B, C, H, W) in about [0, 1], of the type of y where that is real.

        Raises:
            ValueError: a physics that does not measure the generator's images, or measured no
                such y, or that the inverter cannot invert.
        """
        numbers = range(self.count, self.count + len(y))
        # An inversion follows gradients, also where nobody else asks for any.
        with torch.inference_mode(False), torch.enable_grad():
            A = physics_operator(physics, self.G.image_shape).to(y.device)
            self.inverter.check_operator(A)
            G = self.G.to(y.device)
            weights = next(G.parameters(), torch.zeros(()))
            measured = signed(A, y.clone()).to(weights.dtype)
            loss = MeasurementLoss(A, mse=MSE).to(y.device)
            rngs = [seeded("cpu", self.seed, number, "inversion") for number in numbers]
            found = self.inverter.invert(G, A, measured, loss, rngs)
        self.count += len(y)
        return ((found.image.detach() + 1) / 2).to(y.dtype.to_real())
