"""Reconstructs held-out images from measurements: `python -m rtil.invert task=cs ratio=0.05`.

Loads G, builds A, measures, inverts, scores, and appends one row per image. Images that have a
row already are left out, so the same command goes on where it was stopped.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from rtil import checkpoint, metrics, results
from rtil.data import ImageData, load_data, to_float
from rtil.inverters.inverter import Inverter, Reconstruction
from rtil.inverters.linear import LinearEstimate
from rtil.inverters.lmmse import LMMSE, GaussianPrior
from rtil.losses import MeasurementLoss
from rtil.metrics import to_unit
from rtil.models.generator import Generator
from rtil.operators import KNOBS, ForwardOperator, build_operator, check_task
from rtil.runtime import (
    CONFIGS,
    Runtime,
    all_sum,
    check_numbers,
    entry,
    provenance,
    seeded,
    start,
    stop,
)

log = logging.getLogger("rtil.invert")
ADOPTED = ("model", "rtil", "scale", "data")  # groups that an explicit generator brings along


class Oracle:
    """PSNR of the best iterate, judged by the true image: no user has it, so never a result."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.best = x, torch.full((len(x),), -torch.inf, device=x.device)

    def __call__(self, image: Tensor) -> None:
        self.best = torch.maximum(self.best, metrics.psnr(to_unit(image), self.x))


