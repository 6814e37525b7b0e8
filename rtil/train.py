"""Trains a generator and its latent family: `python -m rtil.train model=stylegan2 rtil=ilo`.

1. `rtil.training.setup` composes the training once, out of the configuration: it checks the
   settings, reads the data set, builds the networks and claims its directory under <root>/train.
2. `rtil.training.loop` goes on from the newest checkpoint there, or begins.
3. Each step updates the discriminator and the generator over every member of the family, each
   with a penalty now and then, and moves the averaged generator.
4. Losses go to log.jsonl and TensorBoard, samples to samples-*.png, weights to checkpoint-*.pt;
   the averaged generator, which inversions take, to generator.pt.
5. Ctrl-C or SIGTERM writes a checkpoint; the same command goes on from it.
"""

from __future__ import annotations

from omegaconf import DictConfig

from rtil.process.command import entry
from rtil.process.instantiate import naming
from rtil.process.progress import finished
from rtil.runs.overrides import elsewhere, line
from rtil.runs.setup import command


def train(cfg: DictConfig) -> int | None:
    """Trains to cfg.total_nimg images, or to a stop signal.

    Args:
        cfg: composed from train.yaml.

    Returns:
        The signal that stopped it, or None at the end of training.

    Raises:
        ValueError, FileNotFoundError, RuntimeError: bad settings, data or directory, before any
            training; a loss that is not finite, after which the last checkpoint stays.
    """
    # Torch is imported where a command runs: help, completion and refused words need none.
    from rtil.process.distributed import stop
    from rtil.training import loop, monitor, setup

    owner = None
    try:
        training = setup.compose(cfg)
        owner = training.owner
        run_dir = training.settings.run_dir
        with monitor.shared(cfg.wandb if owner else None, run_dir):
            signum = loop.run(training)
    finally:
        if owner is not None:
            owner.release()
        stop()
    if owner is not None and signum is None:
        path = run_dir / "generator.pt"
        following = {"generator": str(path), **naming(cfg), **elsewhere(cfg.root)}
        finished(path, *(line(name, following) for name in ("invert", "diagnose")))
    return signum


@command("train")
def main(cfg: DictConfig) -> None:
    """Entry point; exits with 128 + the signal's number when stopped by one."""
    entry(lambda: train(cfg))


if __name__ == "__main__":
    main()
