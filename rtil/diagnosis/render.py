"""Samples of generators on disk, for reports and diagnoses.

Drawing them into a figure is `rtil.reporting.figures.mosaic`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch

from rtil import checkpoint
from rtil.latents.family import Family, shown_members
from rtil.metrics.image import to_unit
from rtil.models.generator import Generator
from rtil.process.instantiate import instantiate
from rtil.process.rng import seeded
from rtil.reporting.figures.mosaic import ImageRow
from rtil.reporting.page import Samples
from rtil.reporting.study import Study, Trained

Loaded = tuple[Generator, Family]


def samples_of(study: Study, num_images: int) -> Samples:
    """Samples of the generators of a study, of each group on the same seeds.

    A page of samples draws each generator with its own family alone (paper, Fig. 9). What is gone
    or has changed since it was inverted is noted.
    """
    notes: list[str] = []
    groups: dict[tuple, dict[str, Loaded]] = {}
    for one in study.generators:
        group = groups.setdefault(one.group, {})
        try:
            other = one.digest[:8] if one.digest else one.path.parent.name
            group[f"{one.arm} {other}" if one.arm in group else one.arm] = loaded(one)
        except (KeyError, OSError, TypeError, ValueError) as error:
            if one.of is None:
                raise
            notes.append(f"No samples of {one.arm} as inverted in {one.of}: {error}")
    drawn = {}
    for name, group in groups.items():
        rows = sample_rows(group, num_images, notes, own=study.kind == "samples")
        if rows:
            drawn[name] = rows
    return Samples(drawn, notes)


def loaded(one: Trained) -> Loaded:
    """A generator and its family.

    Raises:
        ValueError: it is not the one that was inverted.
    """
    digest = hashlib.sha256(one.path.read_bytes()).hexdigest()
    if one.digest not in (None, digest):
        raise ValueError(f"{one.path} has changed since the inversion.")
    G, config = checkpoint.load_generator(one.path)
    return G, instantiate(config["rtil"]["family"])


@torch.no_grad()
def sample_rows(
    generators: Mapping[str, Loaded], num_images: int, notes: list[str], own: bool = False
) -> list[ImageRow]:
    """Samples of every generator from every member, on the same seeds.

    A member that cannot drive a generator is noted, not drawn. With `own`, each generator draws
    the members of its own family alone.
    """
    rows = []
    for label, (G, family) in generators.items():
        families = [family] if own else [other for _, other in generators.values()]
        for space in shown_members(families):
            try:
                space.check(G)
            except ValueError as error:
                notes.append(f"No samples of {label} from {space.name}: {error}")
                continue
            latents = space.sample(G, num_images, seeded("cpu", 0, "report samples"))
            images = to_unit(space.synthesize(G, latents)).expand(-1, 3, -1, -1)
            scale = space.map_scale(1)
            sigma = "" if scale is None else f", σ = {scale.sigma:g}"
            name = f"{label}  ${space.name}${sigma}"
            rows.append(ImageRow(name, [*images.permute(0, 2, 3, 1).numpy()], [""] * num_images))
    return rows
