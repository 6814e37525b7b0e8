"""PGGAN as genforce names it, in the spelling of its library and in that of mGANprior.

It is the network of Karras et al. 2018: every convolution reads pixel-normalised values, the first
one the latent, toRGB too; features grow by nearest neighbours; weights are stored unscaled, for
sqrt(2 / fan_in), those of toRGB for sqrt(1 / fan_in). The first layer is a padded 4x4 convolution
of one pixel, so its kernel lies flipped. With `fused_scale` the convolution that doubles the size
is a transposed one, of the kernel summed over 2x2 shifts: the same map with the kernel flipped,
stored (in, out, k, k), by mGANprior (k, k, in, out). Images are in [-1, 1].

The library's network has options that leave no trace in its tensors: classes, a final tanh,
weights that are stored scaled. They are taken as its converter of the released networks leaves
them, off, and the report says so; mGANprior's network has none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from rtil.importers import plain
from rtil.importers.layout import (
    HWIO_FLIP,
    SAME,
    TURN,
    Entry,
    Foreign,
    Rule,
    Spec,
    count,
    generator_state,
    refuse,
    sizes,
    width,
)
from rtil.process.brief import brief

NAME = "genforce"
FORM = {
    "upsample": "nearest",
    "pixel_norm": "input",
    "rgb_gain": 1.0,
    "input_fan": "in",
    "first_convs": 1,
}


class Spelling(NamedTuple):
    """How a project names and orients what a layer holds.

    weight, bias: endings of the names. fused_weight: that of a kernel with fused_scale, and
    turn: its way to ours.
    """

    weight: str
    bias: str
    fused_weight: str
    turn: Rule


LIBRARY = Spelling("weight", "bias", "weight", TURN)
MGANPRIOR = Spelling("conv.weight", "wscale.bias", "weight", HWIO_FLIP)


def find(content: object) -> Foreign | None:
    """The generator in a file's content, or None where it has another layout.

    Raises:
        ValueError: sizes cannot be read from it, or it computes what rtil's network does not.
    """
    part, state = generator_state(content) or ("", {})
    spelling = next(
        (
            s
            for s in (MGANPRIOR, LIBRARY)
            if {f"layer0.{s.weight}", f"output0.{s.weight}"} & state.keys()
        ),
        None,
    )
    if spelling is None:
        return None
    size = spec_of(state, spelling)
    refuse(NAME, differences(state, size))
    shown = fused_scale(state, size, spelling)
    fused = bool(shown)
    return Foreign(
        NAME,
        part,
        size,
        state,
        entries(size, spelling, fused),
        lambda z: draw(state, size, spelling, fused, z),
        frozenset({"lod"}),
        (*scale_note(state, spelling), *left_out(content)),
        unsaid(spelling, shown is None),
    )


def spec_of(state: dict[str, Tensor], spelling: Spelling) -> Spec:
    """Sizes, from the shapes of the entries."""
    widths = {
        side: width(NAME, state, f"layer{2 * i + 1}.{spelling.weight}", 0)
        for i, side in enumerate(sizes(max(count(state, "output"), 2)))
    }
    colours = width(NAME, state, f"output0.{spelling.weight}", 0)
    z_dim = width(NAME, state, f"layer0.{spelling.weight}", 1)
    return Spec("pggan", widths, colours, z_dim, form=FORM)


def differences(state: dict[str, Tensor], size: Spec) -> list[str]:
    """What this generator does and rtil's does not."""
    wrong, lod = [], state.get("lod")
    if lod is not None and not bool((lod == 0).all()):
        found = brief(lod.flatten()[:5].tolist())
        wrong.append(f"lod is {found}: saved while growing, without its last layers; 0 fits")
    if size.image_channels not in (1, 3):
        wrong.append(f"output0 has {size.image_channels} colour channels; rtil has 1 or 3")
    return wrong


def fused_scale(state: dict[str, Tensor], size: Spec, spelling: Spelling) -> bool | None:
    """Whether it was built so; None where neither names nor shapes tell."""
    ups = {
        f"layer{2 * i}.{spelling.fused_weight}": pair
        for i, pair in enumerate(pairwise(size.channels.values()), start=1)
    }
    if spelling.fused_weight != spelling.weight:
        return not ups.keys().isdisjoint(state)
    found = [
        tuple(state[name].shape[:2]) == pair
        for name, pair in ups.items()
        if name in state and pair[0] != pair[1]
    ]
    return any(found) if found else None


