"""What a diagnosis says, as diagnose.json holds it: a field here is a key there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from rtil.metrics.inception import InceptionDistance
from rtil.metrics.intervals import Mean
from rtil.metrics.samples import Estimate


@dataclass(frozen=True)
class Block:
    """Scale of x_k, the output of block k, over samples of G^0 of `shape` (C, H, W).

    Attributes:
        sigma: that training drew z_k with; None where it drew none.
        sigma_over_rms: sigma in units of rms.
    """

    k: int
    shape: tuple[int, ...]
    std: Mean
    rms: Mean
    sigma: float | None
    sigma_over_rms: float | None


@dataclass(frozen=True)
class Reach:
    """ILO up to stage k on measurements of one operator; None for what k = 0 has not.

    Attributes:
        psnr_db: of the iterate with the lowest measurement loss.
        z_rms: rms of z_k at the end of the stage, in feature units.
        z_over_sigma: the same over the sigma of training; None where training drew no z_k.
        z_over_rms: the same over the rms of x_k.
        jump: rms change of the [0, 1] image where stage k takes over, before its first step.
    """

    psnr_db: Mean
    z_rms: Mean | None
    z_over_sigma: Mean | None
    z_over_rms: Mean | None
    jump: Mean | None


@dataclass(frozen=True)
class Depth:
    """Reach of stage k: all pixels observed, which shows what the depth represents, and `task`."""

    k: int
    all: Reach
    task: Reach


@dataclass(frozen=True)
class Samples:
    """Samples of a member, or training images, against held-out images; n of both equal.

    Attributes:
        explained: share of the training images' variance that the features keep.
        inception: FID and KID; None where they were not asked for.
    """

    member: str
    frechet: Estimate
    precision: Estimate
    recall: Estimate
    explained: float
    inception: InceptionDistance | None


@dataclass(frozen=True)
class Diagnosis:
    """All of it, with the settings that led to it."""

    generator: str
    generator_sha256: str
    rtil: str
    blocks: list[Block]
    depths: list[Depth]
    members: list[Samples]
    settings: dict
    inverter: dict
    provenance: dict

    def json(self) -> str:
        """The text of diagnose.json."""
        return json.dumps(_finite(asdict(self)), indent=1) + "\n"


def _finite(value: object) -> object:
    """The value with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
