"""The configuration of a training that would have made an imported generator.

A generator.pt carries one, so that inversions and reports treat it as one of rtil's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from rtil.importers.layout import Spec
from rtil.process.brief import reason
from rtil.process.command import CONFIGS
from rtil.process.instantiate import allow, instantiate, named_by
from rtil.runs import overrides
from rtil.runs.setup import checked

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

    def complete(self, name: str, resolution: int) -> Choices:
        """With what is not said: as a released file's name says, or nearest to the size.

        Args:
            name: of the file, without its ending.
            resolution: of the images that the generator draws.
        """
        published = PUBLISHED.get(name)
        scales = [scale for side, scale in SCALES.items() if resolution <= side]
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


class Wrapped(NamedTuple):
    """A resolved configuration of a module, and complete choices."""

    config: dict
    choices: Choices


def configuration(size: Spec, choices: Choices) -> dict:
    """The configuration of a training run that would have made such a generator, resolved.

    Args:
        size: of the generator.
        choices: complete.

    Raises:
        ValueError: there is no such choice.
    """
    cfg = _composed(size.model, choices)
    with open_dict(cfg):
        _resize(cfg, size)
    return _resolved(cfg)


def module_configuration(name: str, words: Sequence[str], choices: Choices) -> Wrapped:
    """The configuration of a training of a module of the user's, and the choices that it has.

    Args:
        name: of the file, without its ending.
        words: overrides of the group `model`, which name the module and its cuts.
        choices: how it was trained; completed by the size of its images.

    Raises:
        ValueError: words of another group; as `configuration`, and as building the module does.
    """
    others = overrides.groups(words) - {"model"}
    if others:
        raise ValueError(
            f"import: {', '.join(sorted(others))} are no words of a module; they set model alone. "
            "--rtil, --scale and --data say how it was trained."
        )
    overrides.check("import", words)
    cfg = _composed("wrapped", choices.complete(name, 0), words)
    allow(named_by(cfg))
    with torch.device("meta"):  # its size, without memory
        channels, side, _ = instantiate(_resolved(cfg)["model"]["generator"]).image_shape
    choices = choices.complete(name, side)
    cfg = _composed("wrapped", choices, words)
    with open_dict(cfg):
        cfg.resolution, cfg.scale.resolution, cfg.image_channels = side, side, channels
    return Wrapped(_resolved(cfg), choices)


def _composed(model: str, choices: Choices, words: Sequence[str] = ()) -> DictConfig:
    """train.yaml with these choices; their data set may be unknown.

    Raises:
        ValueError: there is no such choice, or a word is none of the configuration.
    """
    data = choices.data
    if data == "unknown":
        choices = replace(choices, data="folder")
    groups = {"model": model, **vars(choices)}
    for group, choice in groups.items():
        names = sorted(path.stem for path in (Path(CONFIGS) / group).glob("*.yaml"))
        if choice not in names:
            raise ValueError(f"import: {group}={choice} must be one of {', '.join(names)}.")
    typed = [word for word in words if word != f"model={model}"]
    try:
        with initialize_config_dir(CONFIGS, version_base="1.3"):
            cfg = compose(
                "train", [*(f"{group}={choice}" for group, choice in groups.items()), *typed]
            )
    except HydraException as error:
        raise ValueError(f"import: {reason(error.__cause__ or error)}.") from error
    with open_dict(cfg):
        if choices.data == "folder":
            cfg.data.path = None
        if data == "unknown":
            cfg.data.name = cfg.data.trained_on = data
    return checked(cfg, "train", typed)


def _resolved(cfg: DictConfig) -> dict:
    """Plain values of a configuration, with no images in the data set of an imported file."""
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
