"""How close the samples of each family member are to real images (`rtil.metrics.samples`)."""

from __future__ import annotations

import torch
from torch import Tensor

from rtil.diagnosis.result import Samples
from rtil.diagnosis.setup import Job
from rtil.latents.space import Member
from rtil.metrics.samples import RandomFeatures, frechet_estimate, precision_recall
from rtil.models.generator import Generator
from rtil.process.rng import seeded

BATCH = 64


@torch.no_grad()
def draw(G: Generator, member: Member, count: int, seed: int) -> Tensor:
    """Images (count, C, H, W) in [-1, 1] of a family member."""
    rng = seeded("cpu", "samples", member.name, seed)
    batches = []
    for first in range(0, count, BATCH):
        latents = member.sample(G, min(BATCH, count - first), rng)
        batches.append(member.synthesize(G, latents).clamp(-1, 1))
    return torch.cat(batches)


def members(job: Job) -> list[Samples]:
    """Training images, then each member's samples, against the real images, n of both equal.

    The first row is what other real images get: no generator is expected to do better.
    """
    features = RandomFeatures(job.training, job.dims)
    count = len(job.real)
    rows = [_row(job, features, "training images", job.training[:count])]
    for member in job.members:
        samples = draw(job.G, member, count, job.seed)
        rows.append(_row(job, features, member.name, samples))
    return rows


def _row(job: Job, features: RandomFeatures, name: str, samples: Tensor) -> Samples:
    theirs, real = features(samples), features(job.real)
    precision, recall = precision_recall(theirs, real, job.neighbours)
    distance = frechet_estimate(theirs, real, job.bootstrap, job.seed)
    return Samples(name, distance, precision, recall, features.explained)
