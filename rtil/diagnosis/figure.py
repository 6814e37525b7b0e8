"""The figure of a diagnosis (diagnose.png): feature scales, reach, z_k, samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rtil.diagnosis.result import Block, Depth, Diagnosis, Samples
from rtil.metrics.intervals import Mean
from rtil.reporting.figures.style import COLOURS, DPI, GREY, MARKERS


def draw(diagnosis: Diagnosis, path: Path) -> None:
    """Draws the four panels into a PNG."""
    figure = Figure(figsize=(11, 8), dpi=DPI, layout="constrained")
    scales, reach, latents, samples = figure.subplots(2, 2).flatten()
    _draw_scales(scales, diagnosis.blocks)
    _draw_reach(reach, diagnosis.depths)
    _draw_latents(latents, diagnosis.depths)
    _draw_samples(samples, diagnosis.members)
    for axes in (scales, reach, latents, samples):
        axes.grid(True, color="#dddddd", linewidth=0.8)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9)
    figure.suptitle(f"{diagnosis.rtil}, {diagnosis.generator_sha256[:8]}")
    figure.savefig(path)


def _draw_scales(axes: Axes, blocks: Sequence[Block]) -> None:
    ks = [block.k for block in blocks]
    _bars(axes, ks, [block.std for block in blocks], 0, "std")
    _bars(axes, ks, [block.rms for block in blocks], 1, "rms")
    sigmas = {block.k: block.sigma for block in blocks if block.sigma is not None}
    if sigmas:
        label = "sigma of training"
        axes.plot([*sigmas], [*sigmas.values()], color=GREY, linestyle="--", label=label)
    axes.set(xlabel="block", ylabel="scale of x_k", title="Features of G^0")


def _draw_reach(axes: Axes, depths: Sequence[Depth]) -> None:
    psnr = [depth.all.psnr_db for depth in depths]
    _bars(axes, [depth.k for depth in depths], psnr, 0, "every pixel observed")
    axes.set(xlabel="last stage of ILO", ylabel="PSNR [dB]", title="What each depth represents")


def _draw_latents(axes: Axes, depths: Sequence[Depth]) -> None:
    # A generator trained without z_k has no sigma to compare with.
    trained = any(depth.all.z_over_sigma for depth in depths)
    for number, name in enumerate(("all", "task")):
        ks, means = [], []
        for depth in depths:
            reach = depth.all if name == "all" else depth.task
            mean = reach.z_over_sigma if trained else reach.z_over_rms
            if mean is not None:
                ks.append(depth.k)
                means.append(mean)
        if means:
            _bars(axes, ks, means, number, name)
    axes.axhline(1, color=GREY, linewidth=0.8)
    unit = "sigma" if trained else "rms"
    axes.set(xlabel="stage k", ylabel=f"rms of z_k / {unit}", title="z_k after inversion")


def _draw_samples(axes: Axes, members: Sequence[Samples]) -> None:
    places = range(len(members))
    for number, key in enumerate(("precision", "recall")):
        shares = [m.precision if key == "precision" else m.recall for m in members]
        axes.errorbar(
            places,
            [share.value for share in shares],
            [
                [share.value - share.low for share in shares],
                [share.high - share.value for share in shares],
            ],
            label=key,
            color=COLOURS[number],
            marker=MARKERS[number],
            linestyle="",
            capsize=4,
        )
    labels = []
    for samples in members:
        name = f"${samples.member}$" if "^" in samples.member else samples.member
        labels.append(f"{name}\nFD {samples.frechet.value:.3g}")
    axes.set_xticks(places, labels)
    axes.set(ylim=(-0.02, 1.02), title="Samples against real images")


def _bars(axes: Axes, x: Sequence[int], means: Sequence[Mean], number: int, label: str) -> None:
    """A line of means with their intervals."""
    axes.errorbar(
        x,
        [mean.mean for mean in means],
        [0.0 if math.isnan(mean.ci95) else mean.ci95 for mean in means],
        label=label,
        capsize=4,
        color=COLOURS[number],
        marker=MARKERS[number],
    )
    axes.set_xticks(x)
