"""What is recorded and checked of an inverter that has a network of its own."""

from __future__ import annotations

from collections.abc import Mapping

from rtil.data import lineage
from rtil.inverters.inverter import Inverter, PretrainedInverter


def weights_found(inverter: Inverter, config: Mapping) -> dict[str, str]:
    """What the record of an inversion says of the inverter's own weights: their digest, if any.

    Args:
        config: of the inversion.

    Raises:
        FileNotFoundError: their file is not there.
        ValueError: it cannot be read, or was trained on images of the split.
    """
    if not isinstance(inverter, PretrainedInverter):
        return {}
    weights = inverter.weights()
    if not config["input"]:
        lineage.check_held_out(weights.trained, config["data"], config["split"], weights.path)
    return {"denoiser_sha256": weights.sha256}
