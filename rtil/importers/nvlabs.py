"""StyleGAN2 as NVlabs' stylegan2-ada-pytorch pickles it.

Weights are stored unscaled; a demodulated convolution is not scaled at all, as the demodulation
undoes it; up-sampling convolutions are stored in the orientation of conv_transpose2d, style
biases with their one. Images are in [-1, 1]. The attributes of the pickled modules say what the
tensors cannot: condition, architecture, activation, clamp, the mapping's multiplier.
"""

from __future__ import annotations

import math
import re

from torch import Tensor

from rtil.importers import plain
from rtil.importers.layout import (
    Entry,
    Foreign,
    Rule,
    Spec,
    count,
    generator_state,
    mapping_note,
    misfit,
    multiplier,
    other_filters,
    refuse,
    sizes,
    width,
)
from rtil.importers.unpickle import Module
from rtil.process.brief import brief
from rtil.runs.kinds import POSITIVE

NAME = "nvlabs"
FC = re.compile(r"mapping\.fc\d+\.weight")
CONST = Rule(lambda t: t[None], lambda t: t[0])
MAPS = Rule(lambda t: t[None, None], lambda t: t[0, 0])


def find(content: object) -> Foreign | None:
    """The generator in a file's content, or None where it has another layout.

    Raises:
        ValueError: it computes what rtil's StyleGAN2 does not; the message says what.
    """
    module = content.get("G_ema") if isinstance(content, dict) else content
    if isinstance(module, Module):
        part, state = "G_ema", module.tensors()
    else:
        part, state = generator_state(content) or ("", {})
        module = Module("Generator", {})
    if "mapping.fc0.weight" not in state:
        return None
    refuse(NAME, differences(module, state))
    size = spec_of(module, state)
    clamp = clamps(module)
    ignored = frozenset(
        name for name in state if name.endswith("resample_filter") or name == "mapping.w_avg"
    )
    notes: tuple[str, ...] = ()
    if clamp is not None:
        notes = (f"layers clamp to +-{clamp:g} there and not here; the check below clamps",)
    guesses = unsaid(module, size)
    if multiplier(size.mapping_lr) in guesses:
        weights = [state[name] for name in state if FC.fullmatch(name)]
        notes += mapping_note(weights, size.mapping_lr)
    return Foreign(
        NAME,
        part,
        size,
        state,
        entries(size),
        lambda z: [draw(state, size, clamp, z)],
        ignored,
        notes,
        guesses,
    )


def unsaid(module: Module, size: Spec) -> tuple[str, ...]:
    """What the modules' attributes do not say; a state dict alone has none of them."""
    mapping, block = module.child("mapping.fc0"), module.child("synthesis.b4")
    conv = module.child("synthesis.b4.conv1")
    options = (
        (mapping, "bias_gain", multiplier(size.mapping_lr)),
        (mapping, "activation", "activation lrelu of the mapping"),
        (block, "architecture", "architecture skip"),
        (conv, "activation", "activation lrelu"),
        (conv, "use_noise", "noise maps in use"),
        (conv, "conv_clamp", "no clamp"),
    )
    return tuple(text for part, key, text in options if part is None or key not in part.state)


def differences(module: Module, state: dict[str, Tensor]) -> list[str]:
    """What this generator does and rtil's StyleGAN2 does not."""
    wrong = []
    if "synthesis.b4.const" not in state:
        wrong.append(
            f"class {brief(module.class_name)}: no constant input synthesis.b4.const, as "
            "StyleGAN2 has (StyleGAN3 and others are other networks)"
        )
    if module.state.get("c_dim") or "mapping.embed.weight" in state:
        classes = brief(module.state.get("c_dim"))
        wrong.append(f"conditional: c_dim={classes}; rtil has no classes")
    z_dim, w_dim = (module.state.get(key) for key in ("z_dim", "w_dim"))
    if z_dim != w_dim:
        wrong.append(f"z_dim={brief(z_dim)} and w_dim={brief(w_dim)}; rtil needs them equal")
    for side in sizes(16):
        block = module.child(f"synthesis.b{side}")
        if block is None:
            continue
        wanted = {"architecture": "skip", "activation": "lrelu", "use_noise": True}
        for name in ("", "conv0", "conv1"):
            part = block.child(name) if name else block
            for key, value in wanted.items():
                if part is not None and part.state.get(key, value) != value:
                    where = f"synthesis.b{side}{'.' * bool(name)}{name}"
                    found = brief(part.state[key])
                    wrong.append(f"{where}: {key}={found}; rtil has {brief(value)}")
    for i in range(count(state, "mapping.fc")):
        layer = module.child(f"mapping.fc{i}")
        activation = layer.state.get("activation", "lrelu") if layer else "lrelu"
        if activation != "lrelu":
            wrong.append(f"mapping.fc{i}: activation={brief(activation)}; rtil has lrelu")
    return wrong + other_filters(state, "resample_filter")


