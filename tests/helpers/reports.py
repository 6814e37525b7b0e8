"""Runs written by hand, and the reports on them."""

import hashlib
import json

import numpy as np
import torch
import yaml
from hydra import compose, initialize_config_dir
from PIL import Image

from rtil import checkpoint, report
from rtil.process.command import CONFIGS
from rtil.process.instantiate import instantiate
from rtil.reporting.arrange import differences_among, rows_of, with_missing
from rtil.reporting.tables import record
from rtil.runs import run as run_files

FAMILY = {"_target_": "rtil.latents.family.additive", "sigma": 0.5, "mixture": True}


MODEL = {
    "_target_": "rtil.models.stylegan2.StyleGAN2Generator",
    "resolution": 8,
    "channels": {4: 4, 8: 4},
    "image_channels": 1,
    "z_dim": 8,
    "num_mapping": 1,
}


def make_run(
    root,
    arm,
    psnr,
    seed=0,
    settings=None,
    pictures=True,
    lmmse=True,
    name=None,
    task=None,
    **knobs,
):
    """Writes a run with {image: psnr_db} and returns its directory."""
    knobs = knobs or {"ratio": 0.1}
    config = {
        "model": {"name": "stylegan2"},
        "rtil": {"name": arm},
        "data": {"name": "glyphs", "path": None, "origin": "see https://example.org"},
        "scale": {"name": "demo"},
        "seed": seed,
        "root": str(root),
        "noise_std": 0.0,
        "task": {"name": task or ("sr" if "factor" in knobs else "cs")},
        "inverter": {"name": "ilo", "steps": [4, 2], **(settings or {})},
        "generator": None,
        **knobs,
    }
    trained = root / "train" / f"{arm}-{seed}"
    if (trained / "generator.pt").exists():
        content = (trained / "generator.pt").read_bytes()
        config["generator_sha256"] = hashlib.sha256(content).hexdigest()
    label = name or "-".join(f"{k}{v}" for k, v in {**knobs, **(settings or {})}.items())
    run_dir = root / "invert" / trained.name / label
    (run_dir / "images").mkdir(parents=True)
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    rows = []
    for i, (image, value) in enumerate(psnr.items()):
        rows.append(
            {
                "id": image,
                "psnr_db": value,
                "ssim": value / 100,
                "lpips": None,
                "loss": 0.1,
                "seconds": 1.0,
                "oracle_psnr_db": value + 3,
                "last_psnr_db": value - 1,
                "last_ssim": 0.1,
                "lmmse_psnr_db": 15.0 + i if lmmse else None,
                "lmmse_ssim": 0.5 if lmmse else None,
            }
        )
        for suffix in ("", "-original", "-measurement", "-lmmse") if pictures else ():
            grey = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(grey).save(run_dir / "images" / f"{image}{suffix}.png")
    (run_dir / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run_dir


def make_generator(root, arm, depths, seed=0):
    """Exports a tiny generator where an inversion with the same choices looks for it."""
    torch.manual_seed(len(arm))
    G = instantiate(MODEL)
    config = {
        "model": {"name": "stylegan2", "generator": MODEL},
        "rtil": {"name": arm, "family": {**FAMILY, "depths": depths}},
    }
    path = root / "train" / f"{arm}-{seed}" / "generator.pt"
    path.parent.mkdir(parents=True)
    checkpoint.save(
        {
            "format": checkpoint.EXPORT,
            "config": config,
            "nimg": 1,
            "step": 1,
            "G_ema": G.state_dict(),
        },
        path,
    )


def rows_below(root, baseline="vanilla"):
    """Rows of every run below root."""
    return rows_of_runs(run_files.collect(root)[0], baseline)


def rows_of_runs(runs, baseline="vanilla"):
    return with_missing(rows_of(runs, baseline, differences_among), baseline)


def table_of(root, baseline="vanilla"):
    """Records of every row below root, as table.json has them."""
    return [record(row) for row in rows_below(root, baseline)]


def lines_of(table):
    """A table as {heading: text} of each line."""
    return [dict(zip(table.headings, line)) for line in table.lines]


def column_of(table, heading):
    """The texts under a heading of a table."""
    return [line[heading] for line in lines_of(table)]


def run_report(root, **changes):
    """Writes the report below root and returns its folder."""
    overrides = [f"root={root}", *(f"{key}={value}" for key, value in changes.items())]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        return report.report(compose("report", overrides)).parent
