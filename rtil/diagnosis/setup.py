"""A diagnosis composed from diagnose.yaml: settings checked, generator and images loaded.

Below this module nobody sees a configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor

from rtil.data.base import to_float
from rtil.data.lineage import training_data
from rtil.data.load import image_order, load_data
from rtil.inversion.setup import check_settings, load_generator, measuring_of, resolved
from rtil.inverters import build_inverter
from rtil.inverters.ilo import ILO
from rtil.latents.family import shown_members
from rtil.latents.space import Member
from rtil.metrics.inception import Inception
from rtil.models.generator import Generator
from rtil.operators import ForwardOperator, Identity
from rtil.operators.task import PER_IMAGE
from rtil.process.command import check_writable
from rtil.process.device import Hardware, Runtime, start
from rtil.process.instantiate import instantiate
from rtil.runs import identity
from rtil.runs.setup import checked


@dataclass(frozen=True)
class Job:
    """What a diagnosis works on.

    Attributes:
        name, digest: the generator's file as it is recorded, and its SHA-256.
        members: what a figure of its family shows.
        everything: observes all pixels. operator: the task's.
        measured: the task in words.
        real: held-out images (num_samples or fewer, C, H, W) in [-1, 1].
        training: as many of the generator's training images.
        inception: network of FID and KID; None where they were not asked for.
        mse: weight of the measurement loss.
        num_samples, num_images, dims, neighbours, bootstrap, seed: see diagnose.yaml.
        config: resolved, for the record.
    """

    run_dir: Path
    runtime: Runtime
    name: str
    digest: str
    G: Generator
    members: list[Member]
    inverter: ILO
    everything: ForwardOperator
    operator: ForwardOperator
    measured: str
    real: Tensor
    training: Tensor
    inception: Inception | None
    mse: float
    num_samples: int
    num_images: int
    dims: int
    neighbours: int
    bootstrap: int
    seed: int
    config: dict


def prepare(cfg: DictConfig, overrides: Sequence[str]) -> Job:
    """Checks the settings and loads what they name.

    Args:
        cfg: composed from diagnose.yaml.
        overrides: "key=value" texts given by the user.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data.
    """
    cfg = checked(cfg, "diagnose", overrides)
    if cfg.inverter.name != "ilo":
        raise ValueError(
            f"diagnose: inverter={cfg.inverter.name} has no stages to look at; it must be ilo."
        )
    check_settings(cfg, "diagnose")
    if cfg.operator.per_image:
        raise ValueError(
            f"diagnose: {PER_IMAGE}=true has no effect: depths are compared with one operator for "
            "all images. Leave it out."
        )
    runtime = start(Hardware(**cfg.hardware))
    cfg, trained = load_generator(cfg, overrides)
    G, config = trained.G, resolved(cfg)
    used = {**config, **trained.found}
    run_dir = config["out"] or identity.invert_dir("diagnose", used, trained.config)
    check_writable(Path(run_dir), f"diagnose: out={config['out'] or 'null'}")
    family = instantiate(config["rtil"]["family"])
    inverter = build_inverter(config["inverter"], family)
    assert isinstance(inverter, ILO), "inverter=ilo builds one"
    inverter.check(G)
    inception = Inception(runtime.device) if config["fid"] else None
    G = G.to(runtime.device).to(memory_format=runtime.layout)
    return Job(
        run_dir=Path(run_dir),
        runtime=runtime,
        name=trained.name,
        digest=trained.digest,
        G=G,
        members=shown_members([family]),
        inverter=inverter,
        everything=Identity(G.image_shape),
        operator=measuring_of(config).part(G.image_shape, None).A,
        measured=_in_words(config),
        real=_images(config, config["data"], config["split"], G),
        training=_images(config, training_data(trained.config, config["data"]), "train", G),
        inception=inception,
        mse=config["loss"]["mse"],
        num_samples=config["num_samples"],
        num_images=config["num_images"],
        dims=config["dims"],
        neighbours=config["neighbours"],
        bootstrap=config["bootstrap"],
        seed=config["seed"],
        config=config,
    )


def _images(config: Mapping, data: Mapping, split: str, G: Generator) -> Tensor:
    """Images of a split, in [-1, 1], where the generator is."""
    channels, size = G.image_shape[:2]
    images = load_data(data, size, split, channels, config["num_images"])
    items = image_order(len(images), config["image_seed"])[: config["num_samples"]]
    return to_float(images.batch(items)).to(next(G.parameters()).device)


def _in_words(config: Mapping) -> str:
    """The task and the knob that it is set by, e.g. "cs ratio 0.5"."""
    knob = config["task"]["knob"]
    return f"{config['task']['name']} {knob} {config[knob]:g}"
