"""Why a generator inverts as it does: `python -m rtil.diagnose generator=FILE`.

Three tables, one figure and a json: the scale of every block's features (`rtil.diagnosis.reach`),
how far each depth of ILO reaches and what happens where a stage hands over, and how close the
samples of each family member are to real images (`rtil.metrics.samples`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from rtil import invert
from rtil.data import lineage
from rtil.data.base import to_float
from rtil.data.load import load_data
from rtil.diagnosis import reach as probe
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.latents.family import shown_members
from rtil.latents.space import MapScale, Member
from rtil.metrics.intervals import mean_ci
from rtil.metrics.samples import Estimate, RandomFeatures, frechet_estimate, precision_recall
from rtil.models.generator import Generator
from rtil.operators import KNOBS, Identity, build_operator
from rtil.process.command import CONFIGS, check_numbers, entry
from rtil.process.device import start
from rtil.process.instantiate import instantiate
from rtil.process.provenance import provenance
from rtil.process.rng import seeded
from rtil.reporting import figures
from rtil.reporting.table import grid_text
from rtil.runs import results

READING = (
    "± and [ ]: 95 % intervals over n. psnr_all: PSNR of ILO with every pixel observed, what the "
    "depth can represent; it looks at the true image. z/sigma: rms of z_k at the end of stage k "
    "over the sigma that training drew z_k with. jump: rms change of the [0, 1] image where stage "
    "k takes over, before its first step. Frechet distance of random convolutional features: no "
    "FID, compare at the same data and n alone; the row of training images is what other real "
    "images get. Recall of scattered samples is high, for their balls are wide: read it beside "
    "precision."
)


def diagnose(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Writes diagnose.json, .md and .png, prints the tables, and returns their directory.

    Args:
        cfg: composed from diagnose.yaml.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    check_numbers(
        "diagnose",
        cfg,
        {"num_samples": 8, "dims": 1, "neighbours": 1, "bootstrap": 2, "stage_steps": 1},
    )
    if cfg.inverter.name != "ilo":
        raise ValueError(
            f"diagnose: inverter={cfg.inverter.name} has no stages to look at; it must be ilo."
        )
    invert.check_settings(cfg)
    rt = start(**cfg.hardware)
    path, digest, G, trained = invert.load(cfg, overrides)
    config = OmegaConf.to_container(cfg, resolve=True)
    explicit = digest[:8] if config["generator"] else ""
    place = results.inversion_place("diagnose", config, overrides, explicit)
    place = Path(config["out"] or place)
    inverter = invert.build_inverter(config)
    inverter.check(G)
    G = G.to(rt.device, memory_format=rt.layout)
    family = instantiate(config["rtil"]["family"])
    spaces = shown_members([family])
    real, training = images(config, G, trained)
    scales = blocks(G, spaces, config)
    found = {
        "generator": str(path),
        "generator_sha256": digest,
        "rtil": config["rtil"]["name"],
        "blocks": scales,
        "depths": reach(G, inverter, real, spaces, scales, config),
        "members": members(G, spaces, real, training, config),
        "settings": config,
        "inverter": asdict(inverter),
        "provenance": provenance(rt),
    }
    place.mkdir(parents=True, exist_ok=True)
    results.write_text(place / "diagnose.json", json.dumps(finite(found), indent=1) + "\n")
    text = tables(found)
    results.write_text(place / "diagnose.md", text)
    figure(found, place / "diagnose.png")
    print(f"{text}\n{place}")
    return place


def images(config: Mapping, G: Generator, trained: Mapping) -> tuple[Tensor, Tensor]:
    """Held-out images of config.split and as many of the generator's training, in [-1, 1]."""
    channels, size = G.image_shape[:2]
    device, sets = next(G.parameters()).device, []
    there = lineage.training_data(trained, config["data"])
    for data, split in ((config["data"], config["split"]), (there, "train")):
        found = load_data(data, size, split, channels, config["num_images"])
        count = min(config["num_samples"], len(found))
        sets.append(to_float(found.batch(range(count))).to(device))
    return sets[0], sets[1]


def sigma_of(spaces: Sequence[Member], k: int) -> MapScale | None:
    """The sigma that training drew z_k with, and whether it is relative; None where it did not."""
    scales = [space.map_scale(k) for space in spaces]
    return next((scale for scale in scales if scale is not None and scale.sigma > 0), None)


