"""What a command does with a file of a user, by the file's path."""

import importlib
import io
import shutil
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from rtil.data.limits import Limits
from rtil.inversion import measurement_file
from rtil.runs import archive, identity, record, rows
from rtil.runs import run as runs


def imported(path):
    command("import_checkpoint", path, "--out", f"{path}.imported", "--force")


def packed(path):
    command("prepare_data", path, f"{path}.out.zip", "--resolution", "8", "--workers", "1")


def seen(path):
    measurement_file.read_picture(Path(path), Limits())


def measured(path):
    measurement_file.load(Path(path), Limits())


def run(path):
    directory = Path(path)
    identity.read_config(directory)
    record.history(directory)
    rows.mend(directory / "results.jsonl")
    root = directory.with_name(f"{directory.name}-root")
    shutil.copytree(directory, root / "invert" / "training" / directory.name)
    _, notes = runs.inversions(root)
    if notes:
        raise ValueError("".join(notes))


def rows_packed(path):
    archive.read(Path(path))


def command(module, *words):
    """Raises RuntimeError with what a command printed where it does not end well."""
    sys.argv = [f"{module}.py", *words]
    printed = io.StringIO()
    try:
        with redirect_stderr(printed), redirect_stdout(io.StringIO()):
            importlib.import_module(module).main()
    except SystemExit as ended:
        if ended.code:
            said = ended.code if isinstance(ended.code, str) else ""
            text = printed.getvalue() + said
            # What a command logs before it fails is no part of its error.
            raise RuntimeError(text[max(0, text.rfind("error:")) :]) from None
