#!/usr/bin/env python
"""Measure what choices of the published training change, where the weights are the same.

    python scripts/training_differences.py DIFFERENCE [OVERRIDES OF rtil.train ...]

trains, measures at the first weights and at every checkpoint, and adds rows to
results/differences/training.jsonl; with total_nimg=0 the first weights alone. Without arguments
it prints what the file holds.

fade_in: rms of the difference between the images of rtil.family.fade_in=mixed and last over the
rms of the latter; of the first weights half-way through the fade-in of each block up to that of
the mix, later of the block that fades in.
path_mean: norm of the difference between the gradients of the path penalty in G's weights with
model.objective.path_mean_detached=true and false over the norm of the latter, one penalty a draw.
style_mixing: how much larger the noise of the gradient of G's loss is with
model.style_mixing_per=batch than with sample: its rms distance from its mean, over draws of a
batch, less one. The mean is the same.
reuse_fakes: by how much D's scores are lower on the images that it has just learned from
(model.reuse_fakes=true) than on new ones, in standard deviations of the latter.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from math import hypot
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from rtil import checkpoint
from rtil.data.load import load_data
from rtil.latents.family import Family
from rtil.latents.multicode import MultiCode
from rtil.latents.space import Latents, LatentSpace
from rtil.metrics.intervals import Mean
from rtil.models.generator import StyleMixing
from rtil.models.pggan import PGGANGenerator
from rtil.objectives.logistic import Logistic
from rtil.process.command import CONFIGS
from rtil.process.device import Hardware, start
from rtil.process.instantiate import instantiate
from rtil.process.provenance import provenance
from rtil.process.rng import Draws, seeded
from rtil.training import loop, networks, setup
from rtil.training.step import Fakes, Nets, Step

RESULTS = Path(__file__).parents[1] / "results" / "differences" / "training.jsonl"
IMAGES = 16  # of a share of the image
DRAWS = 8  # penalties of a share of the gradient
BATCHES = 64  # of the noise of a gradient, and of scores
BATCH = 8  # images of each


class State(NamedTuple):
    """Networks as they are after nimg images, trained by sources of this commit."""

    nimg: int
    nets: Nets
    family: Family
    commit: object
    real: Tensor


def states(words: list[str]) -> Iterator[State]:
    """The first weights of a training, and those of its checkpoints."""
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("train", [word for word in words if word != "total_nimg=0"])
    cfg.image_channels = cfg.image_channels or 3
    rt = start(Hardware(**cfg.hardware))
    config = setup.resolved(cfg, {"model.phase_nimg": setup.check(cfg)})
    family: Family = instantiate(config["rtil"]["family"])
    commit = provenance(rt)["commit"]
    torch.manual_seed(config["seed"])
    yield State(0, networks.build_nets(config, family, rt), family, commit, reals(config))
    if "total_nimg=0" in words:
        return
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        fixed = [f"run_dir={run_dir}", "keep_checkpoints=1000"]
        subprocess.run([sys.executable, "-m", "rtil.train", *words, *fixed], check=True)
        for path in sorted(checkpoint.checkpoints(run_dir)):
            content = checkpoint.load(path)
            nets = networks.build_nets(content["config"], family, rt)
            for name in ("G", "D", "objective"):
                part = getattr(nets, name)
                checkpoint.load_weights(part, content[name], path)
            nets.D_optim.load_state_dict(content["D_optim"])
            yield State(content["nimg"], nets, family, commit, reals(content["config"]))


def reals(config: Mapping) -> Tensor:
    """The first training images, uint8, with as many channels as the networks take."""
    data = load_data(config["data"], config["resolution"], "train", config["image_channels"])
    return data.batch(torch.arange(BATCHES * BATCH) % len(data))


@torch.no_grad()
def fade_in(state: State) -> Iterator[dict]:
    """The share of the image, for each member with codes and each block that fades in."""
    G = state.nets.G
    assert isinstance(G, PGGANGenerator)
    for member in state.family.members:
        if not isinstance(member, MultiCode) or member.is_plain:
            continue
        for block, alpha in fading(G, state.nimg, member.block):
            G.num_blocks, G.alpha = block, alpha
            latents = member.sample(G, IMAGES, seeded("cpu", "fade_in", member.num_codes))
            ours, published = (
                replace(member, fade_in=name).synthesize(G, latents) for name in ("mixed", "last")
            )
            share = float((ours - published).norm() / published.norm())
            place = {"member": member.name, "size": 2 ** (block + 1), "alpha": alpha}
            yield {**place, "n": IMAGES, "share": share}


def fading(G: PGGANGenerator, nimg: int, mix: int) -> list[tuple[int, float]]:
    """(block, alpha) up to the block of the mix; of first weights, all blocks half-way."""
    if nimg == 0:
        return [(block, 0.5) for block in range(2, mix + 1)]
    G.progress(nimg)
    return [(G.num_blocks, G.alpha)] if G.num_blocks <= mix and G.alpha < 1.0 else []


def path_mean(state: State) -> Iterator[dict]:
    """The share of the gradient, for each member: its mean over draws of a penalty."""
    for index, space in enumerate(state.family.spaces):
        shares = []
        for draw in range(DRAWS):
            ours, published = (gradient(state.nets, index, space, draw, d) for d in (True, False))
            shares.append(float((ours - published).norm() / published.norm()))
        yield {"member": space.title, "n": DRAWS, "share": mean(shares)}


def gradient(nets: Nets, index: int, space: LatentSpace, draw: int, detached: bool) -> Tensor:
    """The gradient of one path penalty in G's weights, flat; the running mean stays as it was."""
    objective = nets.objective
    assert isinstance(objective, Logistic) and objective.g_lazy is not None
    running = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.path_mean_detached = detached
    rng, batch = seeded("cpu", "path_mean", draw), objective.g_lazy.batch
    latents = space.sample(nets.G, batch, rng)
    penalty = objective.g_lazy.penalty(nets.G, space, index, latents, Draws(rng, batch))
    objective.load_state_dict(running)
    grads = torch.autograd.grad(penalty.mean(), list(nets.G.parameters()), allow_unused=True)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def style_mixing(state: State) -> Iterator[dict]:
    """The excess of the noise, for each member."""
    G = state.nets.G
    for space in state.family.spaces:
        powers = {}
        for per in ("batch", "sample"):
            mixing, rng = StyleMixing(0.9, per), seeded("cpu", "style_mixing")
            gradients = torch.stack(
                [
                    generator_gradient(state, space, space.sample(G, BATCH, rng, mixing))
                    for _ in range(BATCHES)
                ]
            )
            squares = (gradients - gradients.mean(0)).square().sum(1)
            powers[per] = Mean.of(squares.numpy())
        batch, sample = powers["batch"], powers["sample"]
        ratio = (batch.mean / sample.mean) ** 0.5
        # Errors of the two powers are independent, and a root halves a relative one.
        error = hypot(batch.ci95 / batch.mean, sample.ci95 / sample.mean) / 2
        excess = {"share": ratio - 1, "ci95": ratio * error}
        yield {"member": space.title, "n": BATCHES} | excess


