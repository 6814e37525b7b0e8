"""The operator that a command line names: task=physics (docs/deepinv.md).

    task=physics task.physics._target_=deepinv.physics.Inpainting +task.physics.mask=0.3

Lives here: how it is built. The class may be a physics of deepinv, a torch.nn.Module that takes
images in [-1, 1], or an operator of rtil's. What a command says of it is passed to it by name, and
what it needs to know of the images and the seed is filled in. Files name no class: see
`rtil.process.instantiate`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from inspect import signature

import torch
from torch import nn

from rtil.operators.deepinv import INSTALL, is_physics, physics_operator
from rtil.operators.instrument import ModuleInstrument, operator_of
from rtil.operators.operator import ForwardOperator
from rtil.process.brief import brief, reason
from rtil.process.instantiate import instantiate, target_of
from rtil.process.rng import seed_of

SIZES = ("in_shape", "img_size", "tensor_size")  # names of an argument for (C, H, W)
WIDTH = "img_width"  # of one for the side of square images


def named(
    in_shape: Sequence[int], physics: Mapping, noise_std: float = 0.0, seed: int = 0
) -> ForwardOperator:
    """The operator that a configuration names.

    The arguments in_shape, img_size, tensor_size and img_width are filled in from the images, rng
    and seed from the seed, device with "cpu", where the class takes them and they are not said.

    Args:
        in_shape: (C, H, W) of the images.
        physics: `_target_`, and its arguments by name; nested ones are built first.
        noise_std: that is added, in units of the [0, 1] image.
        seed: draws what is random in it.

    Raises:
        ValueError: nothing is named, it cannot be imported or built, is for images of another
            size, is no torch.nn.Module, or as `physics_operator` and `instrument.operator_of`.
    """
    if not isinstance(physics, Mapping) or not physics.get("_target_"):
        raise ValueError(
            f"task.physics={brief(physics)} names no class: task.physics._target_=package.Class."
        )
    # Some draw from torch's own numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = _built(physics, tuple(in_shape), seed)
    if isinstance(built, ForwardOperator):
        if built.in_shape != tuple(in_shape):
            raise _other_size(physics["_target_"], built.in_shape, in_shape)
        return built
    if isinstance(built, nn.Module):
        if is_physics(built):
            return physics_operator(built, in_shape, noise_std)
        return operator_of(ModuleInstrument(built.eval()), in_shape)
    raise ValueError(
        f"task.physics._target_={physics['_target_']} builds {brief(built)}; it must be a physics "
        "of deepinv, or a torch.nn.Module that takes images in [-1, 1]."
    )


def _built(node: Mapping, shape: tuple[int, ...], seed: int) -> object:
    """What a node names, with all that it is not told and that is known here."""
    target = str(node.get("_target_"))
    if target.partition(".")[0] == "deepinv" and find_spec("deepinv") is None:
        raise ValueError(f"task.physics: {target} needs deepinv: {INSTALL}")
    takes = _parameters(target_of(node))
    said = {key: _argument(value, shape, seed_of(seed, key)) for key, value in node.items()}
    filled: dict[str, object] = dict.fromkeys(SIZES, shape)
    filled |= {WIDTH: shape[-1], "device": "cpu", "seed": seed}
    filled["rng"] = torch.Generator().manual_seed(seed)
    _check_size(target, said, shape)
    filled = {name: value for name, value in filled.items() if name in takes - said.keys()}
    try:
        with warnings.catch_warnings():
            # deepinv's way to say that an argument is none of the class.
            warnings.filterwarnings("error", message=".*are ignored")
            return instantiate(said, **filled)
    except ValueError:
        raise
    # Code of others raises whatever it likes.
    except Exception as error:
        raise ValueError(f"task.physics: {target} cannot be built ({reason(error)}).") from error


def _argument(value: object, shape: tuple[int, ...], seed: int) -> object:
    """A value of a node, with objects for nodes at or below it."""
    if isinstance(value, Mapping) and "_target_" in value:
        return _built(value, shape, seed)
    if isinstance(value, list | tuple):
        entries = enumerate(value)
        return [_argument(entry, shape, seed_of(seed, number)) for number, entry in entries]
    return value


def _parameters(build: object) -> set[str]:
    """Names of the arguments of a class or function; none where it does not say."""
    try:
        return {*signature(build).parameters}  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return set()


def _check_size(target: str, said: Mapping, shape: Sequence[int]) -> None:
    """Raises ValueError where a size that was said is not that of the images."""
    for name in (*SIZES, WIDTH):
        size = said.get(name)
        if isinstance(size, list | tuple) and len(size) >= 2 and [*size[-2:]] != [*shape[-2:]]:
            raise _other_size(f"{target} {name}", size, shape)
        if isinstance(size, int) and size != shape[-1]:
            raise _other_size(f"{target} {name}", [size], shape)


def _other_size(what: str, size: Sequence[int], shape: Sequence[int]) -> ValueError:
    return ValueError(
        f"task.physics: {what} is for images of {brief([*size])} and the generator draws "
        f"{brief([*shape])}; leave the size out, and it is the generator's."
    )
