#!/usr/bin/env python
"""Measure what two choices of the published training change, where the weights are the same.

    python scripts/training_differences.py fade_in|path_mean [OVERRIDES OF rtil.train ...]

trains, measures at the first weights and at every checkpoint, and adds rows to
results/differences/training.jsonl; with total_nimg=0 the first weights alone. Without arguments
it prints what the file holds.

fade_in: rms of the difference between the images of rtil.family.fade_in=mixed and last over the
rms of the latter; of the first weights half-way through the fade-in of each block up to that of
the mix, later of the block that fades in.
path_mean: norm of the difference between the gradients of the path penalty in G's weights with
model.objective.path_mean_detached=true and false over the norm of the latter, one penalty a draw.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from rtil import checkpoint
from rtil.latents.family import Family
from rtil.latents.multicode import MultiCode
from rtil.latents.space import LatentSpace
from rtil.models.pggan import PGGANGenerator
from rtil.objectives.logistic import Logistic
from rtil.process.command import CONFIGS
from rtil.process.device import Hardware, start
from rtil.process.instantiate import instantiate
from rtil.process.provenance import provenance
from rtil.process.rng import Draws, seeded
from rtil.training import networks, setup
from rtil.training.step import Nets

RESULTS = Path(__file__).parents[1] / "results" / "differences" / "training.jsonl"
IMAGES = 16  # of a share of the image
DRAWS = 8  # penalties of a share of the gradient


class State(NamedTuple):
    """Networks as they are after nimg images, trained by sources of this commit."""

    nimg: int
    nets: Nets
    family: Family
    commit: object


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
    yield State(0, networks.build_nets(config, family, rt), family, commit)
    if "total_nimg=0" in words:
        return
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder, "run")
        fixed = [f"run_dir={run_dir}", "keep_checkpoints=1000"]
        subprocess.run([sys.executable, "-m", "rtil.train", *words, *fixed], check=True)
        for path in sorted(checkpoint.checkpoints(run_dir)):
            content = checkpoint.load(path)
            nets = networks.build_nets(content["config"], family, rt)
            for name in ("G", "objective"):
                part = getattr(nets, name)
                checkpoint.load_weights(part, content[name], path)
            yield State(content["nimg"], nets, family, commit)


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


MEASURES: dict[str, Callable[[State], Iterator[dict]]] = {
    "fade_in": fade_in,
    "path_mean": path_mean,
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
        share = " to ".join(dict.fromkeys(ends))
        lines.append(f"| {difference} | `{settings}` | {nimg} | {members} | {share} % |")
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
