"""The three tables of a diagnosis, in Markdown (diagnose.md)."""

from __future__ import annotations

from pathlib import Path

from rtil.diagnosis.result import Block, Depth, Diagnosis, Samples
from rtil.metrics.intervals import Mean
from rtil.metrics.samples import Estimate
from rtil.reporting.sections import Table, markdown

READING = Path(__file__).with_name("reading.md")
NOTHING = "–"


def tables(diagnosis: Diagnosis, measured: str) -> str:
    """How to read them, then features, reach of each depth, and samples.

    Args:
        measured: the task in words.
    """
    settings = diagnosis.settings
    blocks, depths, members = diagnosis.blocks, diagnosis.depths, diagnosis.members
    split = f"split={settings['split']}"
    text = f"# {diagnosis.rtil}: {diagnosis.generator}\n\n{READING.read_text(encoding='utf-8')}"
    features = Table(f"Features of G^0, n = {blocks[0].rms.n} samples", [*map(_scales, blocks)])
    reach = Table(
        f"ILO, {settings['stage_steps']} steps a stage, n = {depths[0].all.psnr_db.n} images of "
        f"{split}; all: every pixel, task: {measured}, no noise",
        [*map(_reach, depths)],
    )
    samples = Table(
        f"Samples against {split}, n = {members[0].precision.n} of each", [*map(_samples, members)]
    )
    return text + markdown([features, reach, samples])


def _scales(block: Block) -> dict[str, str]:
    return {
        "block": str(block.k),
        "shape": "x".join(map(str, block.shape)),
        "std": _mean(block.std, 3),
        "rms": _mean(block.rms, 3),
        "sigma": _number(block.sigma),
        "sigma/rms": _number(block.sigma_over_rms),
    }


def _reach(depth: Depth) -> dict[str, str]:
    row = {"depth": str(depth.k), "psnr_all [dB]": _mean(depth.all.psnr_db, 4)}
    for name, reach in (("all", depth.all), ("task", depth.task)):
        row[f"z/sigma, {name}"] = _mean(reach.z_over_sigma, 3)
        row[f"z/rms, {name}"] = _mean(reach.z_over_rms, 3)
        row[f"jump, {name}"] = _mean(reach.jump, 3)
    return row


def _samples(samples: Samples) -> dict[str, str]:
    row = {
        "samples": samples.member,
        "Frechet distance": _estimate(samples.frechet, ".3g"),
        "precision": _estimate(samples.precision, ".3f"),
        "recall": _estimate(samples.recall, ".3f"),
    }
    found = samples.inception
    if found is not None:
        row |= {"FID": f"{found.fid:.2f}", "KID": f"{found.kid:.5f} (std {found.kid_std:.5f})"}
    return row


def _mean(mean: Mean | None, digits: int) -> str:
    return NOTHING if mean is None else mean.text(f".{digits}g")


def _estimate(e: Estimate, form: str) -> str:
    return f"{e.value:{form}} [{e.low:{form}}, {e.high:{form}}]"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"
