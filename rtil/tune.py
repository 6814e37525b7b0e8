"""Chooses an arm's inversion settings on validation images: `python -m rtil.tune trials=24 ...`.

1. Settings are proposed, the same for every arm (`rtil.tuning.space`, configs/search).
2. Each is an inversion of the same validation images (`rtil.tuning.trials`); those on disk stay.
3. The best mean PSNR wins. With final_images=N the best trials (finalists) go on to N images, and
   the best of these wins: near the top trials differ by less than a few images tell.
4. What won is written for `python -m rtil.invert protocol=fair` (`rtil.tuning.trials`).

One command for several arms: -m rtil=vanilla,ilo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf, open_dict

from rtil.process.command import entry
from rtil.process.files import write_text
from rtil.process.progress import finished
from rtil.runs import identity, keys, overrides, tuning
from rtil.runs.setup import checked, command

OWN = ("search", "trials", "search_seed", "finalists", "final_images")  # no settings of a trial
# Settings of an inversion with the one value that a tuning takes, None for none, and why.
FIXED = {
    "split": ("val", "test images are seen once, with what validation images chose."),
    "input": (None, "it has no true image to score against."),
    "protocol.name": ("fair", "any other has nothing to tune."),
    "tuned": (None, "it is what a tuning makes."),
    "run_dir": (None, "a tuning lies below <root>/tuned, where protocol=fair looks for it."),
}
HERE = "it is for inversions; give this tuning's own seed, ratio or factor."


def tune(cfg: DictConfig, words: Sequence[str] | None = None) -> Path:
    """Runs the trials that are not on disk and writes what is best, to the file that it returns.

    Args:
        words: "key=value" texts given by the user; None reads those of the Hydra job.

    Raises:
        ValueError, FileNotFoundError: bad settings or files, before any inversion.
        RuntimeError: no trial had a finite loss, or several processes.
    """
    # Torch is imported where a command runs: help, completion and refused words need none.
    from rtil.inversion import setup, tuned_settings
    from rtil.tuning import space, trials

    words = (overrides.running() or []) if words is None else words
    cfg = checked(cfg, "tune", words)
    check(cfg)
    cfg, trained = setup.load_generator(cfg, words)
    config = {**setup.resolved(cfg), "generator": trained.name}
    config = tuned_settings.with_digests(config, trained.digest)
    steps = space.stages(config["inverter"])
    proposals = space.trials(config["search"], steps, cfg.trials, cfg.search_seed)
    varied = space.keys(config["search"], steps)
    tuned_settings.refuse_typed(words, varied)
    place = place_of(config, trained.config)

    def invert(settings: Mapping[str, object], images: int) -> None:
        inverted(trial_of(cfg, settings, images), words)

    run_trial = partial(trials.run, place, invert)
    rounds = trials.rounds(run_trial, proposals, cfg.num_images, cfg.finalists, cfg.final_images)
    content = trials.content(config, varied, rounds)
    path = place / tuning.NAME
    write_text(path, trials.text(content))
    print(trials.table(content))
    print(f"Trial {content['trial']} is the best.")
    kept = {key: text for key, text in overrides.typed(words).items() if for_inversion(key)}
    finished(path, overrides.line("invert", {**kept, "protocol": "fair", "tuned": str(path)}))
    return path


def for_inversion(key: str) -> bool:
    """Whether the inversion that a tuning is for repeats a setting that was typed to it."""
    return key not in (*OWN, *FIXED, "protocol", "num_images") and not keys.is_under(key, OWN)


def place_of(config: Mapping, trained: Mapping) -> Path:
    """The directory of a tuning: that which holds it, under whatever name, or a new one."""
    for path, content in tuning.search(config)[0]:
        same_seed = content["search_seed"] == config["search_seed"]
        if same_seed and content["space"] == config["search"]:
            return path.parent
    return identity.invert_dir("tuned", config, trained)


def inverted(cfg: DictConfig, words: Sequence[str]) -> Path:
    """Inverts the images of a trial that have no row yet, as `rtil.invert` does."""
    from rtil.inversion import loop, setup

    return loop.run(setup.compose(cfg, words))


def trial_of(cfg: DictConfig, settings: Mapping[str, object], images: int) -> DictConfig:
    """The inversion that is a trial: the tuning's configuration with what the trial sets."""
    trial = cfg.copy()
    with open_dict(trial):
        for key in OWN:
            trial.pop(key, None)
        for key, value in settings.items():
            OmegaConf.update(trial, key, value)
        trial.protocol.tuned = {"trial": int(Path(trial.run_dir).name.rpartition("-")[2])}
        trial.num_images = images
        trial.pictures, trial.yardstick.use, trial.metrics.lpips = False, False, False
    return trial


def check(cfg: DictConfig) -> None:
    """Raises ValueError or RuntimeError for settings that no tuning could have."""
    from rtil.inversion import setup
    from rtil.process.device import ranks

    at = {f"{keys.AT}.{key}": (None, HERE) for key in cfg.protocol.get("at", ())}
    for key, (allowed, why) in {**FIXED, **at}.items():
        value = OmegaConf.select(cfg, key)
        if value != allowed:
            raise ValueError(f"tune: {key}={value} must be {allowed or 'left out'}: {why}")
    final = cfg.final_images
    if final is not None and not final > cfg.num_images:
        raise ValueError(
            f"tune: final_images={final} must be an integer above num_images="
            f"{cfg.num_images}, or null for one round."
        )
    setup.check_settings(cfg, "tune")
    if ranks().world > 1:
        raise RuntimeError(
            "tune: runs in one process. Tune arms side by side with -m "
            "rtil=... hydra/launcher=joblib, and invert with torchrun."
        )


@command("tune")
def main(cfg: DictConfig) -> None:
    """Entry point; finished trials, and finished batches of others, stay when it is stopped."""
    entry(lambda: (tune(cfg), None)[1])


if __name__ == "__main__":
    main()
