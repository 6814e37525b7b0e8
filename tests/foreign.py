"""One random network written as other projects write theirs, at tiny sizes.

From what each layout is documented to store: rosinality and NVlabs keep up-sampling kernels as
conv_transpose2d reads them and style biases with their one, genforce flips and leaves it out,
mGANprior orders kernels (k, k, in, out). PGGANs have networks of their own: the authors', and that
of Karras et al. 2018 in genforce's two spellings.
"""

import argparse
import pickle
import sys
import types
from collections import OrderedDict
from itertools import pairwise
from unittest import mock

import numpy as np
import torch
from torch import nn

CHANNELS = {4: 6, 8: 5, 16: 4}
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
FIR = TAPS[:, None] * TAPS


class Net:
    """Random tensors of a StyleGAN2, none of them zero, by what they are."""

    def __init__(self, channels=CHANNELS, z_dim=8, mapping=2, colours=3, seed=0):
        rng = torch.Generator().manual_seed(seed)

        def draw(*shape):
            return torch.randn(shape, generator=rng)

        widths, self.sides = list(channels.values()), list(channels)
        self.mapping = [(100 * draw(z_dim, z_dim), draw(z_dim)) for _ in range(mapping)]
        self.const, self.z_dim = draw(widths[0], 4, 4), z_dim
        self.convs, self.rgbs = [], []
        for k, out in enumerate(widths):
            inputs = [out] if k == 0 else [widths[k - 1], out]
            side = self.sides[k]
            self.convs.append(
                [
                    {
                        "weight": draw(out, i, 3, 3),
                        "affine": draw(i, z_dim),
                        "style": 1 + draw(i),
                        "bias": draw(out),
                        "strength": draw(),
                        "noise": draw(side, side),
                    }
                    for i in inputs
                ]
            )
            self.rgbs.append(
                {
                    "weight": draw(colours, out, 1, 1),
                    "affine": draw(out, z_dim),
                    "style": 1 + draw(out),
                    "bias": draw(colours),
                }
            )


def rosinality(net):
    state = {"input.input": net.const[None]}
    for i, (weight, bias) in enumerate(net.mapping, start=1):
        state |= {f"style.{i}.weight": weight, f"style.{i}.bias": bias}
    index = 0
    for k, convs in enumerate(net.convs):
        for c in convs:
            name = "conv1" if index == 0 else f"convs.{index - 1}"
            state |= {
                f"{name}.conv.weight": c["weight"][None],
                f"{name}.conv.modulation.weight": c["affine"],
                f"{name}.conv.modulation.bias": c["style"],
                f"{name}.noise.weight": c["strength"][None],
                f"{name}.activate.bias": c["bias"],
                f"noises.noise_{index}": c["noise"][None, None],
            }
            index += 1
        if k:
            state |= {
                f"convs.{2 * k - 2}.conv.blur.kernel": 4 * FIR,
                f"to_rgbs.{k - 1}.upsample.kernel": 4 * FIR,
            }
        name, c = "to_rgb1" if k == 0 else f"to_rgbs.{k - 1}", net.rgbs[k]
        state |= {
            f"{name}.conv.weight": c["weight"][None],
            f"{name}.conv.modulation.weight": c["affine"],
            f"{name}.conv.modulation.bias": c["style"],
            f"{name}.bias": c["bias"][None, :, None, None],
        }
    return state


def nvlabs(net):
    state = {"synthesis.b4.const": net.const, "mapping.w_avg": torch.zeros(net.z_dim)}
    for i, (weight, bias) in enumerate(net.mapping):
        state |= {f"mapping.fc{i}.weight": weight, f"mapping.fc{i}.bias": bias}
    for side, convs, rgb in zip(net.sides, net.convs, net.rgbs):
        state[f"synthesis.b{side}.resample_filter"] = FIR
        parts = dict(zip(("conv1",) if side == 4 else ("conv0", "conv1"), convs))
        for name, c in (parts | {"torgb": rgb}).items():
            at = f"synthesis.b{side}.{name}"
            state |= {
                f"{at}.weight": c["weight"],
                f"{at}.bias": c["bias"],
                f"{at}.affine.weight": c["affine"],
                f"{at}.affine.bias": c["style"],
            }
            if name != "torgb":
                state |= {
                    f"{at}.noise_const": c["noise"],
                    f"{at}.resample_filter": FIR,
                    f"{at}.noise_strength": c["strength"],
                }
    return state


