"""The data term of inversion: how far a candidate's measurements are from those given.

Per image, so a batch gives the results of one image at a time. Priors on latents live with their
inverter, training losses in `rtil.objectives`.
"""

from math import prod
from typing import final

from torch import Tensor, nn

from rtil.metrics.perceptual import Perceptual, distance_of
from rtil.operators import ForwardOperator


@final
class MeasurementLoss(nn.Module):
    """mse ||y_hat - y||^2 / m + lpips d(y_hat, y), at measurement size (paper, A.3 and A.4).

    d is a perceptual distance (`rtil.metrics.perceptual`): LPIPS for ILO, the L1 distance of
    features of VGG16 for mGANprior.

    Differs from the published code, whose images are in [0, 1]: on [-1, 1] the squared error is 4
    times as large. `loss.mse=0.25` restores its weight relative to d.

    Args:
        operator: gives m, the measurement's shape and whether it is an image.
        mse: weight of the mean squared measurement error.
        lpips: weight of the perceptual distance, whichever it is.
        lpips_net: its backbone, "alex" or "vgg".
        lpips_min_ratio: the distance is dropped where a smaller share of the measured picture's
            pixels is observed. For masks; a down-sampled image is observed whole. With over half
            of them missing LPIPS did not help (appendix A.3).
        perceptual: name of the distance.
        distance: used instead of loading one.
        kept: bool, broadcastable to the measurement's shape: entries that the loss sees, instead
            of all; m is then their number. The distance compares both pictures with the others at
            0, and is used where it would be without `kept`.

    Raises:
        ValueError: an unknown distance, weights that leave nothing to minimise, no entry kept, or
            a distance of vectors or of images too small for it.
        FileNotFoundError: the distance is used and its weights are not on disk.
    """

    kept: Tensor | None

    def __init__(
        self,
        operator: ForwardOperator,
        mse: float = 1.0,
        lpips: float = 0.0,
        lpips_net: str = "alex",
        lpips_min_ratio: float = 0.0,
        perceptual: str = "lpips",
        distance: Perceptual | None = None,
        kept: Tensor | None = None,
    ) -> None:
        super().__init__()
        name = operator.name
        kind = distance_of(perceptual) if distance is None else type(distance)
        if not (mse >= 0 and lpips >= 0):
            raise ValueError(
                f"MeasurementLoss: loss.mse={mse}, loss.lpips={lpips}; weights must be at least 0."
            )
        if not 0 <= lpips_min_ratio <= 1:
            raise ValueError(
                f"MeasurementLoss: loss.lpips_min_ratio={lpips_min_ratio}; it must be in [0, 1]."
            )
        if lpips > 0 and not operator.measures_images:
            raise ValueError(
                f"MeasurementLoss: {kind.name} compares images; {name} measures a vector of "
                f"m={operator.num_measurements} numbers; set loss.lpips=0."
            )
        # m counts what carries information: for a mask the observed pixels, so that the squared
        # error is as large beside the distance at every ratio.
        self.num_measurements = operator.num_measurements
        self.mse_weight = mse
        self.distance_weight = lpips
        self.distance = None
        # Of the measured picture: a down-sampled image is observed whole.
        observed_share = self.num_measurements / prod(operator.out_shape)
        if lpips > 0 and observed_share >= lpips_min_ratio:
            # Before the weights are asked for: nobody fetches a file for images it cannot take.
            net = lpips_net if distance is None else distance.net
            height, width = operator.out_shape[1:]
            if not kind.fits(net, (height, width)):
                sizes = ", ".join(f"{size} for {key}" for key, size in kind.sizes.items())
                raise ValueError(
                    f"MeasurementLoss: {name} measures images of {height}x{width} pixels, too "
                    f"small for {kind.name} with loss.lpips_net={net}; the smallest side is "
                    f"{sizes}; set loss.lpips=0 or another net."
                )
            self.distance = kind(net) if distance is None else distance
        if mse == 0 and self.distance is None:
            raise ValueError(
                f"MeasurementLoss: loss.mse=0 and {kind.name} is not used (loss.lpips={lpips}, "
                f"loss.lpips_min_ratio={lpips_min_ratio}, {observed_share:.3g} of the pixels "
                "observed): nothing is left to minimise; set loss.mse above 0."
            )
        self.register_buffer("kept", kept, persistent=False)
        if kept is not None:
            # The distance above was decided from all of y: withholding entries does not drop it.
            seen = kept if operator.observed is None else kept & operator.observed
            self.num_measurements = int(seen.expand(operator.out_shape).sum())
            if not self.num_measurements:
                raise ValueError(f"MeasurementLoss: {name}: no observed entry of y is kept.")

    def forward(self, y_hat: Tensor, y: Tensor) -> Tensor:
        """Loss of each image.

        Args:
            y_hat: (B, *out_shape), measurements of the candidates.
            y: (B, *out_shape), the given measurements.

        Returns:
            (B,).
        """
        if self.kept is not None:
            # Both are 0 where nothing is seen, which adds nothing to the squared error.
            y_hat, y = y_hat * self.kept, y * self.kept
        loss = self.mse_weight * (y_hat - y).square().flatten(1).sum(dim=1) / self.num_measurements
        if self.distance is not None:
            loss = loss + self.distance_weight * self.distance(y_hat, y)
        return loss

    def nat(self, noise_std: float) -> float:
        """What this loss is worth per unit of the negative log-likelihood of y: 2 mse s^2 / m.

        With y = A x + e, e ~ N(0, s^2 I) and s = 2 noise_std on [-1, 1] images,

            -log p(y | x) = ||A x - y||^2 / (2 s^2) + const,

        which 2 mse s^2 / m turns into the squared error of this loss. A prior term
        -log p(z) times that number makes the sum the negative log-posterior, in units of this
        loss and up to a constant. A perceptual distance is no likelihood and comes on top.

        Args:
            noise_std: of the measurements, in units of the [0, 1] image.

        Raises:
            ValueError: no noise, where the likelihood has no density, or no squared error.
        """
        if not (noise_std > 0 and self.mse_weight > 0):
            raise ValueError(
                f"MeasurementLoss: a posterior needs noise and the squared error; got noise_std="
                f"{noise_std}, loss.mse={self.mse_weight}. Set both above 0, or give the weight "
                "of the prior as a number (inverter.map=NUMBER)."
            )
        return 2 * self.mse_weight * (2 * noise_std) ** 2 / self.num_measurements