def generator_gradient(state: State, space: LatentSpace, latents: Latents) -> Tensor:
    """The gradient of G's loss in its weights, flat."""
    G, D, objective = state.nets.G, state.nets.D, state.nets.objective
    loss = objective.generator(D(space.synthesize(G, latents))).mean()
    grads = torch.autograd.grad(loss, list(G.parameters()), allow_unused=True)
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


def reuse_fakes(state: State) -> Iterator[dict]:
    """How much lower scores are, for each member: its mean over steps of D from here."""
    G = state.nets.G
    G.progress(state.nimg)
    state.nets.D.progress(state.nimg)
    for index, space in enumerate(state.family.spaces):
        alone = Family((space,), (1.0,))
        seen, new = [], []
        for turn in range(BATCHES):
            # Every step begins with the same D and what its optimiser has gathered.
            D, D_optim = copy.deepcopy((state.nets.D, state.nets.D_optim))
            nets = state.nets._replace(D=D, D_optim=D_optim)
            rng, own = seeded("cpu", "reuse", index, turn), seeded("cpu", "fakes", index, turn)
            fakes = Fakes(Draws(own, BATCH), seed=turn)
            images = state.real[turn * BATCH :][:BATCH]
            real = loop.prepare(images, images.shape[2], G, False, Draws(rng, BATCH))
            step = Step(turn, real, Draws(rng, BATCH), StyleMixing(), fakes)
            step.begin()
            loop.d_update(nets, alone, step)
            step.begin()
            with torch.no_grad():
                again, fresh = step.latents(space, G), space.sample(G, BATCH, rng)
                seen.append(D(space.synthesize(G, again)))
                new.append(D(space.synthesize(G, fresh)))
        scores = torch.stack(new)
        lower = Mean.of(((scores - torch.stack(seen)).mean(1) / scores.std()).numpy())
        yield {"member": space.title, "n": BATCHES, "share": lower.mean, "ci95": lower.ci95}


MEASURES: dict[str, Callable[[State], Iterator[dict]]] = {
    "fade_in": fade_in,
    "path_mean": path_mean,
    "style_mixing": style_mixing,
    "reuse_fakes": reuse_fakes,
}


def measured(name: str, words: list[str]) -> Iterator[dict]:
    """A row for each state and place."""
    for state in states(words):
        for row in MEASURES[name](state):
            about = {"difference": name, "settings": " ".join(words), "nimg": state.nimg}
            yield {**about, **row, "commit": state.commit}


def table(rows: Iterable[dict]) -> str:
    """The range of the shares over members and sizes, a line for each training and its state."""
    shares: dict[tuple, list[dict]] = defaultdict(list)
    for row in rows:
        shares[row["difference"], row["settings"], row["nimg"]].append(row)
    lines = ["| difference | training | images seen | members | share |", "| --- " * 5 + "|"]
    for (difference, settings, nimg), found in sorted(shares.items()):
        members = ", ".join(dict.fromkeys(row["member"] for row in found))
        # One number where the lowest and the highest are the same to two digits.
        ends = [f"{100 * f(row['share'] for row in found):.2g}" for f in (min, max)]
        share = f"{' to '.join(dict.fromkeys(ends))} %"
        if errors := [100 * row["ci95"] for row in found if "ci95" in row]:
            share += f" (95 % interval: ± {max(errors):.2g} or less)"
        lines.append(f"| {difference} | `{settings}` | {nimg} | {members} | {share} |")
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:
        name, *words = sys.argv[1:]
        rows = measured(name, words)
        with RESULTS.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(table(map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())))


if __name__ == "__main__":
    main()