def genforce(net, fc="", order=lambda t: t):
    state = {
        "synthesis.early_layer.const": net.const[None],
        "synthesis.upsample.kernel": 4 * FIR[None, None],
        "truncation.w_avg": torch.zeros(net.z_dim),
    }
    for i, (weight, bias) in enumerate(net.mapping):
        state |= {f"mapping.dense{i}{fc}.weight": weight, f"mapping.dense{i}.bias": bias}
    index = 0
    for k, convs in enumerate(net.convs):
        named = {}
        for i, c in enumerate(convs):
            up = k > 0 and i == 0
            weight = c["weight"].flip(2, 3) if up else c["weight"]
            named[f"layer{index}"] = c | {"weight": weight}
            if up:
                state[f"synthesis.layer{index}.filter.kernel"] = 4 * FIR[None, None]
            index += 1
        for name, c in (named | {f"output{k}": net.rgbs[k]}).items():
            at = f"synthesis.{name}"
            state |= {
                f"{at}.weight": order(c["weight"]),
                f"{at}.bias": c["bias"],
                f"{at}.style{fc}.weight": c["affine"],
                f"{at}.style.bias": c["style"] - 1,
            }
            if "noise" in c:
                state |= {
                    f"{at}.noise": c["noise"][None, None],
                    f"{at}.noise_strength": c["strength"],
                }
    return state


def mganprior(net):
    state = genforce(net, ".fc", lambda t: t.permute(2, 3, 1, 0))
    return state | {"truncation.truncation": torch.ones(1, 6, 1)}


def pggan(channels=CHANNELS, z_dim=8, seed=0):
    """The authors' layout."""
    rng, widths = torch.Generator().manual_seed(seed), list(channels.values())
    shapes = {"input_layer.0": (z_dim, widths[0], 4, 4)}
    for before, (side, out) in zip([widths[0], *widths], channels.items()):
        shapes |= {
            f"progression_{side}.conv.0": (out, before, 3, 3),
            f"progression_{side}.conv.3": (out, out, 3, 3),
            f"to_rgb_{side}": (3, out, 1, 1),
        }
    state = {}
    for name, shape in shapes.items():
        outputs = shape[1] if name.startswith("input") else shape[0]
        state[f"{name}.conv.weight_orig"] = torch.randn(shape, generator=rng)
        state[f"{name}.conv.bias"] = torch.randn(outputs, generator=rng)
    return state


class Karras:
    """Random tensors of the PGGAN of Karras et al. 2018 by what they are: (weight, bias) each.

    first: (z_dim, C, 4, 4), what the latent is multiplied with. convs: of each size, (out, in, 3,
    3); one at 4x4, then two, of which the first reads an enlarged map.
    """

    def __init__(self, channels=CHANNELS, z_dim=8, colours=3, seed=0):
        rng, widths = torch.Generator().manual_seed(seed), list(channels.values())

        def layer(*shape):
            return torch.randn(shape, generator=rng), torch.randn(shape[0], generator=rng)

        self.first = torch.randn(z_dim, widths[0], 4, 4, generator=rng)
        self.first_bias = torch.randn(widths[0], generator=rng)
        self.convs = [[layer(widths[0], widths[0], 3, 3)]]
        for before, out in pairwise(widths):
            self.convs.append([layer(out, before, 3, 3), layer(out, out, 3, 3)])
        self.rgbs = [layer(colours, out, 1, 1) for out in widths]


def turned(weight):
    """In and out exchanged and the kernel flipped: what a transposed convolution reads."""
    return weight.transpose(0, 1).flip(2, 3)


def genforce_pggan(net, fused=False, weight="weight", bias="bias", up=turned):
    """layerN and outputN; with fused, what enlarges is a transposed convolution."""
    state = {
        "lod": torch.zeros(()),
        f"layer0.{weight}": turned(net.first),
        f"layer0.{bias}": net.first_bias,
    }
    for k, (convs, rgb) in enumerate(zip(net.convs, net.rgbs)):
        for i, (kernel, shift) in enumerate(convs, start=2 - len(convs)):
            enlarges = fused and k > 0 and i == 0
            named = "weight" if enlarges else weight
            state |= {
                f"layer{2 * k + i}.{named}": up(kernel) if enlarges else kernel,
                f"layer{2 * k + i}.{bias}": shift,
            }
        state |= {f"output{k}.{weight}": rgb[0], f"output{k}.{bias}": rgb[1]}
    return state