def spec_of(module: Module, state: dict[str, Tensor]) -> Spec:
    """Sizes, from shapes and attributes."""
    blocks = len({name.split(".")[1] for name in state if name.startswith("synthesis.b")})
    widths = {
        side: width(NAME, state, f"synthesis.b{side}.conv1.weight", 0)
        for side in sizes(max(blocks, 2))
    }
    colours = width(NAME, state, "synthesis.b4.torgb.weight", 0)
    first = module.child("mapping.fc0")
    lr = number(first.state.get("bias_gain", 0.01), "mapping.fc0.bias_gain") if first else 0.01
    z_dim = width(NAME, state, "mapping.fc0.weight", 1)
    return Spec("stylegan2", widths, colours, z_dim, count(state, "mapping.fc"), lr)


def clamps(module: Module) -> float | None:
    """The clamp of the convolutions, the same for all; None without one."""
    first = module.child("synthesis.b4.conv1")
    found = first.state.get("conv_clamp") if first else None
    return None if found is None else number(found, "synthesis.b4.conv1.conv_clamp")


def number(value: object, name: str) -> float:
    """An attribute that is a positive number. Raises ValueError where it is none."""
    if fault := POSITIVE.fault(value, name):
        raise misfit(NAME, [str(fault)])
    assert isinstance(value, (int, float))
    return float(value)


def entries(size: Spec) -> list[Entry]:
    """Every entry but filters and averages."""
    table = [
        Entry(f"mapping.fc{i}.{part}", f"mapping.{i}.{part}")
        for i in range(size.num_mapping)
        for part in ("weight", "bias")
    ]
    table.append(Entry("synthesis.b4.const", "const", CONST))
    for block, side in enumerate(size.channels):
        parts = {"conv1": "conv", "torgb": "to_rgb"} | ({"conv0": "up"} if block else {})
        for theirs, ours in parts.items():
            there, here = f"synthesis.b{side}.{theirs}", f"blocks.{block}.{ours}"
            table += [
                Entry(f"{there}.weight", f"{here}.conv.weight"),
                Entry(f"{there}.affine.weight", f"{here}.conv.style.weight"),
                Entry(f"{there}.affine.bias", f"{here}.conv.style.bias"),
                Entry(f"{there}.bias", f"{here}.bias"),
            ]
            if theirs != "torgb":
                index = 2 * block - (theirs == "conv0")
                table += [
                    Entry(f"{there}.noise_strength", f"{here}.noise_strength"),
                    Entry(f"{there}.noise_const", f"noise_{index}", MAPS),
                ]
    return table


def draw(state: dict[str, Tensor], size: Spec, clamp: float | None, z: Tensor) -> Tensor:
    """The image of z (z_dim,), float64, from the layout's definition."""
    s = {name: value.double() for name, value in state.items()}

    def layer(name: str) -> plain.Layer:
        weight, affine = s[f"{name}.weight"], s[f"{name}.affine.weight"]
        noise = None
        if name.endswith("torgb"):
            weight = weight / math.sqrt(weight.shape[1])
        else:
            noise = (s[f"{name}.noise_const"] * s[f"{name}.noise_strength"])[None, None]
        return plain.Layer(
            weight,
            affine / math.sqrt(affine.shape[1]),
            s[f"{name}.affine.bias"],
            s[f"{name}.bias"],
            noise,
        )

    blocks = []
    for side in size.channels:
        at = f"synthesis.b{side}"
        convolutions = [f"{at}.conv1"] if side == 4 else [f"{at}.conv0", f"{at}.conv1"]
        blocks.append(([layer(name) for name in convolutions], layer(f"{at}.torgb")))
    lr = size.mapping_lr
    dense = []
    for i in range(size.num_mapping):
        weight = s[f"mapping.fc{i}.weight"]
        dense.append((weight * lr / math.sqrt(weight.shape[1]), s[f"mapping.fc{i}.bias"] * lr))
    const = s["synthesis.b4.const"][None]
    return plain.stylegan2(plain.dense(z[None], dense), const, blocks, clamp)
