"""The authors' released files (rtil_ilo.pt, vanilla_ilo.pt, rtil_mgan.pt, vanilla_mgan.pt).

Their StyleGAN2 has rosinality's layout, saved from DataParallel; their PGGAN, written out here,
has a layout of its own: unscaled weights named weight_orig, pixel norm before the activation.
Both draw in [-1, 1].
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from rtil.importers import plain, rosinality
from rtil.importers.layout import Entry, Foreign, Spec, generator_state, sizes, width

NAME = "authors"
INPUT = "input_layer.0.conv.weight_orig"
# Options of the class that leave no trace in its tensors.
GUESSES = (
    "pixel norm before every activation",
    "bilinear up-sampling",
    "no tanh after the last layer",
    "grown to its full size",
)


def find(content: object) -> Foreign | None:
    """The generator in a file's content, or None where it has another layout.

    Raises:
        ValueError: sizes cannot be read from it, or it filters otherwise than rtil.
    """
    if _parallel(content):
        return rosinality.find(content, NAME)
    found = generator_state(content)
    if found is None or INPUT not in found[1]:
        return None
    part, state = found
    size = spec_of(state)
    return Foreign(
        NAME,
        part,
        size,
        state,
        entries(size),
        lambda z: draw(state, size, z),
        guesses=GUESSES,
    )


def _parallel(content: object) -> bool:
    """Whether a StyleGAN2 in rosinality's layout carries DataParallel's prefix."""
    parts = content.values() if isinstance(content, dict) else ()
    return any(
        isinstance(part, dict) and "module.input.input" in part for part in (content, *parts)
    )


def spec_of(state: dict[str, Tensor]) -> Spec:
    """Sizes, from the shapes of the entries."""
    widths = {4: width(NAME, state, INPUT, 1)}
    blocks = sum(name.startswith("to_rgb_") and name.endswith("weight_orig") for name in state)
    for side in sizes(max(blocks, 2)):
        widths[side] = width(NAME, state, f"progression_{side}.conv.0.conv.weight_orig", 0)
    colours = width(NAME, state, "to_rgb_4.conv.weight_orig", 0)
    return Spec("pggan", widths, colours, width(NAME, state, INPUT, 0))


def entries(size: Spec) -> list[Entry]:
    """Every entry."""
    table = [Entry(INPUT, "input"), Entry("input_layer.0.conv.bias", "input_bias")]
    for block, side in enumerate(size.channels):
        for theirs, ours in (("weight_orig", "weight"), ("bias", "bias")):
            conv = f"progression_{side}.conv"
            table += [
                Entry(f"{conv}.0.conv.{theirs}", f"blocks.{block}.conv0.{ours}"),
                Entry(f"{conv}.3.conv.{theirs}", f"blocks.{block}.conv1.{ours}"),
                Entry(f"to_rgb_{side}.conv.{theirs}", f"to_rgb.{block}.{ours}"),
            ]
    return table


def draw(state: dict[str, Tensor], size: Spec, z: Tensor) -> list[Tensor]:
    """The image of z (z_dim,) at every size from 4, float64, from the layout's definition."""
    s = {name: value.double() for name, value in state.items()}

    def scaled(name: str) -> tuple[Tensor, Tensor]:
        weight, bias = s[f"{name}.conv.weight_orig"], s[f"{name}.conv.bias"]
        return weight * math.sqrt(2 / weight[0].numel()), bias

    x = F.conv_transpose2d(z[None, :, None, None], *scaled("input_layer.0"))
    x, images = plain.lrelu(plain.pixel_norm(x)), []
    for side in size.channels:
        if side > 4:
            x = F.interpolate(x, (side, side), mode="bilinear", align_corners=False)
        for i in (0, 3):
            x = F.conv2d(x, *scaled(f"progression_{side}.conv.{i}"), padding=1)
            x = plain.lrelu(plain.pixel_norm(x))
        images.append(F.conv2d(x, *scaled(f"to_rgb_{side}")))
    return images
