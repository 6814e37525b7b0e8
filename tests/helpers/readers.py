"""What a command does with a file of a user, by the file's path."""

import importlib
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rtil.data.files import pack
from rtil.importers import conversion
from rtil.inversion import measurement_file
from rtil.runs import archive, identity, record, rows
from rtil.runs import run as runs


def imported(path):
    conversion.import_file(path, Path(path).with_suffix(".imported"), force=True)


def packed(path):
    pack(path, f"{path}.packed.zip", 8, workers=1, force=True)


def seen(path):
    measurement_file.read_picture(Path(path))


def measured(path):
    measurement_file.load(Path(path))


def run(path):
    directory = Path(path)
    identity.read_config(directory)
    record.history(directory)
    rows.mend(directory / "results.jsonl")
    runs.read_run(directory)


def rows_packed(path):
    archive.read(Path(path))


def command(module, *words):
    """Raises RuntimeError with what a command printed where its exit code is not 0."""
    sys.argv = [f"{module}.py", *words]
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), redirect_stdout(io.StringIO()):
            importlib.import_module(module).main()
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(printed.getvalue()) from None