def blocks(G: Generator, spaces: Sequence[Member], config: Mapping) -> list[dict]:
    """Scale of each block's features, and the training sigma over it."""
    count, rows = min(config["num_samples"], 256), []
    for k, scales in probe.feature_scales(G, count, config["seed"]).items():
        sigma, rms = sigma_of(spaces, k), mean(scales["rms"])
        share = sigma and sigma[0] / (1.0 if sigma[1] else rms["mean"])
        rows.append(
            {
                "k": k,
                "shape": list(G.shapes[k]),
                "std": mean(scales["std"]),
                "rms": rms,
                "sigma": sigma and sigma[0],
                "sigma_over_rms": share,
            }
        )
    return rows


def reach(
    G: Generator,
    inverter: ILO,
    real: Tensor,
    spaces: Sequence[Member],
    scales: Sequence[Mapping],
    config: Mapping,
) -> list[dict]:
    """ILO up to each depth, with all pixels observed ("all") and measured by the task ("task")."""
    x, seed = real[: config["num_images"]], config["seed"]
    knobs = {key: config.get(key) for key in (*KNOBS, "noise_std")}
    operators = {
        "all": Identity(G.image_shape),
        "task": build_operator(config["task"], G.image_shape, seed, **knobs),
    }
    rms = {row["k"]: row["rms"]["mean"] for row in scales}
    rows = [{"k": k} for k in range(len(inverter.stages))]
    for name, A in operators.items():
        A = A.to(x.device)
        found = probe.depths(
            G,
            inverter,
            A,
            x,
            MeasurementLoss(A, mse=config["loss"]["mse"]),
            lambda: [seeded("cpu", seed, i, "diagnose") for i in range(len(x))],
        )
        for row, depth in zip(rows, found):
            sigma = sigma_of(spaces, depth.k) if depth.k else None
            unit = sigma and sigma[0] * (rms[depth.k] if sigma[1] else 1.0)
            z = depth.z_rms
            row[name] = {
                "psnr_db": mean(depth.psnr_db),
                "z_rms": z and mean(z),
                "z_over_sigma": mean([v / unit for v in z]) if z and unit else None,
                "z_over_rms": z and mean([v / rms[depth.k] for v in z]),
                "jump": depth.jump and mean(depth.jump),
            }
    return rows


def members(
    G: Generator, spaces: Sequence[Member], real: Tensor, training: Tensor, config: Mapping
) -> list[dict]:
    """Samples of each member against the real images, n of both equal, and training images too."""
    features = RandomFeatures(training, config["dims"])
    count, there = len(real), features(real)
    sets = {"training images": training[:count]}
    sets |= {space.name: None for space in spaces}
    rows = []
    for space, (name, shown) in zip([None, *spaces], sets.items()):
        samples = probe.draw(G, space, count, config["seed"]) if shown is None else shown
        here = features(samples)
        precision, recall = precision_recall(here, there, config["neighbours"])
        distance = frechet_estimate(here, there, config["bootstrap"], config["seed"])
        rows.append(
            {
                "member": name,
                "frechet": distance._asdict(),
                "precision": precision._asdict(),
                "recall": recall._asdict(),
                "explained": features.explained,
            }
        )
    return rows


def mean(values: Sequence[float]) -> dict[str, float | int]:
    """Mean, half-width of its 95 % interval and n."""
    value, half = mean_ci(values)
    return {"mean": value, "ci95": half, "n": len(values)}


