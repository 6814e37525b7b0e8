"""How close samples of many generators are to real images, by what the generators differ in.

Its rows are diagnoses, `diagnose.json` of `python -m rtil.diagnose` (`rtil.diagnosis.result`),
copied into a folder below results/diagnose/, one file a generator. What one diagnosis says of one
generator is `rtil.diagnosis.table`. A further column is a line in COLUMNS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtil.metrics.intervals import Mean
from rtil.reporting.sections import NONE
from rtil.runs.keys import flatten
from rtil.runs.overrides import as_text
from rtil.runs.schema import DIAGNOSED, read_json

ADVICE = "Copy it anew from where python -m rtil.diagnose wrote it."
REAL = "training images"  # in every diagnosis, whatever the generator
# Heading and decimals of each number of samples.
COLUMNS = {"recall": ("recall", 3), "precision": ("precision", 3), "frechet": ("Fréchet", 2)}
# Numbers of samples are compared where these are the same: split, and what a distance depends on.
ALIKE = ("data", "split", "image_seed", "num_samples", "dims", "neighbours", "resolution")


@dataclass(frozen=True)
class Covered:
    """A diagnosed generator.

    Args:
        digest: SHA-256 of its file.
        config: flattened settings of the diagnosis, those of the training among them.
        members: {member, or REAL: {key of COLUMNS: value}}, in the order of the diagnosis.
    """

    digest: str
    config: Mapping[str, object]
    members: Mapping[str, Mapping[str, float]]


def read(folder: Path) -> list[Covered]:
    """The diagnoses in a folder.

    Raises:
        ValueError: there is none, one cannot be read or is of a generator that another one is of,
            or they do not compare samples with the same images in the same way.
    """
    found: dict[str, Path] = {}
    diagnoses: list[Covered] = []
    for path in sorted(folder.glob("*.json")):
        content = read_json(path, DIAGNOSED, ADVICE)
        members = {
            row["member"]: {key: row[key]["value"] for key in COLUMNS}
            for row in content["members"]
        }
        one = Covered(content["generator_sha256"], flatten(content["settings"]), members)
        if one.digest in found:
            raise ValueError(f"{path} is of the generator of {found[one.digest]}: keep one")
        for key in alike(one):
            if diagnoses and one.config.get(key) != diagnoses[0].config.get(key):
                raise ValueError(
                    f"{path} has {key}={as_text(one.config.get(key))}, others in its folder have "
                    f"{as_text(diagnoses[0].config.get(key))}: such numbers are not compared"
                )
        found[one.digest] = path
        diagnoses.append(one)
    if not diagnoses:
        raise ValueError(f"{folder} has no diagnose.json of any name")
    return diagnoses


def alike(one: Covered) -> list[str]:
    """The settings that all diagnoses of a folder share."""
    return [key for key in one.config if key.partition(".")[0] in ALIKE]


def coverage(diagnoses: Sequence[Covered], by: Sequence[str]) -> list[dict[str, str]]:
    """{heading: text} of each member, over the generators with the same values of some settings.

    Intervals are over generators, which are other trainings. The line of training images is what
    other real images get, so no generator is expected to do better.

    Args:
        by: settings, as objective.name.

    Raises:
        ValueError: no diagnosis has one of these settings.
    """
    for key in by:
        if not any(key in one.config for one in diagnoses):
            raise ValueError(f"by={key} is no setting of these diagnoses")
    scores: dict[tuple[str, ...], list[Mapping[str, float]]] = {}
    for one in diagnoses:
        values = [as_text(one.config.get(key)) for key in by]
        for member, numbers in one.members.items():
            place = (*(NONE for _ in by), REAL) if member == REAL else (*values, member)
            rows = scores.setdefault(place, [])
            # Real images are no training's: what all diagnoses say of them counts once.
            if member != REAL or numbers not in rows:
                rows.append(numbers)
    headings = [*(key.removesuffix(".name") for key in by), "samples"]
    return [dict(zip(headings, place)) | numbers_of(scores[place]) for place in scores]


def numbers_of(rows: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """As {"recall (n)": "0.41 ± 0.06 (3)"}."""
    texts = {}
    for key, (heading, decimals) in COLUMNS.items():
        mean = Mean.of([row[key] for row in rows])
        texts[f"{heading} (n)"] = f"{mean.text(f'.{decimals}f')} ({mean.n})"
    return texts
