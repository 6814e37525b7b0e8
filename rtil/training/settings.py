"""What the loop of training goes by. A new setting is a field here, filled in by
`rtil.training.setup`."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from rtil.models.generator import StyleMixing


@dataclass(frozen=True)
class Settings:
    """What the loop goes by.

    Attributes:
        run_dir: where everything is written.
        seed: of every draw.
        total_nimg: images at the end of training.
        d_alone_nimg: images, the first of total_nimg, from which the discriminator alone learns.
        batches: images of a step over all processes: one number, or one for each growing phase.
        phase_nimg: images of each growing phase; () where nothing grows.
        resolution: side of the images at full size; larger ones are cropped to it at random.
        mirror: whether real images are flipped at random.
        style_mixing: see Generator.sample_w.
        reuse_fakes: whether G learns from the images that D has just seen, see Fakes.
        ema_decay: of the averaged generator, a step.
        log_every: steps between rows of the log.
        checkpoint_every: images between checkpoints.
        samples_every: images between sample grids.
        keep_checkpoints: how many of the newest stay.
    """

    run_dir: Path
    seed: int
    total_nimg: int
    d_alone_nimg: int
    batches: tuple[int, ...]
    phase_nimg: tuple[int, ...]
    resolution: int
    mirror: bool
    style_mixing: StyleMixing
    reuse_fakes: bool
    ema_decay: float
    log_every: int
    checkpoint_every: int
    samples_every: int
    keep_checkpoints: int

    def batch_at(self, nimg: int) -> int:
        """Images of the step that starts at nimg, over all processes."""
        if len(self.batches) == 1:
            return self.batches[0]
        ends = list(accumulate(self.phase_nimg))
        return self.batches[min(bisect_right(ends, nimg), len(self.batches) - 1)]
