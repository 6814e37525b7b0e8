"""The configuration of a training that would have made an imported generator.

A generator.pt carries one, so that inversions and reports treat it as one of rtil's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from rtil.importers.layout import Spec
from rtil.process.command import CONFIGS

# The released files say by their names alone how they were trained; all of them were on FFHQ.
PUBLISHED = {
    "rtil_ilo": "ilo",
    "vanilla_ilo": "vanilla",
    "rtil_mgan": "mgan",
    "vanilla_mgan": "vanilla",
}
SCALES = {16: "tiny", 32: "demo", 64: "faces64"}  # nearest settings of each size; larger: paper


@dataclass(frozen=True)
class Choices:
    """How a foreign generator was trained, in choices of configs; None: not said.

    Attributes:
        rtil: of configs/rtil. scale: of configs/scale, for settings of inversions.
        data: of configs/data, or "unknown", which leaves the source open.
    """

    rtil: str | None = None
    scale: str | None = None
    data: str | None = None

    def complete(self, name: str, size: Spec) -> Choices:
        """With what is not said: as a released file's name says, or nearest to the size.

        Args:
            name: of the file, without its ending.
        """
        published = PUBLISHED.get(name)
        scales = [scale for side, scale in SCALES.items() if size.resolution <= side]
        return Choices(
            self.rtil or published or "vanilla",
            self.scale or (scales[0] if scales else "paper"),
            self.data or ("ffhq" if published else "unknown"),
        )

    def guessed(self, complete: Choices) -> list[str]:
        """What is not said of how it was trained, and is taken as `complete` has it."""
        return [
            f"{key}={value}"
            for key, value in vars(complete).items()
            if key != "scale" and getattr(self, key) is None
        ]


def configuration(size: Spec, choices: Choices) -> dict:
    """The configuration of a training run that would have made such a generator, resolved.

    Args:
        size: of the generator.
        choices: complete.

    Raises:
        ValueError: there is no such choice.
    """
    data = choices.data
    if data == "unknown":
        choices = replace(choices, data="folder")
    groups = {"model": size.model, **vars(choices)}
    for group, choice in groups.items():
        names = sorted(path.stem for path in (Path(CONFIGS) / group).glob("*.yaml"))
        if choice not in names:
            raise ValueError(f"import: {group}={choice} must be one of {', '.join(names)}.")
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", [f"{group}={choice}" for group, choice in groups.items()])
    with open_dict(cfg):
        _resize(cfg, size)
        if choices.data == "folder":
            cfg.data.path = None
        if data == "unknown":
            cfg.data.name = cfg.data.trained_on = data
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict), "train.yaml is a mapping"
    return config


def _resize(cfg: DictConfig, size: Spec) -> None:
    """Gives the networks the size and form of the generator, instead of those of the scale."""
    for key, value in {"channels": dict(size.channels), "z_dim": size.z_dim}.items():
        OmegaConf.update(cfg, f"scale.{size.model}.{key}", value, merge=False)
    cfg.scale.resolution, cfg.image_channels = size.resolution, size.image_channels
    cfg.model.phase_nimg = None
    cfg.model.generator.update(size.form)
    if size.model == "stylegan2":
        cfg.model.generator.num_mapping = size.num_mapping
        cfg.model.generator.mapping_lr = size.mapping_lr
