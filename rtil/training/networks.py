"""What training changes, at its start: networks, objective, optimisers.

A new network, objective or augmentation needs no line here: its yaml names its class.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from rtil.augmentation.augmentation import Augmentation
from rtil.latents.family import Family
from rtil.models.generator import Generator
from rtil.objectives.objective import GeneratorPenalty, Objective, RealPenalty, Unjudged
from rtil.process.device import Runtime
from rtil.process.instantiate import instantiate
from rtil.training import freeze
from rtil.training.initial import Initial
from rtil.training.step import Nets


def build_nets(
    config: Mapping, family: Family, rt: Runtime, initial: Initial | None = None
) -> Nets:
    """Networks, objective and optimisers at the start of training, on the device.

    Args:
        config: resolved, of which `model`, `objective`, `freeze` and `images_found` are read.
        initial: weights that training starts from, and their average too.
    """
    model = config["model"]
    G: Generator = instantiate(model["generator"])
    G.verify()
    G = rt.place(G)
    D: nn.Module = rt.place(discriminator(model))
    if initial is not None:
        initial.load(G, D)
    freeze.freeze(config.get("freeze", ()), G, D)
    objective = build_objective(config, family)
    if objective.begin is not None:
        objective.begin(family, G, config.get("images_found", 0))
    objective = objective.to(rt.device)
    G_ema = copy.deepcopy(G).eval().requires_grad_(False)
    G_optim = adam([G, objective], model, objective.g_lazy)
    D_optim = adam([D], model, objective.d_lazy) if objective.fake is not None else None
    return Nets(G, D, G_ema, objective, G_optim, D_optim)


def build_objective(config: Mapping, family: Family) -> Objective:
    """That of the group `objective`, or the model's own."""
    settings = config.get("objective", {})
    if "_target_" not in settings:
        settings = config["model"]["objective"]
    members = [len(space.names) for space in family.spaces]
    objective: Objective = instantiate(without_name(settings), members=members)
    return objective


def without_name(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings of a class whose group has a name."""
    return {key: value for key, value in settings.items() if key != "name"}


def build_augmentation(settings: Mapping[str, object]) -> Augmentation | None:
    """How images are transformed for D, by the group `augment`; None where they are not."""
    if "_target_" not in settings:
        return None
    return instantiate(without_name(settings))


def adam(
    networks: Sequence[nn.Module], model: Mapping, lazy: RealPenalty | GeneratorPenalty | None
) -> torch.optim.Adam:
    """The optimiser of networks that have this lazy penalty."""
    # A lazy penalty adds a step every `every` steps (Karras et al. 2020, App. B).
    share = lazy.every / (lazy.every + 1) if lazy is not None else 1.0
    beta1, beta2 = model["betas"]
    return torch.optim.Adam(
        [p for network in networks for p in network.parameters() if p.requires_grad],
        lr=model["lr"] * share,
        betas=(beta1**share, beta2**share),
        fused=True,
        capturable=next(networks[0].parameters()).is_cuda,
    )


def discriminator(model: Mapping) -> nn.Module:
    """That of the group `model`, or the place of one."""
    settings = model["discriminator"]
    network: nn.Module = Unjudged() if settings is None else instantiate(settings)
    return network


def check_objective(config: Mapping, family: Family) -> None:
    """Raises ValueError where the objective of a resolved configuration does not go with it."""
    objective = build_objective(config, family)
    name, judged = type(objective).__name__, objective.fake is not None
    if judged != (config["model"]["discriminator"] is not None):
        needed = "a discriminator" if judged else "model.discriminator=null"
        raise ValueError(f"train: {name} is trained with {needed}; objective=NAME sets both.")
    augment, alone = config["augment"]["name"], config["init_d_nimg"]
    if not judged and augment != "none":
        raise ValueError(
            f"train: augment={augment} is of what a discriminator sees, and {name} has none. "
            "Leave it out."
        )
    if not judged and alone:
        raise ValueError(
            f"train: init_d_nimg={alone} is of a discriminator, and {name} has none. Leave it out."
        )
    if objective.by_image and (config["data"]["mirror"] or config["crop_scale"] > 1):
        raise ValueError(
            f"train: {name} keeps a code for each training image, which has to come as it is. Set "
            "data.mirror=false crop_scale=1."
        )
