"""What the loop of `rtil.invert` works on: the contract, and held-out images measured here.

Measurements that the user gives in files, without a true image, are in
`rtil.inversion.user_files`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from rtil.data.base import ImageData, to_float
from rtil.inversion import measurement_file as measurement
from rtil.inversion.estimate import Recovered
from rtil.inversion.selection import Oracle
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.inverter import Reconstruction
from rtil.metrics.image import gradient_energy, psnr, ssim, to_unit
from rtil.metrics.intervals import mean_ci
from rtil.metrics.perceptual import LPIPS
from rtil.operators import KNOBS, ForwardOperator
from rtil.process.device import Runtime
from rtil.process.rng import seeded
from rtil.runs import record
from rtil.runs import rows as jsonl
from rtil.runs import rows as results


class Part(NamedTuple):
    """Images that one operator measures, so that they can be inverted together.

    items: what is left of them for this process, in the numbering of its problem.
    """

    A: ForwardOperator
    loss: MeasurementLoss
    items: list[int]


class Measured(NamedTuple):
    """A batch: y (B, *A.out_shape); the true images (B, C, H, W) and their oracle, if known."""

    y: Tensor
    x: Tensor | None = None
    oracle: Oracle | None = None


class Problem(ABC):
    """Measurements to invert, and what becomes of their reconstructions.

    Attributes:
        place: directory of the results.
        parts: one for each operator, with what is left to do for this process.
        left: whether any process has something left.
    """

    place: Path
    parts: list[Part]
    left: bool

    @abstractmethod
    def claim(self, provenance: Mapping) -> None:
        """Prepares `place`; every process calls it. Raises ValueError where it is taken."""

    @abstractmethod
    def name(self, item: int) -> str:
        """What the random draws of an item's inversion are seeded with."""

    @abstractmethod
    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        """The measurements of a batch."""

    @abstractmethod
    def keep(
        self,
        A: ForwardOperator,
        items: Sequence[int],
        measured: Measured,
        found: Recovered,
        linear: Reconstruction | None,
        seconds: float,
    ) -> None:
        """Writes what is known of a batch.

        Args:
            found: what is reported of the inverter's run.
            linear: by the yardstick, where there is one.
            seconds: that the inversion took for each image.
        """

    @abstractmethod
    def summarise(self) -> None:
        """Prints what all processes wrote."""


class HeldOut(Problem):
    """Images of a data set, measured here and scored against themselves: a row for each.

    Args:
        config: resolved configuration.
        data: the split.
        A, loss: operator and data term.
        lpips: network for the scores.
        place: run directory; images that have a row there are left out.
    """

    def __init__(
        self,
        config: dict,
        data: ImageData,
        A: ForwardOperator,
        loss: MeasurementLoss,
        lpips: LPIPS | None,
        place: Path,
        rt: Runtime,
    ) -> None:
        self.config, self.data, self.lpips, self.place, self.rt = config, data, lpips, place, rt
        done = {row["id"] for row in jsonl.result_rows(place)}
        todo = [i for i in range(config["num_images"]) if data.name(i) not in done]
        self.left = bool(todo)
        self.parts = [Part(A, loss, todo[rt.rank :: rt.world])]

    def claim(self, provenance: Mapping) -> None:
        if self.rt.rank:
            return
        record.claim(self.place, self.config, "invert")
        record.write_provenance(self.place, provenance, self.config)
        for path in self.place.glob("results*.jsonl"):
            jsonl.mend(path)

    def name(self, item: int) -> str:
        return self.data.name(item)

    def measure(self, A: ForwardOperator, items: Sequence[int]) -> Measured:
        seed, noise_std = self.config["seed"], self.config["noise_std"]
        x = to_float(self.data.batch(items)).to(self.rt.device)
        rngs = [seeded("cpu", seed, self.name(i), "measurement noise") for i in items]
        oracle = Oracle(to_unit(x), keep=self.config["selection"] == "oracle")
        return Measured(A.noisy(A(x), noise_std, rngs), x, oracle)

    def keep(
        self,
        A: ForwardOperator,
        items: Sequence[int],
        measured: Measured,
        found: Recovered,
        linear: Reconstruction | None,
        seconds: float,
    ) -> None:
        config, names = self.config, [self.name(i) for i in items]
        rows = score(config, names, measured, found, linear, self.lpips, seconds)
        if config["pictures"]:
            draw(self.place / "images", names, A, measured, found, linear, config["selection"])
        if config["save_measurements"]:
            self._save(A, names, measured.y)
        rank = self.rt.rank
        results.append(self.place / f"results{f'-{rank}' if rank else ''}.jsonl", rows)

    def _save(self, A: ForwardOperator, names: list[str], y: Tensor) -> None:
        """Writes measurements/<id>.npz, which `input` takes."""
        config, folder = self.config, self.place / "measurements"
        folder.mkdir(exist_ok=True)
        mask = A.observed if config["mask"] else None
        drawn = ("ratio", "seed") if mask is None and "ratio" in config else ()
        keys = ("task", "noise_std", *drawn, *(k for k in KNOBS if k in config and k != "ratio"))
        settings = {"image_shape": A.in_shape, **{key: config[key] for key in keys}}
        for name, value in zip(names, y):
            measurement.save(folder / f"{name}.npz", value, {"id": name, **settings}, mask)

    def summarise(self) -> None:
        """Prints the means with their intervals over every row of the directory."""
        rows = jsonl.result_rows(self.place)
        lines = [f"{self.place}: {len(rows)} images"]
        chosen = "oracle " if any(row.get("selection") == "oracle" for row in rows) else ""
        names = {
            "psnr_db": f"{chosen}PSNR",
            "last_psnr_db": "PSNR of the last iterate",
            "best_psnr_db": "PSNR of the lowest loss on what the inverter saw",
            "single_psnr_db": "mean PSNR of single starts",
            "generated_psnr_db": "PSNR before back-projection",
            "oracle_psnr_db": "oracle PSNR (picked by the true image)",
            "lmmse_psnr_db": "PSNR of the LMMSE yardstick",
            "ssim": f"{chosen}SSIM",
            "lpips": f"{chosen}LPIPS",
            "gradient_energy": f"{chosen}gradient energy",
        }
        for key, name in names.items():
            values = [row[key] for row in rows if row.get(key) is not None]
            if values:
                mean, half = mean_ci(values)
                unit = " dB" if key.endswith("_db") else ""
                ci = f"(95 % CI, n = {len(values)})"
                lines.append(f"{name}: {mean:.3f} +- {half:.3f}{unit}  {ci}")
        print("\n  ".join(lines))


