"""Networks, families and batches that the rows are measured with, from rtil's configurations."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import Tensor, nn

from benchmarks.baseline import pggan, stylegan2
from rtil.process.command import CONFIGS
from rtil.process.device import Runtime
from rtil.process.instantiate import instantiate

SCALES = {16: "tiny", 32: "demo", 64: "faces64", 256: "paper"}
TITLES = {"stylegan2": "StyleGAN2", "pggan": "PGGAN"}
FAMILIES = {"stylegan2": ("ilo", "ilo_mixture"), "pggan": ("mgan", "mgan_mixture")}


@dataclass
class Setting:
    """What the command line chose.

    rt: device, threads. sizes: sides of the images. repeats: rounds. quick: rehearsal.
    batch: size to images per training step, where it is not the configuration's.
    """

    rt: Runtime
    sizes: tuple[int, ...]
    repeats: int
    quick: bool = False
    batch: dict[int, int] = field(default_factory=dict)

    @property
    def has_bf16(self) -> bool:
        """Whether rows in bfloat16 can be measured."""
        return self.rt.device.type == "cpu" or torch.cuda.get_device_capability()[0] >= 8

    def in_bf16(self) -> Setting:
        """The same with hardware.precision=bf16."""
        return replace(self, rt=self.rt._replace(map_dtype=torch.bfloat16))

    def say(self, text: str) -> None:
        """One line per finished measurement."""
        print(f"  {text}", flush=True)


def config(model: str, family: str, size: int, *overrides: str) -> dict:
    """train.yaml for the scale of this size: colour, no growing."""
    chosen = [f"model={model}", f"rtil={family}", f"scale={SCALES[size]}", "image_channels=3"]
    chosen += ["model.phase_nimg=null", *overrides]
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", chosen)
    found = OmegaConf.to_container(cfg, resolve=True)
    if isinstance(found["batch"], list):  # one per growing phase: the last is the full size's
        found["batch"] = found["batch"][-1]
    return found


def generator(cfg: dict, rt: Runtime) -> nn.Module:
    """rtil's generator as an inverter gets it: seeded, frozen, on the device."""
    torch.manual_seed(0)
    G = instantiate(cfg["model"]["generator"])
    return rt.place(G.eval().requires_grad_(False))


def twin(network: nn.Module, cfg: dict, part: str) -> nn.Module:
    """The baseline's network on rtil's weights, in the layout of a straightforward program.

    Args:
        network: rtil's.
        cfg: configuration it was built from.
        part: "generator" or "discriminator".

    Raises:
        ValueError: the configuration makes choices that the straightforward form does not know.
    """
    left_out = ("_target_", "phase_nimg")
    arguments = {k: v for k, v in cfg["model"][part].items() if k not in left_out}
    module = {"stylegan2": stylegan2, "pggan": pggan}[cfg["model"]["name"]]
    kind = getattr(module, f"{TITLES[cfg['model']['name']]}{part.title()}")
    known, own = (inspect.signature(c).parameters for c in (kind, type(network)))
    unknown = arguments.keys() - known.keys()
    unknown = {k for k in unknown if k not in own or arguments[k] != own[k].default}
    if unknown:
        raise ValueError(
            f"twin: the straightforward {kind.__name__} is the published one and knows nothing of "
            f"{', '.join(sorted(unknown))}; leave these keys out of the configuration."
        )
    copy = kind(**{k: v for k, v in arguments.items() if k in known})
    copy.load_state_dict({k: v.contiguous() for k, v in network.state_dict().items()})
    return copy.to(next(network.parameters()).device)


def images(batch: int, size: int, device: torch.device) -> Tensor:
    """uint8 images (B, 3, S, S) of noise, as a data set gives them."""
    rng = torch.Generator().manual_seed(1)
    shape = (batch, 3, size, size)
    return torch.randint(0, 256, shape, generator=rng, dtype=torch.uint8).to(device)
