"""StyleGAN2 as rosinality's stylegan2-pytorch names it; the authors' StyleGAN2 files do the same.

Weights are stored unscaled, up-sampling convolutions in the orientation of conv_transpose2d, the
bias of a style with its one. Images are in [-1, 1]. Files made before the noise maps were stored
have none: they are drawn then, from a fixed seed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rtil.importers import plain
from rtil.importers.layout import (
    COLOUR,
    LEADING,
    ONE,
    Entry,
    Foreign,
    Spec,
    count,
    generator_state,
    mapping_note,
    multiplier,
    other_filters,
    refuse,
    sizes,
    width,
)
from rtil.models.stylegan2 import StyleGAN2Generator
from rtil.process.rng import seeded

NAME = "rosinality"


def find(content: object, layout: str = NAME) -> Foreign | None:
    """The generator in a file's content, or None where it has another layout.

    Raises:
        ValueError: sizes cannot be read from it, or it filters otherwise than rtil.
    """
    found = generator_state(content)
    if found is None or "input.input" not in found[1]:
        return None
    part, state = found
    size = spec_of(layout, state)
    refuse(layout, other_filters(state, ".kernel", gain=4.0))
    notes = mapping_note(
        [state[f"style.{i}.weight"] for i in range(1, size.num_mapping + 1)], size.mapping_lr
    )
    guesses = [multiplier(size.mapping_lr)]
    if not any(name.endswith(".kernel") for name in state):
        guesses.append("resampling filter [1, 3, 3, 1]")
    if not count(state, "noises.noise_"):
        rng, shapes = seeded("cpu", 0, "noise maps"), size.network().noise_shapes
        maps = {
            f"noises.noise_{i}": torch.randn(1, *s, generator=rng) for i, s in enumerate(shapes)
        }
        state = {**state, **maps}
        guesses.append("noise maps, drawn with seed 0")
    ignored = frozenset(name for name in state if name.endswith(".kernel"))
    return Foreign(
        layout,
        part,
        size,
        state,
        entries(size),
        lambda z: [draw(state, size, z)],
        ignored,
        notes,
        tuple(guesses),
    )


def spec_of(layout: str, state: dict[str, Tensor]) -> Spec:
    """Sizes, from the shapes of the entries that every file has."""
    widths = [width(layout, state, "input.input", 1)]
    for i in range(count(state, "to_rgbs.")):
        widths.append(width(layout, state, f"convs.{2 * i}.conv.weight", 1))
    colours = width(layout, state, "to_rgb1.conv.weight", 1)
    z_dim, layers = width(layout, state, "style.1.weight", 1), count(state, "style.") - 1
    missing = [
        f"style.{i}.weight is missing"
        for i in range(1, layers + 1)
        if f"style.{i}.weight" not in state
    ]
    refuse(layout, missing or (["to_rgbs.0.conv.weight is missing"] if len(widths) < 2 else []))
    return Spec("stylegan2", dict(zip(sizes(len(widths)), widths)), colours, z_dim, layers)


def entries(size: Spec) -> list[Entry]:
    """Every entry but the filters."""
    blocks = range(1, len(size.channels))
    convs = {"conv1": "blocks.0.conv"}
    convs |= {
        f"convs.{2 * b - 2 + i}": f"blocks.{b}.{part}"
        for b in blocks
        for i, part in enumerate(("up", "conv"))
    }
    rgbs = {"to_rgb1": "blocks.0.to_rgb"}
    rgbs |= {f"to_rgbs.{b - 1}": f"blocks.{b}.to_rgb" for b in blocks}
    table = [
        Entry(f"style.{i + 1}.{part}", f"mapping.{i}.{part}")
        for i in range(size.num_mapping)
        for part in ("weight", "bias")
    ]
    table.append(Entry("input.input", "const"))
    for theirs, ours in (convs | rgbs).items():
        table += [
            Entry(f"{theirs}.conv.weight", f"{ours}.conv.weight", LEADING),
            Entry(f"{theirs}.conv.modulation.weight", f"{ours}.conv.style.weight"),
            Entry(f"{theirs}.conv.modulation.bias", f"{ours}.conv.style.bias"),
        ]
    for theirs, ours in convs.items():
        table += [
            Entry(f"{theirs}.noise.weight", f"{ours}.noise_strength", ONE),
            Entry(f"{theirs}.activate.bias", f"{ours}.bias"),
        ]
    table += [Entry(f"{theirs}.bias", f"{ours}.bias", COLOUR) for theirs, ours in rgbs.items()]
    table += [Entry(f"noises.noise_{i}", f"noise_{i}") for i in range(2 * len(blocks) + 1)]
    return table


def draw(state: dict[str, Tensor], size: Spec, z: Tensor) -> Tensor:
    """The image of z (z_dim,), float64, from the layout's definition."""
    s = {name: value.double() for name, value in state.items()}

    def layer(name: str, noise: int | None) -> plain.Layer:
        weight = s[f"{name}.conv.weight"][0]
        affine = s[f"{name}.conv.modulation.weight"]
        return plain.Layer(
            weight / math.sqrt(weight[0].numel()),
            affine / math.sqrt(affine.shape[1]),
            s[f"{name}.conv.modulation.bias"],
            s[f"{name}.bias"].flatten() if noise is None else s[f"{name}.activate.bias"],
            None if noise is None else s[f"{name}.noise.weight"] * s[f"noises.noise_{noise}"],
        )

    blocks = [([layer("conv1", 0)], layer("to_rgb1", None))]
    for i in range(len(size.channels) - 1):
        up, conv = layer(f"convs.{2 * i}", 2 * i + 1), layer(f"convs.{2 * i + 1}", 2 * i + 2)
        blocks.append(([up, conv], layer(f"to_rgbs.{i}", None)))
    lr, scale = size.mapping_lr, size.mapping_lr / math.sqrt(size.z_dim)
    dense = [
        (s[f"style.{i}.weight"] * scale, s[f"style.{i}.bias"] * lr)
        for i in range(1, size.num_mapping + 1)
    ]
    return plain.stylegan2(plain.dense(z[None], dense), s["input.input"], blocks)


def export(G: StyleGAN2Generator, size: Spec) -> dict[str, Tensor]:
    """G's tensors in this layout, filters included.

    Raises:
        ValueError: G is grey, or its mapping's multiplier is not the layout's.
    """
    if size.image_channels != 3 or size.mapping_lr != 0.01:
        raise ValueError(
            f"export: the generator has {size.image_channels} colour channels and a mapping "
            f"multiplier of {size.mapping_lr}; {NAME}'s layout has 3 and 0.01."
        )
    ours, state = G.state_dict(), {}
    for entry in entries(size):
        state[entry.theirs] = entry.rule.to_theirs(ours[entry.ours]).clone()
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    for i in range(len(size.channels) - 1):
        state[f"convs.{2 * i}.conv.blur.kernel"] = taps[:, None] * taps
        state[f"to_rgbs.{i}.upsample.kernel"] = taps[:, None] * taps
    return state
