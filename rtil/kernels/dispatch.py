"""Which implementation computes the operators, and the calls into the CUDA library.

impl is one of
    auto       CUDA tensors: the kernels, or the reference after one warning where they cannot be
               built or do not pass their check (rtil.kernels.verify). CPU tensors: the reference.
    cuda       the kernels; what prevents them is an error.
    reference  plain PyTorch everywhere.
"""

from __future__ import annotations

import ctypes
import threading
import warnings
from ctypes import c_double, c_int, c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor

IMPLS = ("auto", "cuda", "reference")
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}  # cuda_common.h

_default = "auto"
_guard = threading.Lock()
_libraries: dict[int, ctypes.CDLL | RuntimeError] = {}
_warned = False


def set_impl(impl: str) -> None:
    """Sets the implementation of every call that names none (config key hardware.ops).

    Raises:
        ValueError: an unknown name.
    """
    global _default
    if impl not in IMPLS:
        raise ValueError(f"hardware.ops={impl!r} must be one of {', '.join(IMPLS)}.")
    _default = impl


def chosen(impl: str | None) -> str:
    """The implementation a call asks for: its own `impl`, or the default of set_impl."""
    return _default if impl is None else impl


def used(device: torch.device) -> str:
    """What computes the operators on a device: "cuda", or "reference" and why if by fallback.

    Note: builds and checks the kernels of a CUDA device if that has not happened yet.
    """
    if _default == "reference" or device.type != "cuda":
        return "reference"
    library = _library(torch.cuda.current_device() if device.index is None else device.index)
    return f"reference ({library})" if isinstance(library, RuntimeError) else "cuda"


def kernels_serve(impl: str | None, device_type: str, index: int, op: str) -> bool:
    """Whether the kernels compute a call of `op`; builds them if need be.

    A constant of the process, so a compiled graph holds the answer.

    Raises:
        ValueError: an unknown impl, or impl=cuda for a tensor elsewhere.
        RuntimeError: impl=cuda where the kernels cannot be built or loaded, or fail their check.
    """
    global _warned
    impl = chosen(impl)
    if impl not in IMPLS:
        raise ValueError(f"{op}: impl={impl!r} must be one of {', '.join(IMPLS)}.")
    if impl == "reference" or (impl == "auto" and device_type != "cuda"):
        return False
    if device_type != "cuda":
        raise ValueError(f"{op}: impl='cuda' needs CUDA tensors; use impl='auto'.")
    library = _library(index)
    if not isinstance(library, RuntimeError):
        return True
    if impl == "cuda":
        raise RuntimeError(f"{op}: impl='cuda', but {library}") from library
    if not _warned:
        _warned = True
        warnings.warn(
            f"rtil.kernels: using the slower PyTorch form of bias_act and upfirdn2d: {library}\n"
            "`python -m rtil.kernels.build` prints a diagnosis; "
            "hardware.ops=reference silences this.",
            stacklevel=3,
        )
    return False


# What torch.compiler.assume_constant_result sets; the decorator imports the compiler, a second.
kernels_serve._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _library(index: int) -> ctypes.CDLL | RuntimeError:
    """The loaded kernels of one GPU, or why there are none; both are kept."""
    with _guard:
        if index not in _libraries:
            # Imported late: nothing of the build is needed where no CUDA tensor is met.
            from rtil.kernels.acceptance import accepted
            from rtil.kernels.build import BuildError, arch_of, build

            try:
                path = build(arch_of(index))
                library = _declare(ctypes.CDLL(str(path)))
                accepted(path, index)
                _libraries[index] = library
            except (BuildError, OSError) as error:
                _libraries[index] = RuntimeError(str(error))
        return _libraries[index]


def use_library(index: int, path: str | Path) -> None:
    """Makes a library the kernels of one GPU, unchecked: for what checks it."""
    with _guard:
        _libraries[index] = _declare(ctypes.CDLL(str(path)))


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer = c_void_p
    dtype_device_stream: list[type] = [c_int, c_int, c_void_p]
    library.rtil_bias_act.argtypes = [
        *dtype_device_stream,
        pointer,
        pointer,
        pointer,
        pointer,
        c_int64,
        c_int64,
        c_int64,
        c_double,
        c_double,
        c_double,
    ]
    library.rtil_upfirdn2d.argtypes = [
        *dtype_device_stream,
        pointer,
        pointer,
        pointer,
        ctypes.POINTER(c_int64),
        c_double,
        c_int,
    ]
    library.rtil_error.argtypes, library.rtil_error.restype = [c_int], ctypes.c_char_p
    return library


def launch(name: str, x: Tensor, *arguments: object) -> None:
    """Calls launcher `name` for x's dtype on x's device and torch's current stream.

    Tensors among the arguments are passed by address, None as a null pointer.

    Raises:
        TypeError: a dtype without a kernel.
        RuntimeError: the kernels cannot be built, or the launch fails.
    """
    if x.dtype not in DTYPES:
        known = ", ".join(str(dtype) for dtype in DTYPES)
        raise TypeError(f"{name}: no kernel for {x.dtype} (shape {tuple(x.shape)}); has {known}.")
    index = x.device.index
    library = _library(index)
    if isinstance(library, RuntimeError):
        raise RuntimeError(f"{name}: {library}") from library
    raw = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    with torch.cuda.device(index):
        stream = torch.cuda.current_stream(index).cuda_stream
        code = getattr(library, f"rtil_{name}")(DTYPES[x.dtype], index, stream, x.data_ptr(), *raw)
    if code:
        reason = library.rtil_error(code).decode()
        raise RuntimeError(f"{name}: launch for x of shape {tuple(x.shape)} failed: {reason}.")
