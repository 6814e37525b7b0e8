"""What an inversion meets inside a generator: feature scales, reach of each depth, hand-overs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rtil.diagnosis.result import Block, Depth, Reach
from rtil.diagnosis.setup import Job
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.inverter import Loss
from rtil.latents.additive import Additive
from rtil.latents.space import MapScale, Member
from rtil.metrics.image import psnr, to_unit
from rtil.metrics.intervals import Mean
from rtil.models.generator import EMPTY, Generator
from rtil.operators import ForwardOperator
from rtil.process.progress import tracked
from rtil.process.rng import seeded

BATCH = 64
MOST_SAMPLES = 256  # behind the scales, whose intervals are narrow by then


@dataclass
class Scales:
    """Of x_k, the output of block k, one number a sample, over its channels and positions.

    std is the unit of ILO's relative step size, rms that of a relative sigma.
    """

    std: list[float] = field(default_factory=list)
    rms: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Stage:
    """ILO up to stage k, of each of n images.

    Attributes:
        psnr_db: of its iterate with the lowest measurement loss.
        z_rms: root mean square of z_k at its end, None for k = 0.
        jump: root mean square change on [0, 1] of the image between the last iterate of stage
            k - 1 and the first of stage k, where z_k is 0; None for k = 0.
    """

    k: int
    psnr_db: list[float]
    z_rms: list[float] | None
    jump: list[float] | None


class HandOver:
    """Keeps the iterates on both sides of the last stage's start, and their change."""

    def __init__(self, start: int) -> None:
        self.start, self.seen = start, 0
        self.before: Tensor | None = None
        self.jump: list[float] | None = None

    def __call__(self, image: Tensor) -> None:
        if self.before is not None:
            change = (image - self.before) / 2
            self.jump = change.square().mean((1, 2, 3)).sqrt().tolist()
        self.before = image.clone() if self.seen == self.start - 1 else None
        self.seen += 1


def blocks(job: Job) -> list[Block]:
    """Scale of each block's features, and the training sigma over it."""
    rows = []
    count = min(job.num_samples, MOST_SAMPLES)
    for k, scales in feature_scales(job.G, count, job.seed).items():
        rms, sigma, share = Mean.of(scales.rms), None, None
        drawn = trained_scale(job.members, k)
        if drawn is not None:
            sigma = drawn.sigma
            share = sigma / (1.0 if drawn.relative else rms.mean)
        rows.append(Block(k, job.G.shapes[k], Mean.of(scales.std), rms, sigma, share))
    return rows


def trained_scale(members: Iterable[Member], k: int) -> MapScale | None:
    """What training drew z_k with; None where it did not."""
    for member in members:
        scale = member.map_scale(k)
        if scale is not None and scale.sigma > 0:
            return scale
    return None


@torch.no_grad()
def feature_scales(G: Generator, count: int, seed: int) -> dict[int, Scales]:
    """The scales of every block of G^0, for each of `count` samples."""
    rng = seeded("cpu", "samples", "feature scales", seed)
    blocks = {k: Scales() for k in range(1, G.num_blocks + 1)}
    for first in range(0, count, BATCH):
        latents = Additive(0).sample(G, min(BATCH, count - first), rng)
        state = EMPTY
        for k, scales in blocks.items():
            state = G.step(k, state, latents.w, latents.noise or None)
            assert state.x is not None, "a block leaves a map"
            scales.std += state.x.std((1, 2, 3)).tolist()
            scales.rms += state.x.square().mean((1, 2, 3)).sqrt().tolist()
    return blocks


def depths(job: Job, blocks: Sequence[Block]) -> list[Depth]:
    """ILO up to each depth, with all pixels observed and measured by the task."""
    observed = [_reaches(job, A, blocks) for A in (job.everything, job.operator)]
    return [Depth(k, *reaches) for k, reaches in enumerate(zip(*observed))]


def _reaches(job: Job, A: ForwardOperator, blocks: Sequence[Block]) -> list[Reach]:
    """Reach of each stage on noiseless measurements of the first held-out images."""
    x = job.real[: job.num_images]
    A = A.to(x.device)

    def rngs() -> list[torch.Generator]:
        return [seeded("cpu", job.seed, i, "diagnose") for i in range(len(x))]

    rms = {block.k: block.rms.mean for block in blocks}
    reaches = []
    for stage in stages(job.G, job.inverter, A, x, MeasurementLoss(A, mse=job.mse), rngs):
        z_rms, over_sigma, over_rms = stage.z_rms, None, None
        if z_rms is not None:
            over_rms = Mean.of([z / rms[stage.k] for z in z_rms])
            scale = trained_scale(job.members, stage.k)
            if scale is not None:
                unit = scale.sigma * (rms[stage.k] if scale.relative else 1.0)
                over_sigma = Mean.of([z / unit for z in z_rms])
        jump = Mean.of(stage.jump) if stage.jump else None
        z_mean = Mean.of(z_rms) if z_rms else None
        reaches.append(Reach(Mean.of(stage.psnr_db), z_mean, over_sigma, over_rms, jump))
    return reaches


def stages(
    G: Generator,
    inverter: ILO,
    A: ForwardOperator,
    x: Tensor,
    loss: Loss,
    rngs: Callable[[], Sequence[torch.Generator]],
) -> list[Stage]:
    """ILO up to each of its stages, on measurements A x without noise.

    Its run up to stage k begins as the one up to stage k - 1 does, draw by draw, so the entries
    are the ends of the stages of one run.

    Args:
        inverter: with one step size for all stages.
        x: true images (B, C, H, W) in [-1, 1].
        rngs: makes the images' generators anew.
    """
    steps, y = inverter.stages, A(x)
    ends = []
    for k in tracked(range(len(steps)), len(steps), "depth", type(A).__name__):
        part = replace(inverter, steps=steps[: k + 1])
        # Every stage shows its start and the iterate after each step.
        watch = HandOver(sum(n + 1 for n in steps[:k]))
        done = part.invert(G, A, y, loss, rngs(), watch=watch if k else None)
        z_rms = None
        if k:
            assert done.latents is not None and done.latents.add is not None, "ILO optimises z_k"
            z_rms = done.latents.add[k].square().mean((1, 2, 3)).sqrt().tolist()
        scores = psnr(to_unit(done.image), to_unit(x)).tolist()
        ends.append(Stage(k, scores, z_rms, watch.jump))
    return ends