def invert(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Inverts cfg.num_images images of cfg.split that have no row yet.

    Args:
        cfg: composed from invert.yaml.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Returns:
        The run directory.

    Raises:
        ValueError, FileNotFoundError: bad settings, generator or data, before any inversion.
        RuntimeError: a loss that is not finite; rows already written stay.
    """
    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    check_settings(cfg)
    rt = start(**cfg.hardware)
    path, digest, G, trained_on = load(cfg, overrides)
    config = OmegaConf.to_container(cfg, resolve=True)
    config |= {"generator": str(path), "generator_sha256": digest}
    knobs = {key: config.get(key) for key in (*KNOBS, "noise_std")}
    A = build_operator(config["task"], G.image_shape, config["seed"], **knobs)
    loss = MeasurementLoss(A, **config["loss"]).to(rt.device)
    if config["loss"]["lpips"] and loss.lpips is None:
        log.warning("LPIPS is left out of the loss: loss.lpips_min_ratio is not reached.")
    lpips = load_lpips(config["metrics"], G.image_shape)
    data = load_data(
        config["data"], G.image_shape[1], config["split"], G.image_shape[0], config["num_images"]
    )
    inverter = build_inverter(config)
    if inverter is not None:
        inverter.check(G)
    if isinstance(inverter, LinearEstimate):
        inverter.check_operator(A)

    label = results.run_label("invert", config, overrides)
    trained = results.run_label("train", config, overrides)
    if cfg.generator:
        trained = f"{trained},{digest[:8]}"
    run_dir = Path(config["run_dir"] or Path(config["root"]) / "invert" / trained / label)
    config["run_dir"] = str(run_dir)
    done = {row["id"] for row in results.result_rows(run_dir)}
    left = any(data.name(i) not in done for i in range(config["num_images"]))
    yardstick = load_yardstick(config, A, G, trained_on) if left else None
    if rt.rank == 0:
        results.claim(run_dir, config, results.FREE_INVERT)
        results.write_provenance(run_dir, provenance(rt))
        for path in run_dir.glob("results*.jsonl"):
            results.mend(path)
    all_sum(torch.zeros(1, device=rt.device))  # every process waits for the directory
    try:
        G = G.to(rt.device, memory_format=rt.layout)
        A, method = A.to(rt.device), inverter or yardstick
        loop(config, rt, G, A, loss, method, yardstick, lpips, data, run_dir)
        all_sum(torch.zeros(1, device=rt.device))
    finally:
        stop()
    if rt.rank == 0:
        summarise(run_dir)
    return run_dir


def loop(
    config: dict, rt: Runtime, G: Generator, A: ForwardOperator, loss: MeasurementLoss,
    inverter: Inverter, yardstick: LMMSE | None, lpips: metrics.LPIPS | None, data: ImageData,
    run_dir: Path,
) -> None:
    """Measures, inverts and scores this process's images in batches, one row per image."""
    done = {row["id"] for row in results.result_rows(run_dir)}
    todo = [i for i in range(config["num_images"]) if data.name(i) not in done]
    todo, size, seed = todo[rt.rank :: rt.world], config["inversion_batch"], config["seed"]
    path = run_dir / (f"results-{rt.rank}.jsonl" if rt.rank else "results.jsonl")
    bar = tqdm(total=len(todo), unit="img", disable=rt.rank > 0,
               mininterval=0.5 if sys.stderr.isatty() else 30)

    def batch(indices: list[int]) -> list[dict]:
        names = [data.name(i) for i in indices]
        x = to_float(data.batch(indices)).to(rt.device)
        rngs = [seeded("cpu", seed, name, "measurement noise") for name in names]
        y = A.noisy(A(x), config["noise_std"], rngs)

        oracle, begin = Oracle(to_unit(x)), time.perf_counter()
        rngs = [seeded("cpu", seed, name, "inversion") for name in names]
        found = inverter.invert(G, A, y, loss, rngs, watch=oracle)
        seconds = (time.perf_counter() - begin) / len(indices)

        linear = yardstick.invert(None, A, y, loss) if yardstick else None
        rows = score(config, names, x, found, oracle, linear, lpips, seconds)
        if config["pictures"]:
            draw(run_dir / "images", names, A, x, y, found, linear, config["selection"])
        return rows

    first = 0
    while first < len(todo):
        indices, rows = todo[first : first + size], None
        try:
            rows = batch(indices)
        except RuntimeError as error:
            if not out_of_memory(error) or len(indices) == 1:
                raise
        if rows is None:  # past the except, where the error would hold the memory
            size = len(indices) // 2
            log.warning("Out of memory with %d images at a time: trying %d.", len(indices), size)
            if rt.device.type == "cuda":
                torch.cuda.empty_cache()
            continue
        results.append_rows(path, rows)
        bar.update(len(indices))
        first += len(indices)
    bar.close()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether a device or the host had no memory left for a tensor."""
    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def score(
    config: dict, names: list[str], x: Tensor, found: Reconstruction, oracle: Oracle,
    linear: Reconstruction | None, lpips: metrics.LPIPS | None, seconds: float,
) -> list[dict]:
    """One row per image: the selected iterate, the last one, the oracle and the yardstick."""
    last = config["selection"] == "last"
    columns = {
        **quality("", found.last if last else found.image, x, lpips),
        "loss": (found.last_loss if last else found.loss).tolist(),
        **quality("last_", found.last, x, None),
        "last_loss": found.last_loss.tolist(),
        "oracle_psnr_db": oracle.best.tolist(),
        **quality("lmmse_", linear.image if linear else None, x, lpips),
    }
    return [
        {"id": name, **{key: values[b] for key, values in columns.items()}, "seconds": seconds}
        for b, name in enumerate(names)
    ]


@torch.no_grad()
def quality(
    prefix: str, image: Tensor | None, x: Tensor, lpips: metrics.LPIPS | None
) -> dict[str, list]:
    """PSNR, SSIM and, with a network, LPIPS of images (B, C, H, W) against x, per image."""
    nothing = [None] * len(x)
    if image is None:
        return {f"{prefix}{key}": nothing for key in ("psnr_db", "ssim", "lpips")}
    a, b = to_unit(image), to_unit(x)
    return {
        f"{prefix}psnr_db": metrics.psnr(a, b).tolist(),
        f"{prefix}ssim": metrics.ssim(a, b).tolist(),
        f"{prefix}lpips": lpips(image.clamp(-1, 1), x).tolist() if lpips else nothing,
    }


def draw(
    folder: Path, names: list[str], A: ForwardOperator, x: Tensor, y: Tensor,
    found: Reconstruction, linear: Reconstruction | None, selection: str,
) -> None:
    """Writes <id>.png (reconstruction) and its original, measurement and yardstick."""
    from torchvision.utils import save_image  # slow to import

    folder.mkdir(exist_ok=True)
    pictures = {
        "": found.last if selection == "last" else found.image,
        "-original": x,
        "-measurement": A.measurement_image(y),
        "-lmmse": linear.image if linear else None,
    }
    for suffix, images in pictures.items():
        for name, image in zip(names, () if images is None else to_unit(images)):
            save_image(image, folder / f"{name}{suffix}.png")


def check_settings(cfg: DictConfig) -> None:
    """Raises ValueError for settings that no generator or data could fit."""
    lowest = {"num_images": 1, "inversion_batch": 1, "seed": 0, "factor": 1, "noise_std": 0.0}
    check_numbers("invert", cfg, {**lowest, "ratio": 0.0, "blur_std": 0.0})
    check_task(cfg.task, **{key: cfg.get(key) for key in (*KNOBS, "noise_std")})
    if cfg.split not in ("val", "test"):
        raise ValueError(f"invert: split={cfg.split} must be test or val: held-out images only.")
    if cfg.selection not in ("best", "last"):
        raise ValueError(f"invert: selection={cfg.selection} must be best or last.")
    if "generator" not in cfg.model:
        raise ValueError(
            f"invert: model={cfg.model.name} has no trained generator; see python -m rtil.theory."
        )


def load(cfg: DictConfig, overrides: Sequence[str]) -> tuple[Path, str, Generator, dict]:
    """Loads the generator that cfg asks for, and completes cfg with what it brings along.

    With an explicit `generator`, groups that the user did not name are taken from the file.

    Returns:
        The file, its SHA-256, the generator, and the `data` group it was trained with.

    Raises:
        FileNotFoundError: not trained yet; the message holds the command that trains it.
        ValueError: the file holds another model or family than asked for; names the keys.
    """
    path = Path(cfg.generator or "")
    if not cfg.generator:
        config = OmegaConf.to_container(cfg, resolve=True)
        path = results.trained_generator(config, overrides)
        if not path.exists():
            train = results.training_command(config, overrides)
            raise FileNotFoundError(
                f"invert: no generator at {path}. Train it first:\n    {train}\n"
                "or name another with generator=FILE."
            )
    G, trained = checkpoint.load_generator(path)
    named = {text.lstrip("+~").split("=")[0].split(".")[0] for text in overrides}
    if cfg.generator:
        adopt(cfg, trained, named, overrides)
    cfg.image_channels = trained["image_channels"]
    cfg.model.phase_nimg = trained["model"]["phase_nimg"]
    asked = OmegaConf.to_container(cfg, resolve=True)
    parts = {"model": ("name", "generator"), "rtil": ("name", "family")}
    there, here = (
        {group: {key: tree[group][key] for key in keys} for group, keys in parts.items()}
        for tree in (trained, asked)
    )
    differs = results.differing_keys(there, here, ())
    if differs:
        raise ValueError(
            f"invert: {path} holds another generator than asked for:\n  " + "\n  ".join(differs)
            + "\nAsk for that one, or name the right file with generator=FILE."
        )
    if G.num_blocks < G.max_blocks:
        log.warning("%s is still growing: it draws %d pixels a side.", path, G.image_shape[1])
    return path, hashlib.sha256(path.read_bytes()).hexdigest(), G, trained["data"]


def adopt(cfg: DictConfig, trained: dict, named: set[str], overrides: Sequence[str]) -> None:
    """Takes the groups that the user did not name from the generator's own configuration.

    With another family than composed come its tuned settings, where the user gave none.
    """
    composed, given = cfg.rtil.name, {text.lstrip("+~").split("=")[0] for text in overrides}
    OmegaConf.set_struct(cfg, False)
    for group in ADOPTED:
        if group not in named:
            cfg[group] = trained[group]
    name = f"{cfg.inverter.name}_{cfg.rtil.name}_{cfg.task.name}.yaml"
    path = Path(CONFIGS) / "tuned" / name
    if cfg.rtil.name != composed and "tuned" not in named and path.exists():
        log.info("The generator is of rtil=%s: using tuned/%s.", cfg.rtil.name, name)
        overlay = OmegaConf.to_container(OmegaConf.load(path))
        for key, value in results.flatten(overlay).items():
            if key not in given:
                OmegaConf.update(cfg, key, value)
    OmegaConf.set_struct(cfg, True)


def build_inverter(config: dict) -> Inverter | None:
    """The inverter of the configuration; None for LMMSE, which is the yardstick itself."""
    if config["inverter"]["name"] == "lmmse":
        return None
    return checkpoint.build({k: v for k, v in config["inverter"].items() if k != "name"})


def load_yardstick(
    config: dict, A: ForwardOperator, G: Generator, trained_on: dict
) -> LMMSE | None:
    """The linear estimate from the generator's own training images.

    None where it is switched off, and with a warning where A is not linear or images are missing.

    Args:
        trained_on: the `data` group of the generator's training; used where it is another data
            set than the one inverted.
    """
    settings, wanted = config["yardstick"], config["inverter"]["name"] == "lmmse"
    if not settings["use"] and not wanted:
        return None
    source = config["data"]
    if trained_on["name"] != source["name"]:
        source = trained_on
    try:
        LMMSE.check_operator(A)
        data = load_data(source, G.image_shape[1], "train", G.image_shape[0], min_images=2)
    except (FileNotFoundError, ValueError) as error:
        if wanted:
            raise
        log.warning("No LMMSE yardstick: %s", error)
        return None
    count = min(settings["num_train"], len(data))
    chunks = [to_float(data.batch(range(i, min(i + 256, count)))) for i in range(0, count, 256)]
    solver = config["inverter"] if wanted else {}
    solver = {key: solver[key] for key in ("tolerance", "max_steps") if key in solver}
    return LMMSE(GaussianPrior(torch.cat(chunks)), config["noise_std"], **solver)


def load_lpips(settings: dict, shape: tuple[int, int, int]) -> metrics.LPIPS | None:
    """The LPIPS network where asked for, or with "auto" where its backbone is on disk."""
    wanted, net = settings["lpips"], settings["lpips_net"]
    if wanted is False or (wanted == "auto" and min(shape[1:]) < metrics.LPIPS_MIN_SIZES[net]):
        return None
    try:
        return metrics.LPIPS(net)
    except FileNotFoundError:
        if wanted == "auto":
            return None
        raise


def summarise(run_dir: Path) -> None:
    """Prints the means with their intervals over every row of the directory."""
    rows = results.result_rows(run_dir)
    lines = [f"{run_dir}: {len(rows)} images"]
    names = {
        "psnr_db": "PSNR", "last_psnr_db": "PSNR of the last iterate",
        "oracle_psnr_db": "oracle PSNR (picked by the true image)",
        "lmmse_psnr_db": "PSNR of the LMMSE yardstick", "ssim": "SSIM", "lpips": "LPIPS",
    }
    for key, name in names.items():
        values = [row[key] for row in rows if row[key] is not None]
        if values:
            mean, half = metrics.mean_ci(values)
            unit = " dB" if key.endswith("_db") else ""
            lines.append(f"{name}: {mean:.3f} +- {half:.3f}{unit}  (95 % CI, n = {len(values)})")
    print("\n  ".join(lines))


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="invert")
def main(cfg: DictConfig) -> None:
    """Entry point; rows of finished batches stay when it is stopped."""
    entry(lambda: (invert(cfg), None)[1])


if __name__ == "__main__":
    main()
