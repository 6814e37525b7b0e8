"""What pages show: commands compose, scripts and extras are there, every page is listed."""

import re
import shlex
from pathlib import Path

import pytest
from helpers.commands import composed
from hydra.core.override_parser.overrides_parser import OverridesParser

from rtil.__main__ import commands
from rtil.runs import overrides
from rtil.runs.setup import checked

ROOT = Path(__file__).parents[2]
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "cuda_ops" / "README.md", *SITE]
# Of shells, notebooks, and blocks that say no language; and in a sentence.
BLOCK = re.compile(
    r"^ *```(?:bash|sh|\{code-cell\} ipython3|)\n(.*?)^ *```", re.DOTALL | re.MULTILINE
)
ASSIGNMENT = re.compile(r'([A-Z][A-Z0-9]*)="([^"]*)"')
PREFIX = re.compile(r"^(?:\$ |!|[A-Z_]+=\w+ )")  # "!" of a notebook
INLINE = re.compile(r"(?<!`)`((?:python -m |rtil |bash |torchrun |pip )[^`]*)`(?!`)")
SHELLS = ("python", "rtil", "bash", "torchrun", "pip", ".venv/bin/", "pre-commit")
# What composes no configuration, and why.
OTHERS = {
    "python -m benchmarks": "times a machine for minutes to hours: tests/commands/test_bench.py",
    "python -m rtil.kernels.build": "builds for a GPU: tests/kernels/test_build.py",
    ".venv/bin/pre-commit": "of another project",
    "torchrun --": "a flag of torchrun",
    "rtil COMMAND": "names any command",
    "python -m rtil.COMMAND": "names any command",
}


def lines_of(path):
    """The commands of a page, without their comments, with the variables that it sets."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for block in BLOCK.findall(text) for line in block.splitlines()]
    lines += [" ".join(span.split()) for span in INLINE.findall(text)]
    variables = {}
    for line in lines:
        for name, value in variables.items():
            line = line.replace(f"${name}", value)
        if assigned := ASSIGNMENT.fullmatch(line.strip()):
            variables[assigned[1]] = assigned[2]
        line = PREFIX.sub("", line.strip())
        words = shlex.split(line, comments=True) if line.startswith(SHELLS) else []
        if words:
            yield line, words


COMMANDS = {
    (path, line): words
    for path in PAGES
    for line, words in lines_of(path)
    if not line.startswith(tuple(OTHERS))
}


def module_of(words):
    """(module, its arguments) of `python -m MODULE`, `rtil COMMAND` and torchrun; else None."""
    if words[0] == "rtil" and len(words) > 1 and not words[1].startswith("-"):
        return f"rtil.{words[1]}", words[2:]
    if words[0] in ("python", "torchrun") and "-m" in words:
        place = words.index("-m")
        return words[place + 1], words[place + 2 :]
    return None


def one_job(word):
    """An override as the first job of a sweep has it."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    value = next(iter(override.sweep_string_iterator()))
    return f"{override.input_line.partition('=')[0]}={value}"


def read(module, arguments):
    """Name and overrides of a command of rtil, whose words can be read."""
    name = module.removeprefix("rtil.")
    assert name in commands(), f"there is no command {name}"
    words = [word for word in arguments if "=" in word and not word.startswith("-")]
    flags = {word for word in arguments if word not in words}
    assert flags <= {"-m", "--help", "all", "--cfg", "job", "..."}, flags
    overrides.check(name, words)
    return name, [one_job(word) for word in words if not word.endswith("=NAME")]


RTIL = [key for key, words in COMMANDS.items() if (module_of(words) or [""])[0].startswith("rtil")]


def test_every_command_of_a_page_can_be_read():
    for key in RTIL:
        read(*module_of(COMMANDS[key]))


@pytest.mark.slow  # a third of a second each
@pytest.mark.parametrize("key", RTIL, ids=lambda key: f"{key[0].stem}: {key[1][:60]}")
def test_every_command_of_a_page_composes(key):
    name, words = read(*module_of(COMMANDS[key]))
    checked(composed(name, *words), name, words)


REST = sorted({line for _, line in COMMANDS.keys() - {*RTIL}})


@pytest.mark.parametrize("line", REST, ids=lambda line: line[:60])
def test_scripts_and_extras_of_a_page_are_there(line):
    for script in re.findall(r"scripts/[\w.]+", line):
        text = (ROOT / script).read_text()
        for flag in re.findall(r"(?<= )--[\w-]+", line.partition("#")[0]):
            assert flag in text, flag
    table = (ROOT / "pyproject.toml").read_text().partition("optional-dependencies]")[2]
    for names in re.findall(r"(?:rtil|\.)\[([\w,]+)\]", line):
        for name in names.split(","):
            assert f"\n{name} = [" in table, name
    assert "scripts/" in line or "install" in line or line.split("#")[0].strip() == "rtil"


def test_a_command_stands_where_it_is_read():
    """In a fence or a sentence: an indented block would be left out here."""
    for path in PAGES:
        text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert not re.findall(r"^    (?:python -m|rtil|torchrun) .*", text, re.MULTILINE), path


def test_a_command_that_is_not_composed_is_on_a_page():
    lines = [line for path in PAGES for line, _ in lines_of(path)]
    for start in OTHERS:
        assert any(line.startswith(start) for line in lines), start


def test_every_page_is_in_the_index_of_the_site():
    index = (ROOT / "docs" / "index.md").read_text()
    listed = {line.strip() for line in index.splitlines()}
    for path in SITE:
        page = path.relative_to(ROOT / "docs").with_suffix("")
        assert listed & {str(page), f"{page.parent}/*"} or page.name == "index", page
