"""How close the samples of each family member are to real images (`rtil.metrics.samples`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rtil.diagnosis.result import Samples
from rtil.diagnosis.setup import Job
from rtil.latents.space import Member
from rtil.metrics.inception import inception_distance
from rtil.metrics.samples import RandomFeatures, frechet_estimate, precision_recall
from rtil.models.generator import Generator
from rtil.process.progress import tracked
from rtil.process.rng import seeded

BATCH = 64


@dataclass(frozen=True)
class Real:
    """Features of the real images: random ones, and Inception's where they were asked for."""

    random: Tensor
    inception: Tensor | None


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
    seen = job.inception.features(job.real) if job.inception else None
    real = Real(features(job.real), seen)
    rows = [_row(job, features, real, "training images", job.training[:count])]
    for member in tracked(job.members, len(job.members), "member", "samples"):
        samples = draw(job.G, member, count, job.seed)
        rows.append(_row(job, features, real, member.name, samples))
    return rows


def _row(job: Job, features: RandomFeatures, real: Real, name: str, samples: Tensor) -> Samples:
    theirs = features(samples)
    distance = frechet_estimate(theirs, real.random, job.bootstrap, job.seed)
    precision, recall = precision_recall(theirs, real.random, job.neighbours)
    inception = None
    if job.inception is not None and real.inception is not None:
        inception = inception_distance(job.inception.features(samples), real.inception, job.seed)
    return Samples(name, distance, precision, recall, features.explained, inception)
