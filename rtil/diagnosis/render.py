"""Samples of generators on disk, for reports and diagnoses.

Drawing them into a figure is `rtil.reporting.figures.mosaic`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from rtil import checkpoint
from rtil.latents.family import Family, shown_members
from rtil.metrics.image import to_unit
from rtil.models.generator import Generator
from rtil.process.instantiate import instantiate
from rtil.process.rng import seeded
from rtil.reporting.arrange import Row
from rtil.reporting.figures.mosaic import ImageRow, draw_mosaic
from rtil.reporting.figures.style import plain
from rtil.reporting.page import Look
from rtil.reporting.sections import Figure, Section, Text
from rtil.reporting.study import Study
from rtil.runs.identity import EXPORTED
from rtil.runs.run import Run, generator_file

Loaded = tuple[Generator, Family]
Group = tuple[str, str, str]  # data set, scale and model


@dataclass(frozen=True)
class Trained:
    """A generator to draw samples of.

    Attributes:
        digest: of the file that was inverted; None is any.
        of: the run that it was inverted in.
    """

    group: Group
    arm: str
    path: Path
    digest: str | None = None
    of: Path | None = None


def trained(runs: Iterable[Run]) -> list[Trained]:
    """The generators of trainings."""
    generators = []
    for run in runs:
        config = run.config
        trained_on = str(config.get("data.trained_on") or config["data.name"])
        group = trained_on, str(config["scale.name"]), str(run.job["model"])
        generators.append(Trained(group, str(config["rtil.name"]), run.path / EXPORTED))
    return generators


def inverted(rows: Iterable[Row], root: Path) -> list[Trained]:
    """The generators that were inverted, of several seeds the first one's."""
    generators: dict[tuple[str, str], Trained] = {}
    for row in rows:
        if row.missing:
            continue
        run, at, arm = row.runs[0], row.measurement, row.arm
        config = run.config
        digest = str(config.get("generator_sha256"))
        if (arm, digest) in generators or config["inverter.family"] is None:
            continue
        # Samples are of the data set of the training, not of the images inverted.
        trained_on = str(config.get("data.trained_on", config["data.name"]))
        data = at.data if trained_on == config["data.name"] else trained_on
        file = generator_file(run, root)
        group = data, at.scale, at.model
        generators[arm, digest] = Trained(group, arm, file, digest, run.path)
    return [*generators.values()]


def samples_of(study: Study, look: Look) -> list[Section]:
    """A figure of samples for each group of generators of a study, each on the same seeds.

    A page of samples draws each generator with its own family alone (paper, Fig. 9). What is gone
    or has changed since it was inverted is noted.
    """
    notes: list[str] = []
    groups: dict[Group, dict[str, Loaded]] = defaultdict(dict)
    # An experiment without inversions shows its trainings.
    only = () if study.rows else study.runs
    for one in [*trained(only), *inverted(study.rows, study.source.root)]:
        group = groups[one.group]
        try:
            other = one.digest[:8] if one.digest else one.path.parent.name
            group[f"{one.arm} {other}" if one.arm in group else one.arm] = loaded(one)
        except (KeyError, OSError, TypeError, ValueError) as error:
            where = f"as inverted in {one.of}" if one.of else f"as trained in {one.path.parent}"
            notes.append(f"No samples of {one.arm} {where}: {error}")
    figures: list[Section] = []
    for name, group in groups.items():
        rows = sample_rows(group, look.columns, notes, own=study.kind == "samples")
        if rows:
            path = look.file("samples", *name)
            draw_mosaic(rows, path)
            data, scale, model = name
            figures.append(Figure(f"data={data}, scale={scale}, model={model}", path))
    return [*figures, *map(Text, notes)]


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
            name = f"{plain(label)}  ${space.name}${sigma}"
            rows.append(ImageRow(name, [*images.permute(0, 2, 3, 1).numpy()], [""] * num_images))
    return rows
