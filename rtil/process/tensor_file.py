"""Files in the layout of safetensors: tensors by name, and texts beside them; no code, ever.

rtil's own have one such text that says what else the file holds, as yaml, and name a tensor after
the table that it is of: "G_ema.const". Header, types and texts are looked at before a tensor is
read. What the contents mean is said in `rtil.checkpoint`; digests are checked in
`rtil.process.weights`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from rtil.process.bounds import check_size
from rtil.process.brief import brief, reason

SUFFIX = ".safetensors"
RECORD = "rtil"  # key of the text that is ours
HEADER_BYTES = 2**24  # of a header: 100,000 tensors
RECORD_BYTES = 2**20  # of our text; that of a training takes 2**13
TYPES = ("BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64")
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Unreadable(ValueError):
    """Why a file cannot be read, without its name."""


def pack(content: Mapping[str, object]) -> bytes:
    """The bytes of a file of tables of tensors, {"G_ema": {name: tensor}}, and of plain values."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    plain: dict[str, object] = {}
    for key, value in content.items():
        if not _is_table(value):
            plain[key] = value
            continue
        assert isinstance(value, Mapping) and "." not in key
        for name, x in value.items():
            # Tensors that share memory are no two of a file's.
            tensors[f"{key}.{name}"] = x.detach().cpu().contiguous().clone()
    text = yaml.dump(plain, Dumper=DUMPER, sort_keys=False)
    return save(tensors, metadata={RECORD: text})


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) and any(isinstance(x, Tensor) for x in value.values())


def unpack(path: Path, size: int) -> dict[str, Any]:
    """What `pack` was given; of a file of another project, its tensors by their names.

    Args:
        size: of the file, in bytes.

    Raises:
        Unreadable: damaged, or more than a file of this size can hold.
    """
    from safetensors import SafetensorError, safe_open

    _check_header(path, size)
    try:
        with safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            names = list(file.keys())
            _check_types({name: file.get_slice(name).get_dtype() for name in names})
            record = _record(texts[RECORD]) if RECORD in texts else None
            # Tensors are copied: those of the library stay parts of the file.
            tensors = {name: file.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, RuntimeError) as error:
        raise Unreadable(f"its header or tensors cannot be read ({reason(error)})") from error
    return tensors if record is None else _tables(record, tensors)


def _check_header(path: Path, size: int) -> None:
    """Compares the length that a file claims for its header with the file.

    Raises:
        Unreadable: it is longer than the file, or than any header is.
    """
    with open(path, "rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise Unreadable(f"it has {size} bytes, which is no header")
        (claimed,) = struct.unpack("<Q", start)
        longest = min(size - 8, HEADER_BYTES)
        if claimed > longest:
            raise Unreadable(
                f"its header claims {claimed} bytes, of {longest} that it can have at most"
            )
        try:
            header = json.loads(file.read(claimed))
        except (ValueError, RecursionError) as error:
            raise Unreadable("its header is no JSON") from error
    if not isinstance(header, Mapping):
        raise Unreadable(f"its header is {brief(header)} and no table")


def _check_types(types: Mapping[str, str]) -> None:
    """Raises Unreadable where a tensor is of numbers that no generator is made of."""
    for name, kind in types.items():
        if kind not in TYPES:
            raise Unreadable(f"{brief(name)} has numbers of type {brief(kind)}, none of {TYPES}")


def _record(text: str) -> dict:
    """What our text says.

    Raises:
        Unreadable: it is no yaml of a table, or too long.
    """
    if len(text) > RECORD_BYTES:
        raise Unreadable(f"its record has {len(text)} characters, of {RECORD_BYTES} at most")
    try:
        record = yaml.load(text, LOADER)
        check_size(record, "its record", "")
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"its record is no yaml ({reason(error)})") from error
    if not isinstance(record, dict):
        raise Unreadable(f"its record is {brief(record)} and no table")
    return record


def _tables(record: dict, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A record with its tensors, each in the table that its name begins with."""
    tables: dict[str, dict[str, Tensor]] = {}
    for name, x in tensors.items():
        table, _, own = name.partition(".")
        tables.setdefault(table, {})[own] = x
    return {**record, **tables}


def as_float16(x: Tensor) -> Tensor:
    """Rounded to half of the bytes where it is of float32 or wider; counts stay."""
    return x.half() if x.dtype in (torch.float32, torch.float64) else x
