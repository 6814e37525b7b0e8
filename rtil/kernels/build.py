"""Builds the kernels of cuda_ops/ on first use: for GPUs with nvcc, for CPUs with a C++ compiler.

Lives here: where a build is kept, who may write it, and what is said when it fails. Loading and
launching live in rtil.kernels.dispatch. A build is one shared library in its own directory, named
after all that determines it; processes take turns by a file lock, which the system releases when
its holder dies, and a finished directory appears by renaming, so it is whole or absent.

`python -m rtil.kernels.build --arch sm_75 sm_90` builds ahead of time and prints a diagnosis.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

PACKAGE = Path(__file__).resolve().parent.parent
# In the package of a wheel, beside it in the sources.
SOURCES = PACKAGE / "cuda_ops"
if not SOURCES.is_dir():
    SOURCES = PACKAGE.parent / "cuda_ops"
UNITS = ("bias_act", "upfirdn2d")
CPU_UNIT = "cpu_ops"
LIBRARY = "librtil_ops.so"
TOOLKIT = "https://developer.nvidia.com/cuda-downloads"
NO_COMPILER = (
    "no C++ compiler: CXX={!r} and g++ are not on PATH; install g++ (Debian, Ubuntu: apt install "
    "g++; conda: conda install gxx) or set CXX."
)
NO_NINJA = "ninja is not on PATH; install it with `pip install ninja`."


class BuildError(RuntimeError):
    """The kernels cannot be built; the message says what is missing and what to install."""


class Tools(NamedTuple):
    """Programs of a build, and the release of nvcc, e.g. "13.0"."""

    nvcc: str
    compiler: str
    ninja: str
    release: str


def cache() -> Path:
    """Directory of all builds: RTIL_CACHE, or rtil under XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("RTIL_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rtil"


def find_nvcc() -> str | None:
    """Path of nvcc: under CUDA_HOME or CUDA_PATH, on PATH, or where its installer puts it."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    places = [str(Path(home) / "bin" / "nvcc") for home in homes if home]
    for place in (*places, "nvcc", "/usr/local/cuda/bin/nvcc"):
        if found := shutil.which(place):
            return found
    return None


def find_compiler() -> str | None:
    """Path of the C++ compiler: CXX, g++ or c++."""
    return shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")


def find_ninja() -> str | None:
    """Path of ninja: on PATH, or the one of the pip package of that name."""
    if found := shutil.which("ninja"):
        return found
    return shutil.which(str(Path(sys.executable).parent / "ninja"))


def find_tools(archs: tuple[str, ...]) -> Tools:
    """Finds all programs of a build and checks that they fit torch and the architectures.

    Raises:
        BuildError: one is missing, or nvcc does not fit.
    """
    cuda = torch.version.cuda
    if cuda is None:
        raise BuildError(
            f"torch {torch.__version__} is built without CUDA; install a CUDA build of torch from "
            "https://pytorch.org/get-started."
        )
    nvcc, compiler, ninja = find_nvcc(), find_compiler(), find_ninja()
    if nvcc is None:
        raise BuildError(
            "nvcc is neither under CUDA_HOME nor on PATH nor in /usr/local/cuda/bin; install the "
            f"CUDA toolkit {cuda.split('.')[0]}.x ({TOOLKIT}) or set CUDA_HOME to it."
        )
    if compiler is None:
        raise BuildError(NO_COMPILER.format(os.environ.get("CXX")))
    if ninja is None:
        raise BuildError(NO_NINJA)
    text = _run([nvcc, "--version"])
    match = re.search(r"release (\d+)\.(\d+)", text)
    if match is None:
        raise BuildError(f"{nvcc} --version does not name its release: {text.strip()[:200]!r}.")
    # A driver runs programs of its own major release and older; torch's release is what it has.
    if int(match[1]) > int(cuda.split(".")[0]):
        raise BuildError(
            f"{nvcc} is CUDA {match[1]}.{match[2]} but torch {torch.__version__} is built for "
            f"CUDA {cuda}, so the driver may not run what it compiles; install the toolkit "
            f"{cuda.split('.')[0]}.x ({TOOLKIT}) and set CUDA_HOME to it, or a newer torch."
        )
    known = _run([nvcc, "--list-gpu-code"]).split()
    for arch in archs:
        if arch not in known:
            raise BuildError(
                f"{nvcc} (CUDA {match[1]}.{match[2]}) does not compile for {arch}, only for "
                f"{', '.join(known)}; install a toolkit that does ({TOOLKIT}) and set CUDA_HOME."
            )
    return Tools(nvcc, compiler, ninja, f"{match[1]}.{match[2]}")


def digest(suffixes: tuple[str, ...] = (".cu", ".h")) -> str:
    """Sixteen hexadecimal digits of the contents of the sources with these suffixes."""
    if not SOURCES.is_dir():
        raise BuildError(f"the kernel sources are not beside {PACKAGE}; reinstall rtil.")
    h = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in suffixes:
            h.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return h.hexdigest()[:16]


def build(arch: str) -> Path:
    """Returns the library for one GPU architecture, building it if no earlier build fits.

    Where nvcc is absent an earlier build of the same sources by any nvcc is taken, so a machine
    without a toolkit can use what another one built.

    Args:
        arch: for instance "sm_90".

    Raises:
        BuildError: it cannot be built; the message says why and what to install.
    """
    name = f"ops-{digest()}-torch{torch.__version__}-{platform.machine()}-{arch}"
    if find_nvcc() is None:
        done = sorted(cache().glob(f"{name}-nvcc*/{LIBRARY}"))
        if done:
            return done[-1]
    tools = find_tools((arch,))
    return _built(f"{name}-nvcc{tools.release}", tools.ninja, lambda: _ninja_file(tools, arch))


def build_cpu() -> Path:
    """Returns the library of the CPU's kernels, building it if no earlier build fits.

    It is compiled for the very processor it is built on, so that is part of its key.

    Raises:
        BuildError: it cannot be built; the message says why and what to install.
    """
    if platform.system() != "Linux":
        raise BuildError("the kernels are built on Linux only; use impl=reference.")
    compiler, ninja = find_compiler(), find_ninja()
    if compiler is None:
        raise BuildError(NO_COMPILER.format(os.environ.get("CXX")))
    if ninja is None:
        raise BuildError(NO_NINJA)
    version = _run([compiler, "-dumpfullversion", "-dumpversion"]).strip()
    key = hashlib.sha256(f"{compiler} {version} {_processor()}".encode()).hexdigest()[:12]
    name = f"ops-{digest(('.cpp',))}-cpu-{platform.machine()}-{key}"
    quoted = f"'{compiler}'".replace("$", "$$")
    # OpenMP's functions are torch's own: a second runtime's threads would compete with them.
    text = f"""rule build
  command = {quoted} -O3 -march=native -std=c++17 -fopenmp -fPIC -fvisibility=hidden -c $in -o $
      {CPU_UNIT}.o && {quoted} -shared {CPU_UNIT}.o -o $out
build {LIBRARY}: build {_escaped(SOURCES / f"{CPU_UNIT}.cpp")}
"""
    return _built(name, ninja, lambda: text)


def _processor() -> str:
    """What the compiler's -march=native depends on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _built(name: str, ninja: str, text: Callable[[], str]) -> Path:
    """The library of the build called `name`, made by ninja from `text` if it is not there."""
    root = cache()
    home = root / name
    if not (home / LIBRARY).exists():
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _lock(root / f"{home.name}.lock"):
                if not (home / LIBRARY).exists():
                    _build_into(home, ninja, text())
        except OSError as error:
            raise BuildError(
                f"cannot write the build under {root}: {error}; set RTIL_CACHE to a directory "
                "that can be written."
            ) from error
    return home / LIBRARY


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file; the system drops it when the process ends in any way."""
    try:
        import fcntl
    except ImportError as error:
        raise BuildError("the kernels are built on Linux only; use impl=reference.") from error
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build_into(home: Path, ninja: str, text: str) -> None:
    """Compiles into a temporary directory beside `home` and renames it; needs the lock."""
    # What carries this name was left by a builder that was killed: the lock is ours.
    for stale in home.parent.glob(f"{home.name}.tmp*"):
        shutil.rmtree(stale, ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"{home.name}.tmp", dir=home.parent))
    try:
        (place / "build.ninja").write_text(text)
        _run([ninja, "-C", str(place)])
        # For whoever shares the cache: mkdtemp lets only its owner in.
        place.chmod(0o755)
        place.rename(home)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _ninja_file(tools: Tools, arch: str) -> str:
    """The build as ninja reads it: one object per .cu file, one library."""
    code = arch.removeprefix("sm_")
    quoted = [f"'{part}'" for part in (tools.nvcc, tools.compiler)]
    nvcc, compiler = (part.replace("$", "$$") for part in quoted)
    lines = [
        f"flags = -O3 -std=c++17 -lineinfo -gencode arch=compute_{code},code={arch} "
        f"-ccbin {compiler} -Xcompiler -fPIC,-fvisibility=hidden",
        f"rule compile\n  command = {nvcc} $flags -c $in -o $out",
        f"rule link\n  command = {nvcc} $flags -shared $in -o $out",
    ]
    for unit in UNITS:
        lines.append(f"build {unit}.o: compile {_escaped(SOURCES / f'{unit}.cu')}")
    lines.append(f"build {LIBRARY}: link {' '.join(f'{unit}.o' for unit in UNITS)}")
    return "\n".join(lines) + "\n"


def _escaped(path: str | Path) -> str:
    """A path as ninja reads it."""
    return re.sub(r"([$ :])", r"$\1", str(path))


def _run(command: list[str]) -> str:
    """Output of a program, which must succeed."""
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]} does not run: {error}.") from error
    if result.returncode:
        output = (result.stdout + result.stderr).strip()[-2000:]
        raise BuildError(f"`{' '.join(command)}` failed ({result.returncode}):\n{output}")
    return result.stdout


def diagnosis() -> list[str]:
    """Lines that say what a build would meet here, for a bug report."""
    version = [f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"]
    lines = [*version, f"torch {torch.__version__}, CUDA build {torch.version.cuda}"]
    nvcc = find_nvcc()
    lines.append(f"nvcc: {nvcc or 'missing'}")
    if nvcc:
        with contextlib.suppress(BuildError):
            lines[-1] += f" ({_run([nvcc, '--version']).strip().splitlines()[-1]})"
    lines.append(f"C++ compiler: {find_compiler() or 'missing'}")
    lines.append(f"ninja: {find_ninja() or 'missing'}")
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            lines.append(f"GPU {i}: {torch.cuda.get_device_name(i)}, {arch_of(i)}")
    else:
        lines.append("GPU: none that torch sees")
    return [*lines, f"cache: {cache()}", f"sources: {SOURCES} ({digest()})"]


def arch_of(device: int) -> str:
    """Architecture of a GPU as nvcc names it, for instance "sm_90"."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def main(argv: list[str] | None = None) -> int:
    """Builds for the given architectures, or the GPUs here; prints what it found and did."""
    parser = argparse.ArgumentParser(description="Build rtil's CUDA kernels ahead of time.")
    parser.add_argument("--arch", nargs="+", metavar="sm_XY", help="default: the GPUs here")
    archs = parser.parse_args(argv).arch
    if archs is None:
        archs = sorted({arch_of(i) for i in range(torch.cuda.device_count())})
    print("\n".join(diagnosis()))
    failed = 0
    for target in ("CPU", *archs):
        try:
            print(f"{target}: {build_cpu() if target == 'CPU' else build(target)}")
        except BuildError as error:
            failed = 1
            print(f"{target}: FAILED: {error}")
    if not archs:
        print("no GPU here; name architectures with --arch to build for others: --arch sm_90")
    return failed


if __name__ == "__main__":
    sys.exit(main())
