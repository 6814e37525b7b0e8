"""Reconstructs images from measurements: `python -m rtil.invert task=cs ratio=0.05`.

1. Compose: settings, the user's files, the generator and the tuning become one frozen object
   (`rtil.inversion.setup`); every mistake is found here, before anything is written.
2. Measure a batch: held-out images are measured (`rtil.inversion.held_out`), or the user's
   measurements are read (`rtil.inversion.user_files`).
3. Invert it from each start, and select what is reported (`rtil.inversion.estimate`).
4. Write it: a row of scores for each held-out image, a picture for each file.
5. Print the means with their intervals.

What is on disk already is left out, so the same command goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from rtil.process.command import entry
from rtil.process.progress import finished
from rtil.runs.overrides import line, running
from rtil.runs.setup import command


def invert(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Inverts cfg.num_images images of cfg.split that have no row yet, or those of cfg.input.

    Args:
        cfg: composed from invert.yaml; left as it is.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Returns:
        The directory of the results.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data, before any
            inversion.
        RuntimeError: a loss that is not finite; rows already written stay.
    """
    # Torch is imported where a command runs: help, completion and refused words need none.
    from rtil.inversion import loop, setup

    if overrides is None:
        overrides = running() or ()
    return loop.run(setup.compose(cfg, overrides))


def run(cfg: DictConfig) -> None:
    """Inverts, and says what may be typed next: a report has rows of held-out images alone."""
    from rtil.process.device import ranks

    place = invert(cfg)
    if ranks().rank == 0:
        finished(place, *([] if cfg.input else [line("report", {"root": cfg.root})]))


@command("invert")
def main(cfg: DictConfig) -> None:
    """Entry point; rows of finished batches stay when it is stopped."""
    entry(lambda: run(cfg))


if __name__ == "__main__":
    main()
