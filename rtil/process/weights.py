"""Reading files of weights, whoever wrote them: no code runs, and no memory is taken in excess.

Sizes, names and shapes are compared with the file before anything of it is built, copied or
printed. rtil's own files hold a digest of their contents (`rtil.process.digest`), which is checked
here; a file without one, of version 0.1 or of another project, is checked by the CRCs of the zip
that it is. A file is one of torch.save, or of safetensors where its name ends so
(`rtil.process.tensor_file`). What the contents mean is said in `rtil.checkpoint`.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from rtil.process import tensor_file
from rtil.process.bounds import ZIP_DAMAGE, check_regular, check_size
from rtil.process.brief import brief
from rtil.process.digest import digest

DIGEST = "sha256"  # key of the digest in a file
ADVICE = "Copy it again, or choose another."
SHARED = 8  # times that tensors may show what a file holds: networks and their averages share
# Of what torch's own reader calls, these alone are given storages that the file holds.
TENSORS = ("_rebuild_tensor", "_rebuild_tensor_v2")
PUTS, GETS = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
CALLS = ("REDUCE", "NEWOBJ", "BUILD")
PARAMETERS = ("_rebuild_parameter", "_rebuild_parameter_with_state")


class DamagedFile(ValueError):
    """A file whose contents are not what was written; an older one may serve instead."""


def read(path: str | Path, advice: str = "") -> object:
    """Reads what torch.save or safetensors wrote, onto the CPU, without running code of the file.

    Args:
        advice: a sentence on what to do with a file of another project.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no regular file, unreadable, truncated, changed since it was written, larger
            once unpacked than it is, or naming code; the message holds what it names.
    """
    path = Path(path)
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no checkpoint at {path}.")
    size = check_regular(path)
    if path.suffix == tensor_file.SUFFIX:
        return _read_safetensors(path, size)
    _check_zip(path)
    try:
        _check_names(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises whatever the bytes lead it to
        # torch's own text is left out: it advises to load the file without protection.
        named = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it is truncated, no checkpoint, or would run code. {ADVICE}"
        if named:
            why = f"it asks for {brief(named[1])}, which would run code; nothing of it was loaded."
        text = f"{path} cannot be read as a checkpoint ({type(error).__name__}): {why} {advice}"
        raise DamagedFile(text.rstrip()) from error
    check_size(content, str(path), ADVICE)
    check_tensors(content, path, size)
    _check_digest(content, path)
    return content


def _read_safetensors(path: Path, size: int) -> object:
    """Raises DamagedFile where a file of safetensors is not what was written."""
    try:
        content = tensor_file.unpack(path, size)
    except tensor_file.Unreadable as error:
        raise DamagedFile(f"{path} cannot be read as safetensors: {error}. {ADVICE}") from error
    _check_digest(content, path)
    return content


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip that a file is; what its damage makes the reader raise within is a `DamagedFile`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (DamagedFile, PermissionError):
        raise
    except ZIP_DAMAGE as error:
        text = f"{path} is damaged: its zip cannot be read ({brief(str(error))}). {ADVICE}"
        raise DamagedFile(text) from error


def _check_zip(path: Path) -> None:
    """Checks sizes before anything is allocated; torch writes its records uncompressed.

    Raises:
        DamagedFile: a record that unpacks to more than the file holds.
    """
    if not zipfile.is_zipfile(path):
        return  # of torch before 1.6, whose reader allocates what the file holds
    with _opened(path) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > entry.compress_size:
                raise DamagedFile(
                    f"{path}: record {brief(entry.filename)} unpacks to {entry.file_size} bytes "
                    f"from {entry.compress_size}; no weights are stored so. {ADVICE}"
                )


def _check_names(path: Path) -> None:
    """Raises ValueError as `check_calls` does, of the pickles of a file."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            check_legacy(file)
        return
    with _opened(path) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        pickles = [archive.read(name) for name in names]
    for content in pickles:
        check_calls(io.BytesIO(content))


def check_legacy(file: IO[bytes]) -> None:
    """`check_calls` of a file of torch before 1.6."""
    for _ in range(4):  # a magic number, a version, facts of the system, the content
        check_calls(file)


def check_calls(file: IO[bytes]) -> None:
    """Checks what a pickle asks torch to call: some of what it allows takes memory by a number.

    The type of a storage is named where one of the file is, and is never called.

    Raises:
        ValueError: a call that no weights need, named as torch names one that it refuses.
    """
    storages: set[int] = set()  # their numbers in the pickle's memo
    name, named = "", ""
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            name = str(argument).replace(" ", ".")
            last = name.rpartition(".")[2]
            rebuilds = last.startswith("_rebuild") and last not in (*TENSORS, *PARAMETERS)
            if rebuilds or last == "bytearray" or last.endswith("Tensor"):
                raise ValueError(f"GLOBAL {name}")
            named = name if last.endswith("Storage") else named
        elif operation.name in PUTS and name.endswith("Storage"):
            storages.add(int(argument or 0))
        elif operation.name in GETS and argument in storages:
            named = "torch.Storage"
        elif operation.name == "BINPERSID":
            named = ""
        elif operation.name in CALLS and named:
            raise ValueError(f"GLOBAL {named}")
        if operation.name != "GLOBAL":
            name = ""


def check_tensors(content: object, path: Path, size: int) -> None:
    """Checks that tensors are dense, on the CPU, and show no more than a file of this size holds.

    Raises:
        ValueError: they are something else, which copying them would turn into memory.
    """
    shown = 0
    for x in tensors_of(content):
        dense = x.layout is torch.strided and x.device.type == "cpu" and not x.is_quantized
        if not dense:
            raise ValueError(
                f"{path} holds a tensor of layout {x.layout} on {x.device}; weights are dense and "
                f"on the CPU. {ADVICE}"
            )
        width = math.prod(x.shape) * x.element_size()
        if width > x.untyped_storage().nbytes():
            raise ValueError(
                f"{path}: a tensor {brief([*x.shape])} shows more elements than it stores. "
                f"{ADVICE}"
            )
        shown += width
    if shown > SHARED * size:
        raise ValueError(
            f"{path} has {size} bytes and its tensors show {shown}, the same elements many times. "
            f"{ADVICE}"
        )


def tensors_of(content: object) -> Iterator[Tensor]:
    """The tensors in content of a checked size."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, (Mapping, list, tuple)):
        for entry in content.values() if isinstance(content, Mapping) else content:
            yield from tensors_of(entry)


def _check_digest(content: object, path: Path) -> None:
    """Raises ValueError where the contents are not those that were written."""
    if isinstance(content, dict) and DIGEST in content:
        rest = {key: value for key, value in content.items() if key != DIGEST}
        damaged = digest(rest) != content.pop(DIGEST)
    elif path.suffix != tensor_file.SUFFIX and zipfile.is_zipfile(
        path
    ):  # torch itself does not look at them
        with _opened(path) as archive:
            damaged = archive.testzip() is not None
    else:
        damaged = False
    if damaged:
        raise DamagedFile(
            f"{path} is damaged: its contents are not those that were written. {ADVICE}"
        )
