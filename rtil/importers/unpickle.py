"""Pickles without code: what one wanted to build becomes inert records, anything else is refused.

For the pickles of NVlabs' PyTorch networks, which hold modules as (source code, class name,
state). The source is never looked at and nothing is imported; tensors are rebuilt on the CPU from
their bytes, bounds checked. Files of torch.save and of safetensors go through
rtil.process.weights instead.
"""

from __future__ import annotations

import argparse
import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rtil import checkpoint
from rtil.process.bounds import check_regular, check_size
from rtil.process.brief import brief
from rtil.process.tensor_file import SUFFIX
from rtil.process.weights import ADVICE, check_legacy, check_tensors

# The number that torch's first format begins with, as a pickle.
LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class Forbidden(ValueError):
    """A pickle names something that is not on the list."""


class EasyDict(dict):
    """NVlabs' dictionary whose entries are attributes too; here a dictionary."""

    def __setstate__(self, state: object) -> None:
        """Its attributes are its entries, which come separately."""


class Module(NamedTuple):
    """A network as NVlabs pickle it: its class's name and its attributes, and no code."""

    class_name: str
    state: dict

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and buffers of it and of what it holds, named as torch names them."""
        found = {}
        for kind in ("_parameters", "_buffers"):
            for name, value in self.state.get(kind, {}).items():
                if value is not None:
                    found[f"{prefix}{name}"] = value
        for name, child in self.state.get("_modules", {}).items():
            if isinstance(child, Module):
                found.update(child.tensors(f"{prefix}{name}."))
        return found

    def child(self, path: str) -> Module | None:
        """The network at a dotted path, or None."""
        found = self
        for name in path.split("."):
            inside = found.state.get("_modules", {}).get(name)
            if not isinstance(inside, Module):
                return None
            found = inside
        return found


class Dtype:
    """numpy's type of a number: only what its code says, such as f8."""

    def __init__(self, code: str, *rest: object) -> None:
        self.code = code

    def __setstate__(self, state: tuple) -> None:
        """Byte order and the like; plain numbers have none that matter here."""


class Array:
    """A numpy array, which no generator needs; it is not decoded."""

    def __init__(self, *arguments: object) -> None:
        pass

    def __setstate__(self, state: tuple) -> None:
        """Shape and bytes, which are left."""


def _module(meta: dict) -> Module:
    if meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise ValueError("a persistent object without a class and a state.")
    return Module(str(meta.get("class_name")), meta["state"])


def _number(dtype: Dtype, content: bytes) -> float | int | bool:
    if dtype.code not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1"):
        raise Forbidden(f"numpy scalar of type {dtype.code!r}")
    return np.frombuffer(content, dtype=dtype.code, count=1).item()


def _storage(content: bytes) -> Tensor:
    """The bytes of a storage, itself a file of torch.save, as a flat tensor."""
    if content.startswith(b"PK"):
        raise ValueError("a storage in a zip, which may unpack to more than it is.")
    check_legacy(io.BytesIO(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of its own old class of storages
        storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        if not isinstance(storage, torch.storage.TypedStorage):
            raise ValueError(f"a storage that is a {type(storage).__name__}.")
        return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)


def _tensor(
    flat: Tensor,
    offset: int,
    size: tuple,
    stride: tuple,
    requires_grad: bool,
    hooks: object,
    metadata: object = None,
) -> Tensor:
    # A view, whose bounds torch checks; a tensor that repeats elements is refused afterwards.
    return torch.as_strided(flat, size, stride, offset)


def _parameter(data: Tensor, requires_grad: bool, hooks: object, state: object = None) -> Tensor:
    return data


ALLOWED: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("dnnlib.util", "EasyDict"): EasyDict,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _module,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("numpy", "dtype"): Dtype,
    ("numpy", "ndarray"): Array,
}
for _core in ("core", "_core"):  # before and since NumPy 2
    ALLOWED[f"numpy.{_core}.multiarray", "scalar"] = _number
    ALLOWED[f"numpy.{_core}.multiarray", "_reconstruct"] = Array


class Unpickler(pickle.Unpickler):
    """Knows the names of ALLOWED and builds what stands there; imports nothing.

    Args:
        size: of the file in bytes; what is built of it holds no more.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        super().__init__(file)
        self.left = size

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in ALLOWED:
            raise Forbidden(brief(f"{module}.{name}"))
        found = ALLOWED[module, name]
        return self._storage if found is _storage else found

    def _storage(self, content: bytes) -> Tensor:
        self.left -= len(content)
        if self.left < 0:
            raise ValueError("storages that hold more than the file.")
        return _storage(content)

    def persistent_load(self, pid: object) -> object:
        raise Forbidden("an object outside the file")


def read(path: str | Path) -> object:
    """Reads a file of torch.save, safetensors or a pickle of NVlabs, without running its code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it would run code (the name is in the message), is truncated or is neither.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    size = check_regular(path)
    with open(path, "rb") as file:
        head = file.read(64)
    if path.suffix == SUFFIX:
        return checkpoint.read(path)
    if zipfile.is_zipfile(path) or head.startswith(b"PK") or LEGACY_MAGIC in head:
        # Training scripts store their arguments beside the weights; a namespace is inert.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return checkpoint.read(path)
    try:
        with open(path, "rb") as file:
            content = Unpickler(file, size).load()
    except Forbidden as error:
        hint = "Nothing of it was loaded and no code ran."
        if str(error).startswith("dnnlib.tflib"):
            hint = "It is a TensorFlow network: convert it with stylegan2-ada-pytorch's legacy.py."
        raise ValueError(
            f"{path} asks for {error}, which a generator does not need and which would run code. "
            + hint
        ) from error
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        raise ValueError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}): it is truncated or "
            "no checkpoint. Copy it again or choose another."
        ) from error
    # A module is a tuple of its class's name and its state.
    check_size(content, str(path), ADVICE)
    check_tensors(content, path, size)
    return content
