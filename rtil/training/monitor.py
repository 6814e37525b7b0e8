"""What a training run shows of itself: losses, curves, sample grids. Nothing here changes it."""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rtil.data.base import ImageData
from rtil.latents.family import Family
from rtil.metrics.image import to_unit
from rtil.models.generator import Generator
from rtil.process.distributed import all_mean
from rtil.process.files import writing
from rtil.process.progress import Progress
from rtil.process.replay import Noted
from rtil.process.rng import seeded
from rtil.runs import record, rows
from rtil.runs.schema import LOGGED

log = logging.getLogger("rtil.train")

GRID_COLUMNS = 8


class Terms:
    """Per-image losses of the steps since the last report, kept on the device until then."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, tuple[str, ...], Tensor]] = []

    def add(self, step: int, name: str, values: Tensor, members: tuple[str, ...] = ()) -> None:
        """Notes values (B,) of a term; members[b] names the family member of sample b."""
        self.seen.append((step, name, members, values.detach()))

    def note(self, step: int, noted: Noted) -> None:
        """Adds all that a part of a step noted."""
        for name, values, members in noted:
            self.add(step, name, values, members)

    def report(self) -> dict[str, float]:
        """Mean of each term over the steps and processes, and forgets them.

        Every process has to call it after the same steps.

        Raises:
            RuntimeError: a value is not finite; names the step, the term and the member.
        """
        if not self.seen:
            return {}
        device, found = self.seen[0][3].device, ""
        means: dict[str, list[float]] = {}
        for step, name, members, values in self.seen:
            values = values.cpu()
            for b in torch.nonzero(~values.isfinite()).flatten().tolist():
                member = f" of member {members[b]}" if members else ""
                found = found or f"{name}{member} is {values[b]:.3g} at step {step}"
            means.setdefault(name, []).append(float(values.mean()))
        self.seen = []
        own = [sum(values) / len(values) for values in means.values()]
        # What is not finite in one process is so in the mean, which ends all of them.
        shared = all_mean(torch.tensor(own, dtype=torch.float64, device=device))
        if not bool(shared.isfinite().all()):
            raise RuntimeError(
                f"train: the loss term {found or 'of another process is not finite'}. The last "
                "checkpoint is from before it; lower model.lr or rtil.family.sigma."
            )
        return dict(zip(means, shared.tolist()))


class Board:
    """Progress bar, log.jsonl and TensorBoard curves of one run.

    Args:
        run_dir: where log.jsonl and tensorboard/ go; rows past nimg are dropped.
        nimg: images seen so far.
        total: images at the end.
        device: whose memory the rows tell.
        data: the images; unreadable files that this process meets are counted as they turn up.
    """

    def __init__(
        self, run_dir: Path, nimg: int, total: int, device: torch.device, data: ImageData
    ) -> None:
        self.begin = self.since = time.perf_counter()
        self.first = self.since_nimg = nimg
        self.note = ""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self.run_dir, self.device, self.data = run_dir, device, data
        self.path = run_dir / "log.jsonl"
        rows.mend(self.path, keep=lambda row: row["nimg"] <= nimg, kind=LOGGED)
        # Points beyond the checkpoint are drawn anew; that of the checkpoint itself stays.
        self.writer = SummaryWriter(str(run_dir / "tensorboard"), purge_step=nimg + 1)
        self.progress = Progress(total, "img", nimg)
        log.info("Training %s from image %d to %d.", run_dir, nimg, total)

    def advance(self, nimg: int) -> None:
        """Shows that training is at nimg."""
        self.progress.to(nimg, self.note)

    def write(self, nimg: int, step: int, means: dict[str, float]) -> None:
        """Adds one row to every record: means of terms, speed since the last row, memory."""
        now = time.perf_counter()
        row = {
            **means,
            "images_per_second": (nimg - self.since_nimg) / (now - self.since),
            "peak_memory_mb": peak_memory_mb(self.device),
            "seconds": now - self.begin,
        }
        unreadable = len(self.data.unreadable())
        if unreadable:
            row["unreadable_images"] = unreadable
        self.since_nimg, self.since = nimg, now
        rows.append(self.path, [{"nimg": nimg, "step": step, **row}])
        with writing(self.run_dir / "tensorboard"):
            for name, value in row.items():
                self.writer.add_scalar(name, value, nimg)
            self.writer.flush()
        name, value = next(iter(means.items()))
        self.note = f"{name}={value:.2f}"

    def close(self, nimg: int) -> None:
        """Ends the records at nimg, and says how fast training was."""
        with writing(self.run_dir / "tensorboard"):
            self.writer.close()
        self.progress.close()
        rate = (nimg - self.first) / (time.perf_counter() - self.begin)
        done = "done" if nimg >= self.progress.total else "stopped; the same command goes on"
        log.info("%s: %d images at %.1f images/s, %s.", self.run_dir, nimg, rate, done)
        unreadable = len(self.data.unreadable())
        if unreadable:
            log.warning(
                "%s: %d training images could not be read; %s names the first.",
                self.run_dir,
                unreadable,
                self.run_dir / record.FILE,
            )
            record.amend_provenance(self.run_dir, self.data.provenance())


@contextmanager
def shared(project: str | None, run_dir: Path) -> Iterator[None]:
    """Sends what TensorBoard gets within it to a project of Weights & Biases too.

    A directory is one run there: a training that goes on goes on with its curves.
    """
    if project is None:
        yield
        return
    import wandb

    # Before a writer of TensorBoard is made, which it then follows.
    name = run_dir.name
    own_id = hashlib.sha256(name.encode()).hexdigest()[:16]
    run = wandb.init(
        project=project,
        name=name,
        id=own_id,
        dir=str(run_dir),
        resume="allow",
        sync_tensorboard=True,
    )
    try:
        yield
    finally:
        run.finish()


@torch.no_grad()
def save_grid(family: Family, G: Generator, seed: int, nimg: int, run_dir: Path) -> None:
    """Saves samples, one row per family member, on seeds that stay the same (paper, Fig. 9)."""
    from torchvision.utils import save_image  # slow to import

    G.progress(nimg)
    rows = []
    for member in family.members:
        latents = member.sample(G, GRID_COLUMNS, seeded("cpu", seed, "grid"))
        rows.append(to_unit(member.synthesize(G, latents)).cpu())
    images = torch.cat(rows)
    scale = max(1, 64 // images.shape[2])
    images = F.interpolate(images, scale_factor=scale, mode="nearest")
    path = run_dir / f"samples-{nimg:010d}.png"
    with writing(path):
        save_image(images, path, nrow=GRID_COLUMNS)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far: allocated on the GPU, or resident in the process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
