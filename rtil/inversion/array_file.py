"""Arrays in a .npz, as `numpy.savez` writes it, read within limits and without running code.

`numpy.load` allocates what an array's header claims before it looks for as many bytes. Here the
sizes of the zip's directory are checked first, then that a header claims what there is. What the
arrays mean is in `rtil.inversion.measurement_file`.
"""

from __future__ import annotations

import io
from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from rtil.data.limits import Limits
from rtil.data.zip_file import entries, read_entry

ENDING = ".npy"  # of an array's entry
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


class Arrays(NamedTuple):
    """The arrays that were asked for and are there; the names of all."""

    found: dict[str, np.ndarray]
    names: list[str]


def read_arrays(path: Path, wanted: Collection[str], limits: Limits) -> Arrays:
    """Reads some arrays of a .npz.

    Raises:
        OSError, ValueError: unreadable, too large, damaged, or Python objects instead of numbers.
    """
    by_name = {name.removesuffix(ENDING): entry for name, entry in entries(path).items()}
    found = {}
    for name in wanted:
        if name in by_name:
            found[name] = _array(name, read_entry(path, by_name[name], limits))
    return Arrays(found, list(by_name))


def _array(name: str, data: bytes) -> np.ndarray:
    """The array in an entry of that name. Raises ValueError."""
    stream = io.BytesIO(data)
    try:
        shape, in_columns, dtype = HEADERS[npy.read_magic(stream)](stream)
    # A header is a Python literal, whose parser raises whatever it meets.
    except Exception as error:
        raise ValueError(f"{name} is no array of numpy.savez") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which only allow_pickle=True would load")
    claimed, held = dtype.itemsize * prod(shape), len(data) - stream.tell()
    if min(shape, default=0) < 0 or claimed != held:
        amount = "more" if claimed > held else "fewer"
        raise ValueError(f"{name} claims {amount} than the {held} bytes that it holds")
    flat = np.frombuffer(data, dtype, prod(shape), stream.tell()).copy()
    return flat.reshape(shape, order="F" if in_columns else "C")