def unsaid(spelling: Spelling, either: bool) -> tuple[str, ...]:
    """What the tensors do not tell, as the library's converter builds it.

    Args:
        either: whether fused_scale is among it.
    """
    if spelling is MGANPRIOR:
        return ()
    off = ("no classes", "no tanh after the last layer", "weights scaled when used")
    return (*off, "no fused_scale") if either else off


def scale_note(state: dict[str, Tensor], spelling: Spelling) -> list[str]:
    """A warning where the weights do not look like such that are scaled when used."""
    if spelling is MGANPRIOR:
        return []
    rms = state[f"layer1.{spelling.weight}"].double().square().mean().sqrt().item()
    if 0.2 < rms < 5.0:
        return []
    return [
        f"WARNING: weights of layer1 have rms {rms:.3g}, where about 1 is expected "
        "of weights that are scaled when used. The file does not say whether they "
        "are; without (use_wscale=False) the images are others."
    ]


def left_out(content: object) -> list[str]:
    """A note on the discriminator beside the generator."""
    parts = content.get("models", content) if isinstance(content, Mapping) else None
    if not isinstance(parts, Mapping) or not parts.get("discriminator"):
        return []
    return [
        "the discriminator in the file is left out: it has an activation after its colour "
        "layers and no pixel norm, unlike rtil's"
    ]


def entries(size: Spec, spelling: Spelling, fused: bool) -> list[Entry]:
    """Every entry but lod."""
    plainly = (spelling.weight, SAME)
    up = (spelling.fused_weight, spelling.turn) if fused else plainly
    layers = {"layer0": ("input", spelling.weight, TURN), "layer1": ("blocks.0.conv0.", *plainly)}
    for block in range(1, len(size.channels)):
        layers[f"layer{2 * block}"] = (f"blocks.{block}.conv0.", *up)
        layers[f"layer{2 * block + 1}"] = (f"blocks.{block}.conv1.", *plainly)
    for block in range(len(size.channels)):
        layers[f"output{block}"] = (f"to_rgb.{block}.", *plainly)
    table = []
    for theirs, (ours, weight, rule) in layers.items():
        names = ("input", "input_bias") if ours == "input" else (f"{ours}weight", f"{ours}bias")
        table += [
            Entry(f"{theirs}.{weight}", names[0], rule),
            Entry(f"{theirs}.{spelling.bias}", names[1]),
        ]
    return table


def draw(
    state: dict[str, Tensor], size: Spec, spelling: Spelling, fused: bool, z: Tensor
) -> list[Tensor]:
    """The image of z (z_dim,) at every size from 4, float64, from the layout's definition."""
    s = {name: value.double() for name, value in state.items()}

    def layer(name: str, x: Tensor, gain: float, padding: int) -> Tensor:
        weight, bias = s[f"{name}.{spelling.weight}"], s[f"{name}.{spelling.bias}"]
        scale = math.sqrt(gain / weight[0].numel())
        return F.conv2d(plain.pixel_norm(x), weight * scale, bias, padding=padding)

    def doubled(name: str, x: Tensor) -> Tensor:
        if not fused:
            return layer(name, x.repeat_interleave(2, 2).repeat_interleave(2, 3), 2.0, 1)
        weight = s[f"{name}.{spelling.fused_weight}"]
        if spelling is MGANPRIOR:
            weight = weight.movedim((2, 3), (0, 1))
        weight = weight * math.sqrt(2 / weight[:, 0].numel())
        around = F.pad(weight, (1, 1, 1, 1))
        a, b, c, d = (around[:, :, i : i + 4, j : j + 4] for i in (0, 1) for j in (0, 1))
        kernel = a + b + c + d
        bias = s[f"{name}.{spelling.bias}"]
        return F.conv_transpose2d(plain.pixel_norm(x), kernel, bias, stride=2, padding=1)

    x = z[None, :, None, None]
    if spelling is LIBRARY:  # it normalises the latent once more, to the length of N(0, I)'s
        x = plain.pixel_norm(x) * math.sqrt(size.z_dim)
    x, images = plain.lrelu(layer("layer0", x, 2.0, 3)), []
    for block in range(len(size.channels)):
        if block:
            x = plain.lrelu(doubled(f"layer{2 * block}", x))
        x = plain.lrelu(layer(f"layer{2 * block + 1}", x, 2.0, 1))
        images.append(layer(f"output{block}", x, 1.0, 0))
    return images
