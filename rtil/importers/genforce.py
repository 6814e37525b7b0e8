"""StyleGAN2 as genforce names it, in the spelling of its library and in that of mGANprior.

Weights are stored unscaled and in TensorFlow's orientation: up-sampling convolutions are flipped
before conv_transpose2d, style biases lack their one; mGANprior's convolutions are (k, k, in, out).
Images are in [-1, 1]. Its PGGAN is rtil.importers.genforce_pggan.
"""

from __future__ import annotations

import math

from torch import Tensor

from rtil.importers import genforce_pggan, plain
from rtil.importers.layout import (
    BIAS,
    FLIP,
    HWIO,
    HWIO_FLIP,
    SAME,
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

NAME = "genforce"
# Options of the class that leave no trace in its tensors.
GUESSES = ("weights scaled when used", "no tanh after the last layer")


def find(content: object) -> Foreign | None:
    """The generator in a file's content, or None where it has another layout.

    Raises:
        ValueError: it computes what rtil's networks do not; the message says what.
    """
    found = genforce_pggan.find(content)
    if found is not None:
        return found
    part, state = generator_state(content) or ("", {})
    if "synthesis.early_layer.const" not in state:
        return None
    wrong = []
    if "mapping.label_weight" in state:
        wrong.append("mapping.label_weight: conditional; rtil has no classes")
    if any("skip_layer" in name for name in state):
        wrong.append("synthesis.skip_layer0.weight: architecture 'resnet'; rtil has 'skip'")
    refuse(NAME, wrong + other_filters(state, ".kernel", gain=4.0))
    fc = ".fc" if "mapping.dense0.fc.weight" in state else ""
    size = spec_of(state, fc)
    ignored = frozenset(
        name for name in state if name.endswith(".kernel") or name.startswith("truncation.")
    )
    notes = mapping_note(
        [
            state[name]
            for name in state
            if name.startswith("mapping.dense") and name.endswith("weight")
        ],
        size.mapping_lr,
    )
    return Foreign(
        NAME,
        part,
        size,
        state,
        entries(size, fc),
        lambda z: [draw(state, size, fc, z)],
        ignored,
        notes,
        (multiplier(size.mapping_lr), *GUESSES),
    )


def spec_of(state: dict[str, Tensor], fc: str) -> Spec:
    """Sizes, from the shapes of the entries."""
    out = 3 if fc else 0
    widths = [
        width(NAME, state, f"synthesis.layer{2 * i}.weight", out)
        for i in range(max(count(state, "synthesis.output"), 2))
    ]
    colours = width(NAME, state, "synthesis.output0.weight", out)
    z_dim = width(NAME, state, f"mapping.dense0{fc}.weight", 1)
    return Spec(
        "stylegan2",
        dict(zip(sizes(len(widths)), widths)),
        colours,
        z_dim,
        count(state, "mapping.dense"),
    )


def entries(size: Spec, fc: str) -> list[Entry]:
    """Every entry but filters and truncation; fc is ".fc" in mGANprior's spelling."""
    conv, up = (HWIO, HWIO_FLIP) if fc else (SAME, FLIP)
    table = [Entry("synthesis.early_layer.const", "const")]
    for i in range(size.num_mapping):
        table += [
            Entry(f"mapping.dense{i}{fc}.weight", f"mapping.{i}.weight"),
            Entry(f"mapping.dense{i}.bias", f"mapping.{i}.bias"),
        ]
    for block in range(len(size.channels)):
        parts = [(f"layer{2 * block}", "conv", conv), (f"output{block}", "to_rgb", conv)]
        if block:
            parts.append((f"layer{2 * block - 1}", "up", up))
        for theirs, ours, rule in parts:
            there, here = f"synthesis.{theirs}", f"blocks.{block}.{ours}"
            table += [
                Entry(f"{there}.weight", f"{here}.conv.weight", rule),
                Entry(f"{there}.style{fc}.weight", f"{here}.conv.style.weight"),
                Entry(f"{there}.style.bias", f"{here}.conv.style.bias", BIAS),
                Entry(f"{there}.bias", f"{here}.bias"),
            ]
            if ours != "to_rgb":
                index = theirs.removeprefix("layer")
                table += [
                    Entry(f"{there}.noise_strength", f"{here}.noise_strength"),
                    Entry(f"{there}.noise", f"noise_{index}"),
                ]
    return table


def draw(state: dict[str, Tensor], size: Spec, fc: str, z: Tensor) -> Tensor:
    """The image of z (z_dim,), float64, from the layout's definition."""
    s = {name.removeprefix("synthesis."): value.double() for name, value in state.items()}

    def layer(name: str, up: bool = False) -> plain.Layer:
        weight, affine = s[f"{name}.weight"], s[f"{name}.style{fc}.weight"]
        if fc:
            weight = weight.movedim((3, 2), (0, 1))
        weight = weight / math.sqrt(weight[0].numel())
        noise = f"{name}.noise"
        return plain.Layer(
            weight.flip((2, 3)) if up else weight,
            affine / math.sqrt(affine.shape[1]),
            s[f"{name}.style.bias"] + 1.0,
            s[f"{name}.bias"],
            s[noise] * s[f"{name}.noise_strength"] if noise in s else None,
        )

    blocks = [([layer("layer0")], layer("output0"))]
    for i in range(1, len(size.channels)):
        convolutions = [layer(f"layer{2 * i - 1}", up=True), layer(f"layer{2 * i}")]
        blocks.append((convolutions, layer(f"output{i}")))
    lr, dense = size.mapping_lr, []
    for i in range(size.num_mapping):
        weight = s[f"mapping.dense{i}{fc}.weight"]
        dense.append((weight * lr / math.sqrt(weight.shape[1]), s[f"mapping.dense{i}.bias"] * lr))
    return plain.stylegan2(plain.dense(z[None], dense), s["early_layer.const"], blocks)
