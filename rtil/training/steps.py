"""One step of training: the parts that a GPU can record, and when each one runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rtil.latents.family import Family
from rtil.models.generator import Generator
from rtil.objectives.objective import Objective
from rtil.process.distributed import average_gradients
from rtil.process.replay import Noted, Recorder
from rtil.training.monitor import Terms


class State(NamedTuple):
    """What training changes; everything a checkpoint holds but the counters."""

    G: Generator
    D: nn.Module
    G_ema: Generator
    objective: Objective
    G_optim: torch.optim.Optimizer
    D_optim: torch.optim.Optimizer


@contextmanager
def update(network: nn.Module, optim: torch.optim.Optimizer) -> Iterator[None]:
    """An update of a network from the gradients that are taken within."""
    network.requires_grad_(True)
    optim.zero_grad(set_to_none=True)
    yield
    average_gradients(network.parameters())
    optim.step()


def d_step(
    config: dict,
    family: Family,
    state: State,
    real: Tensor,
    rng: torch.Generator,
    step: int,
    turn: int,
    terms: Terms,
    run: Recorder | None = None,
) -> None:
    """One step of the discriminator, and now and then one for its penalty on real images.

    Args:
        run: how the parts are run; None runs them as they are.
    """
    run = run or Recorder(rng, False)
    objective, batch, stage = state.objective, len(real), state.G.stage
    drawn = [space.drawn(batch, turn) for space in family.spaces]
    terms.note(
        step,
        run(stage, ("D", batch, *drawn), lambda: d_losses(config, family, state, real, rng, turn)),
    )
    if objective.d_lazy is not None and step % objective.d_lazy.every == 0:
        terms.note(step, run(stage, ("D penalty", batch), lambda: d_penalty(state, real)))


def d_losses(
    config: dict, family: Family, state: State, real: Tensor, rng: torch.Generator, turn: int
) -> Noted:
    """An update of the discriminator: real images once, then each space's images in turn."""
    G, D, objective, noted = state.G, state.D, state.objective, []
    G.requires_grad_(False)
    with update(D, state.D_optim):
        loss = objective.real(D(real))
        noted.append(("D/real", loss.detach(), ()))
        loss.mean().backward()
        del loss
        for space, weight in zip(*family):
            with torch.no_grad():
                latents = space.sample(G, len(real), rng, config["model"]["style_mixing"], turn)
                fake = space.synthesize(G, latents)
            members = tuple(space.names[m] for m in latents.member)
            loss = objective.fake(D(fake))
            noted.append((f"D/fake {space_name(space)}", loss.detach(), members))
            penalty = None
            if objective.pair_penalty is not None:
                penalty = objective.pair_penalty(D, real, fake, rng)
                noted.append((f"D/penalty {space_name(space)}", penalty.detach(), members))
                loss = loss + penalty
            (weight * loss.mean()).backward()
            del latents, fake, loss, penalty  # free before the next member's are made
    return noted


def d_penalty(state: State, real: Tensor) -> Noted:
    """An update of the discriminator for its lazy penalty."""
    lazy = state.objective.d_lazy
    with update(state.D, state.D_optim):
        penalty = lazy.penalty(state.D, real)
        penalty.mean().backward()
    return [(f"D/{lazy.name}", penalty.detach(), ())]


def g_step(
    config: dict,
    family: Family,
    state: State,
    batch: int,
    rng: torch.Generator,
    step: int,
    turn: int,
    world: int,
    terms: Terms,
    run: Recorder | None = None,
) -> None:
    """One step of the generator, and now and then one for its penalty; `run` as in d_step."""
    run = run or Recorder(rng, False)
    objective, stage = state.objective, state.G.stage
    drawn = [space.drawn(batch, turn) for space in family.spaces]
    terms.note(
        step,
        run(
            stage, ("G", batch, *drawn), lambda: g_losses(config, family, state, batch, rng, turn)
        ),
    )
    if objective.g_lazy is not None and step % objective.g_lazy.every == 0:
        few, at = objective.g_lazy.draw(world, turn)
        drawn = [space.drawn(few, at) for space in family.spaces]
        terms.note(
            step,
            run(
                stage,
                ("G penalty", few, *drawn),
                lambda: g_penalty(config, family, state, few, rng, at),
            ),
        )


def g_losses(
    config: dict, family: Family, state: State, batch: int, rng: torch.Generator, turn: int
) -> Noted:
    """An update of the generator, each space's images in turn."""
    G, D, noted = state.G, state.D, []
    D.requires_grad_(False)
    with update(G, state.G_optim):
        for space, weight in zip(*family):
            latents = space.sample(G, batch, rng, config["model"]["style_mixing"], turn)
            loss = state.objective.generator(D(space.synthesize(G, latents)))
            members = tuple(space.names[m] for m in latents.member)
            noted.append((f"G/loss {space_name(space)}", loss.detach(), members))
            (weight * loss.mean()).backward()
            del latents, loss
    return noted


def g_penalty(
    config: dict, family: Family, state: State, batch: int, rng: torch.Generator, turn: int
) -> Noted:
    """An update of the generator for its lazy penalty."""
    G, mixing, noted = state.G, config["model"]["style_mixing"], []
    lazy = state.objective.g_lazy
    with update(G, state.G_optim):
        for i, (space, weight) in enumerate(zip(*family)):
            latents = space.sample(G, batch, rng, mixing, turn)
            penalty = lazy.penalty(G, space, i, latents, rng)
            members = tuple(space.names[m] for m in latents.member)
            noted.append((f"G/{lazy.name} {space_name(space)}", penalty.detach(), members))
            (weight * penalty.mean()).backward()
            del latents, penalty
    return noted


@torch.no_grad()
def follow(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Moves the averaged weights: average <- decay average + (1 - decay) weights."""
    torch._foreach_lerp_([*average.parameters()], [*network.parameters()], 1.0 - decay)


def space_name(space) -> str:
    """Name of a space in terms and logs."""
    return space.names[0] if len(space.names) == 1 else "family"