def mganprior_pggan(net, fused=False):
    return genforce_pggan(
        net, fused, "conv.weight", "wscale.bias", lambda weight: turned(weight).permute(2, 3, 0, 1)
    )


# NVlabs' pickles: modules as (source code, class name, state), with their own dictionary


class Persistent:
    def __init__(self, meta):
        self.meta = meta

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def stand_ins():
    """The modules that NVlabs' pickles name, to be there only while one is written."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("ran")

    class EasyDict(dict):
        pass

    modules = {}
    for name, member in (
        ("torch_utils.persistence", _reconstruct_persistent_obj),
        ("dnnlib.util", EasyDict),
    ):
        package, module = types.ModuleType(name.split(".")[0]), types.ModuleType(name)
        member.__module__, member.__qualname__ = name, member.__name__
        setattr(module, member.__name__, member)
        modules |= {package.__name__: package, name: module}
    return EasyDict, mock.patch.dict(sys.modules, modules)


def nvlabs_pickle(
    path, state, top=None, layer=None, source="raise SystemExit", protocol=4, lr=0.01
):
    """Writes a pickle as stylegan2-ada-pytorch does; top and layer are attributes."""
    z_dim = state["mapping.fc0.weight"].shape[1]
    EasyDict, there = stand_ins()

    def module(prefix, kind):
        inside = nn.Module().__dict__ | {"training": False}
        inside["_modules"] = OrderedDict()
        for name, value in state.items():
            if not name.startswith(prefix):
                continue
            head, _, rest = name[len(prefix) :].partition(".")
            if rest and head not in inside["_modules"]:
                inside["_modules"][head] = module(f"{prefix}{head}.", "Inner")
            elif not rest:
                buffer = head in ("resample_filter", "noise_const", "w_avg")
                where = "_buffers" if buffer else "_parameters"
                inside[where][head] = value if buffer else nn.Parameter(value.clone(), False)
        if kind == "Generator":
            inside |= {
                "z_dim": z_dim,
                "w_dim": z_dim,
                "c_dim": 0,
                **(top or {}),
                "_init_kwargs": EasyDict(z_dim=z_dim),
            }
        elif ".fc" in prefix:
            inside |= {
                "activation": "lrelu",
                "bias_gain": lr,
                "weight_gain": lr / np.sqrt(np.float64(z_dim)),
            }
        elif prefix.split(".")[-2] in ("conv0", "conv1"):
            inside |= {
                "activation": "lrelu",
                "use_noise": True,
                "conv_clamp": None,
                **(layer or {}),
            }
        elif prefix.startswith("synthesis.b") and prefix.count(".") == 2:
            inside |= {"architecture": "skip", **(layer or {})}
        return Persistent(
            {
                "type": "class",
                "version": 6,
                "module_src": source,
                "class_name": kind,
                "state": inside,
            }
        )

    content = {
        "G_ema": module("", "Generator"),
        "G": None,
        "augment_pipe": None,
        "training_set_kwargs": EasyDict(path="somewhere", seed=np.int64(3)),
    }
    with there:
        path.write_bytes(pickle.dumps(content, protocol))
    return path


def write(folder, kind, net=None, state=None, **settings):
    """Writes a net, or the given entries, in a layout; returns the path."""
    path = folder / f"{kind}.pt"
    if kind == "nvlabs":
        return nvlabs_pickle(path, state or nvlabs(net or Net()), **settings)
    if kind == "mganprior_pggan":
        content = state or mganprior_pggan(net or Karras())
    elif kind == "genforce_pggan":
        content = {
            "generator": {},
            "discriminator": {"lod": torch.zeros(())},
            "generator_smooth": state or genforce_pggan(net or Karras()),
        }
    elif kind == "authors_pggan":
        content = {"g_ema": state or pggan(), "g": {}, "d": {}}
    elif kind == "authors":
        named = {f"module.{k}": v for k, v in (state or rosinality(net or Net())).items()}
        content = {"g": named, "g_ema": named, "args": argparse.Namespace(size=16)}
    elif kind == "rosinality":
        content = {"g_ema": state or rosinality(net or Net()), "latent_avg": torch.zeros(8)}
    elif kind == "genforce":
        content = {"generator_smooth": state or genforce(net or Net()), "generator": {}}
    elif kind == "genforce_training":
        content = {"models": {"generator": genforce(net or Net())}, "running_metadata": {}}
    else:
        content = state or mganprior(net or Net())
    torch.save(content, path, **settings)
    return path
