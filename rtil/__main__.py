"""`rtil COMMAND ...` is `python -m rtil.COMMAND ...`; `rtil` alone lists the commands.

A command is a module of this folder that has a `main`. To add one, write that module; it is found
here, and listed with the first line of its docstring. No torch: the list appears at once.
"""

from __future__ import annotations

import ast
import difflib
import runpy
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
COMPLETION = "--shell-completion"  # prints what bash takes


def commands() -> dict[str, str]:
    """Name and first docstring line of every command, without importing it."""
    lines = {}
    for path in sorted(FOLDER.glob("[!_]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        names = [node.name for node in module.body if isinstance(node, ast.FunctionDef)]
        if "main" in names:
            docstring = ast.get_docstring(module) or ""
            lines[path.stem] = docstring.partition("\n")[0]
    return lines


def main() -> None:
    """Runs the command named first on the command line, with the rest as its arguments."""
    lines = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        width = max(map(len, lines))
        print("usage: rtil COMMAND [KEY=VALUE ...]\n")
        for command, line in lines.items():
            print(f"  {command:{width}}  {line}")
        print("\n`rtil COMMAND --help` prints what it does, its choices, keys and examples.")
        return
    if name == COMPLETION:
        script = (FOLDER / "completion.bash").read_text(encoding="utf-8")
        print(script.replace("COMMANDS", " ".join(lines)), end="")
        return
    if name not in lines:
        nearest = difflib.get_close_matches(name, lines, n=1, cutoff=0.0)[0]
        print(
            f"error: rtil has no command {name!r}; did you mean `rtil {nearest}`? "
            f"It has {', '.join(lines)}.",
            file=sys.stderr,
        )
        sys.exit(1)
    del sys.argv[1]
    # As `python -m` does it: Hydra takes the job's name, and provenance the command, from there.
    runpy.run_module(f"rtil.{name}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