def score(
    config: dict,
    names: list[str],
    measured: Measured,
    found: Recovered,
    linear: Reconstruction | None,
    lpips: LPIPS | None,
    seconds: float,
) -> list[dict]:
    """One row per image: the selected iterate, the last one, the oracle and the yardstick.

    What `Recovered` holds besides has columns of its own. Averages and back-projections trade
    sharpness for PSNR, so every image has its gradient energy beside its PSNR.
    """
    x = measured.x
    columns = {
        **quality("", found.image, x, lpips),
        "loss": found.loss.tolist(),
        **quality("last_", found.last, x, None),
        "last_loss": found.last_loss.tolist(),
        "oracle_psnr_db": measured.oracle.best.tolist(),
        **quality("lmmse_", linear.image if linear else None, x, lpips),
        **found.facts,
    }
    for prefix, image in found.others.items():
        columns |= quality(prefix, image, x, lpips)
    if found.singles is not None:
        each = [quality("single_", image, x, lpips) for image in found.singles]
        columns |= {
            key: [mean(values) for values in zip(*(one[key] for one in each))] for key in each[0]
        }
    return [
        {
            "id": name,
            **{key: values[b] for key, values in columns.items()},
            "seconds": seconds,
            "selection": config["selection"],
        }
        for b, name in enumerate(names)
    ]


def mean(values: Sequence[float | None]) -> float | None:
    """Mean over the starts of an image; None for a metric that is not measured."""
    return None if None in values else sum(values) / len(values)


@torch.no_grad()
def quality(prefix: str, image: Tensor | None, x: Tensor, lpips: LPIPS | None) -> dict[str, list]:
    """PSNR, SSIM, gradient energy and, with a network, LPIPS of images (B, C, H, W) against x.

    A list of one value per image each; None where there is none, as the gradient energy of a
    constant x.
    """
    nothing = [None] * len(x)
    if image is None:
        return {
            f"{prefix}{key}": nothing for key in ("psnr_db", "ssim", "lpips", "gradient_energy")
        }
    a, b = to_unit(image), to_unit(x)
    sharp = gradient_energy(a, b).tolist()
    return {
        f"{prefix}gradient_energy": [value if math.isfinite(value) else None for value in sharp],
        f"{prefix}psnr_db": psnr(a, b).tolist(),
        f"{prefix}ssim": ssim(a, b).tolist(),
        f"{prefix}lpips": lpips(image.clamp(-1, 1), x).tolist() if lpips else nothing,
    }


def draw(
    folder: Path,
    names: list[str],
    A: ForwardOperator,
    measured: Measured,
    found: Recovered,
    linear: Reconstruction | None,
    selection: str,
) -> None:
    """Writes <id>.png, or <id>-oracle.png, and its original, measurement and yardstick."""
    from torchvision.utils import save_image  # slow to import

    folder.mkdir(exist_ok=True)
    pictures = {
        "-oracle" if selection == "oracle" else "": found.image,
        "-original": measured.x,
        "-measurement": A.measurement_image(measured.y),
        "-lmmse": linear.image if linear else None,
    }
    for suffix, images in pictures.items():
        for name, image in zip(names, () if images is None else to_unit(images)):
            save_image(image, folder / f"{name}{suffix}.png")
