"""Samples of every member of the family, with z_k as large as training drew it or otherwise."""

from __future__ import annotations

import torch

from rtil.latents.family import shown_members
from rtil.process.rng import seeded
from rtil.window.picture import Picture, row
from rtil.window.setup import Bench


@torch.no_grad()
def drawn(bench: Bench, count: int, seed: int, size: float) -> tuple[str, str]:
    """HTML of samples, a row for each arm and member, on the same seeds; and what to say of them.

    Args:
        size: factor on every z_k; 1 is the sigma of training.
    """
    members = shown_members([arm.family for arm in bench.arms])
    rows, notes = [], []
    for arm in bench.arms:
        for member in members:
            try:
                member.check(arm.G)
            except ValueError as error:
                notes.append(f"{arm.label}: {error}")
                continue
            latents = member.sample(arm.G, count, seeded("cpu", seed, "window samples"))
            if latents.add:
                latents = latents._replace(add={k: size * z for k, z in latents.add.items()})
            images = member.synthesize(arm.G, latents)
            pictures = [Picture("", image) for image in images]
            rows.append(row(pictures, small=True, name=f"{arm.label} {member.name}"))
    if not any(member.map_scale(1) for member in members):
        notes.append("This family draws no z_k, so their size has no effect.")
    said = f"z_k of {size:g} times the size that training draws."
    return "".join(rows), " ".join([said, *notes])