def finite(value: object) -> object:
    """The value with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tables(found: Mapping) -> str:
    """The three tables in Markdown."""

    def pm(value: Mapping | None, digits: int) -> str:
        if value is None:
            return "–"
        half = "" if math.isnan(value["ci95"]) else f" ± {value['ci95']:.{digits}g}"
        return f"{value['mean']:.{digits}g}{half}"

    def within(value: Mapping, form: str) -> str:
        e = Estimate(**value)
        return f"{e.value:{form}} [{e.low:{form}}, {e.high:{form}}]"

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3g}"

    scales = [
        {
            "block": str(row["k"]),
            "shape": "x".join(map(str, row["shape"])),
            "std": pm(row["std"], 3),
            "rms": pm(row["rms"], 3),
            "sigma": number(row["sigma"]),
            "sigma/rms": number(row["sigma_over_rms"]),
        }
        for row in found["blocks"]
    ]
    stages = [
        {
            "depth": str(row["k"]),
            "psnr_all [dB]": pm(row["all"]["psnr_db"], 4),
            **{
                f"{label}, {name}": pm(row[name][key], 3)
                for name in ("all", "task")
                for label, key in (
                    ("z/sigma", "z_over_sigma"),
                    ("z/rms", "z_over_rms"),
                    ("jump", "jump"),
                )
            },
        }
        for row in found["depths"]
    ]
    sets = [
        {
            "samples": row["member"],
            "Frechet distance": within(row["frechet"], ".3g"),
            "precision": within(row["precision"], ".3f"),
            "recall": within(row["recall"], ".3f"),
        }
        for row in found["members"]
    ]
    n = {
        "blocks": found["blocks"][0]["rms"]["n"],
        "depths": found["depths"][0]["all"]["psnr_db"]["n"],
        "members": found["members"][0]["precision"]["n"],
    }
    config = found["settings"]
    task = next((f"{key} {config[key]:g}" for key in (*KNOBS, "noise_std") if config.get(key)), "")
    text = f"# {found['rtil']}: {found['generator']}\n\n{READING}\n"
    text += grid_text(f"Features of G^0, n = {n['blocks']} samples", scales)
    text += grid_text(
        f"ILO, {config['stage_steps']} steps a stage, n = {n['depths']} images of split="
        f"{config['split']}; all: every pixel, task: {config['task']['name']} {task}, no noise",
        stages,
    )
    return text + grid_text(
        f"Samples against split={config['split']}, n = {n['members']} of each", sets
    )


def figure(found: Mapping, path: Path) -> None:
    """Draws feature scales, reach, z over sigma (or over the features) and the members."""
    fig = Figure(figsize=(11, 8), dpi=figures.DPI, layout="constrained")
    axes = fig.subplots(2, 2).flatten()
    ks = [row["k"] for row in found["blocks"]]
    for i, key in enumerate(("std", "rms")):
        bars(axes[0], ks, [row[key] for row in found["blocks"]], i, key)
    sigmas = [(row["k"], row["sigma"]) for row in found["blocks"] if row["sigma"]]
    if sigmas:
        axes[0].plot(*zip(*sigmas), color=figures.GREY, linestyle="--", label="sigma of training")
    axes[0].set(xlabel="block", ylabel="scale of x_k", title="Features of G^0")
    rows = found["depths"]
    bars(
        axes[1],
        [row["k"] for row in rows],
        [row["all"]["psnr_db"] for row in rows],
        0,
        "every pixel observed",
    )
    axes[1].set(xlabel="last stage of ILO", ylabel="PSNR [dB]", title="What each depth represents")
    over = "sigma" if any(row["all"]["z_over_sigma"] for row in rows) else "rms"
    for i, name in enumerate(("all", "task")):
        there = [row for row in rows if row[name][f"z_over_{over}"]]
        if there:
            bars(
                axes[2],
                [row["k"] for row in there],
                [row[name][f"z_over_{over}"] for row in there],
                i,
                name,
            )
    axes[2].axhline(1, color=figures.GREY, linewidth=0.8)
    axes[2].set(xlabel="stage k", ylabel=f"rms of z_k / {over}", title="z_k after inversion")
    names = [row["member"] for row in found["members"]]
    for i, key in enumerate(("precision", "recall")):
        values = [Estimate(**row[key]) for row in found["members"]]
        ends = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
        axes[3].errorbar(
            range(len(values)),
            [v.value for v in values],
            ends,
            label=key,
            color=figures.COLOURS[i],
            marker=figures.MARKERS[i],
            linestyle="",
            capsize=4,
        )
    labels = [f"${name}$" if "^" in name else name for name in names]
    labels = [
        f"{label}\nFD {row['frechet']['value']:.3g}"
        for label, row in zip(labels, found["members"])
    ]
    axes[3].set_xticks(range(len(names)), labels)
    axes[3].set(ylim=(-0.02, 1.02), title="Samples against real images")
    for ax in axes:
        ax.grid(True, color="#dddddd", linewidth=0.8)
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=9)
    fig.suptitle(f"{found['rtil']}, {found['generator_sha256'][:8]}")
    fig.savefig(path)


def bars(ax, x: Sequence[float], values: Sequence[Mapping], number: int, label: str) -> None:
    """A line of means with their intervals."""
    halves = [0.0 if math.isnan(v["ci95"]) else v["ci95"] for v in values]
    ax.errorbar(
        x,
        [v["mean"] for v in values],
        halves,
        label=label,
        capsize=4,
        color=figures.COLOURS[number],
        marker=figures.MARKERS[number],
    )
    ax.set_xticks(x)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="diagnose")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: (diagnose(cfg), None)[1])


if __name__ == "__main__":
    main()
