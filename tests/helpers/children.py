"""Commands in processes that begin with everything imported, and that may be killed on the way."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# Imported once, by the process that all others are forked from.
PRELOADED = (
    "rtil.train",
    "rtil.invert",
    "rtil.tune",
    "rtil.report",
    "rtil.importers.conversion",
    "rtil.diagnosis.render",
    "matplotlib.pyplot",
    "scipy.stats",
    "torch.utils.tensorboard",
    "torchvision.utils",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
PATIENCE = 120.0  # seconds until a command counts as hanging
LIMIT = 12.0  # seconds until an attempt does


class Command(NamedTuple):
    """A module with a `main`, and its arguments."""

    module: str
    words: tuple[str, ...]


class Ended(NamedTuple):
    """How a command ended: exit code, or minus the signal's number; what it printed; operations.

    peak_mb: by how much its memory rose above that of the process it was forked from.
    """

    code: int | None
    text: str
    operations: int
    seconds: float
    peak_mb: float


class Try(NamedTuple):
    """A call "module:function" with texts, and the name that its error must hold."""

    function: str
    words: tuple[str, ...]
    named: str


class Outcome(NamedTuple):
    """How a `Try` ended: its error's type and text, or None; seconds; memory that it took."""

    kind: str
    error: str | None
    seconds: float
    peak_mb: float


class Nursery:
    """Runs commands one at a time in a folder, each in a process of its own.

    Args:
        folder: of the logs; commands run in its subfolder `work`.
    """

    def __init__(self, folder: Path) -> None:
        self.work, self._log, self._count = folder / "work", folder / "log", folder / "count"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self.clear()

    def clear(self) -> None:
        """Empties the folder that commands run in."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)

    def run(
        self, command: Command, kill_at: int | None = None, kill_after: float | None = None
    ) -> Ended:
        """Runs a command to its end.

        Args:
            kill_at: kills it where it is about to begin its file operation of this number, from 0.
            kill_after: kills it after so many seconds.
        """
        arguments = (command, self.work, self._log, self._count, kill_at)
        self._count.unlink(missing_ok=True)
        process = self._context.Process(target=_child, args=arguments)
        begin = time.perf_counter()
        process.start()
        process.join(PATIENCE if kill_after is None else kill_after)
        hangs = process.exitcode is None
        if hangs:
            process.kill()
            process.join()
        seconds = time.perf_counter() - begin
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        counted = self._count.read_text().split() if self._count.exists() else ["0", "0"]
        code = None if hangs and kill_after is None else process.exitcode
        return Ended(code, text, int(counted[0]), seconds, float(counted[1]))

    def attempt(self, tries: Sequence[Try]) -> list[Outcome]:
        """The outcome of each; one that hangs or ends its process costs a process and no more."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(tries):
            left = tries[len(outcomes) :]
            self._count.unlink(missing_ok=True)
            process = self._context.Process(
                target=_attempt, args=(left, self.work, self._log, self._count)
            )
            process.start()
            number = self._follow(process)
            outcomes += [Outcome(*json.loads(line)) for line in self._lines()]
            if number < len(left):
                kind = "hangs" if process.exitcode == -signal.SIGKILL else "ends the process"
                outcomes.append(Outcome(kind, kind, LIMIT, 0.0))
        return outcomes

    def _follow(self, process) -> int:
        """Waits for a process that writes a line now and then, or kills it; counts its lines."""
        number, last = 0, time.monotonic()
        while process.exitcode is None:
            process.join(0.02)
            if len(self._lines()) > number:
                number, last = len(self._lines()), time.monotonic()
            if time.monotonic() > last + LIMIT:
                process.kill()
                process.join()
        return len(self._lines())

    def _lines(self) -> list[str]:
        text = self._count.read_text() if self._count.exists() else ""
        return text.split("\n")[:-1]


def _attempt(tries: Sequence[Try], work: Path, log: Path, results: Path) -> None:
    """The process of several attempts."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(work)
    for tried in tries:
        module, _, name = tried.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
        before, begin = _resident_mb(), time.perf_counter()
        kind, error = "", None
        try:
            function(*tried.words)
        except BaseException as raised:
            kind, error = type(raised).__name__, str(raised)
        seconds = time.perf_counter() - begin
        line = json.dumps(Outcome(kind, error, seconds, max(0.0, _peak_mb() - before)))
        with open(results, "a") as file:
            file.write(f"{line}\n")


def _child(command: Command, work: Path, log: Path, count: Path, kill_at: int | None) -> None:
    """The process of a command."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(work)
    before = _resident_mb()
    operations = _counted(work, kill_at)
    sys.argv = [f"{command.module}.py", *command.words]
    code: object = 0
    try:
        importlib.import_module(command.module).main()
    except SystemExit as ended:
        code = ended.code or 0
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    peak = max(0.0, _peak_mb() - before)
    sys.stdout.flush()
    sys.stderr.flush()
    count.write_text(f"{operations()} {peak}")
    sys.exit(code)


def _counted(work: Path, kill_at: int | None):
    """Counts what changes files below a folder, and kills this process before one of them."""
    number = 0
    below = f"{work}{os.sep}"

    def note(path: object) -> None:
        nonlocal number
        if not isinstance(path, (str, bytes, os.PathLike)):
            return
        if not os.path.abspath(os.fsdecode(path)).startswith(below):
            return
        if number == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1

    def hook(event: str, arguments: tuple) -> None:
        if (event == "open" and arguments[2] & WRITING) or event in CHANGES:
            note(arguments[0])

    fsync = os.fsync

    def counted_fsync(file: int) -> None:  # the one operation that Python tells no hook of
        note(os.readlink(f"/proc/self/fd/{file}"))
        fsync(file)

    os.fsync = counted_fsync
    sys.addaudithook(hook)
    return lambda: number


def _resident_mb() -> float:
    return (
        int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    )


def _peak_mb() -> float:
    """Most memory that this process had at a time; a fork begins with that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
