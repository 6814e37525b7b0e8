"""Every setting of every command as its yaml writes it: default, comment, file, and what it takes.

Nothing is listed here: a command's groups are those of its defaults list, a choice's line is the
first sentence of its yaml, a setting's note is the comment beside it. `rtil.runs.help` makes a
screen of it, the view `settings` of documents a page (`python -m rtil.report docs=.`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import yaml

from rtil.process.command import CONFIGS, PACKAGE
from rtil.runs import keys
from rtil.runs.kinds import ANYTHING

ROOT = Path(CONFIGS)
SHARED = "base"  # what every command includes
GLOBAL = "# @package _global_"  # a group's file whose keys stand at the top
SENTENCE = re.compile(r"(?<!App)(?<![ .])\. (?=[A-Z])")
TARGET = re.compile(r"^\s*_target_:\s*(\S+)", re.MULTILINE)
NO_SETTINGS = ("defaults", "hydra")  # at the top of a file
ASIDE = 10  # column from which on a comment is about the value before it
COMMENT = re.compile(r"(?:^|\s)#\s?(.*)")


@dataclass(frozen=True)
class Setting:
    """One key of one file, or of all files of a group.

    Args:
        takes: the values that it may have.
        defaults, notes: as each choice of the group that has it writes them; {"": text} where
            there is no choice.
        source: the file, or "configs/GROUP/{A,B}.yaml" of several.
    """

    key: str
    takes: str
    defaults: Mapping[str, str]
    notes: Mapping[str, str]
    source: str

    @property
    def default(self) -> str:
        """Of all choices; those that share one stand together."""
        return _together(self.defaults)

    @property
    def note(self) -> str:
        """What the files say of it, as `default`."""
        return _together(self.notes)


def _together(texts: Mapping[str, str]) -> str:
    """As "A, B: text; C: other", or the text where all choices share it."""
    names: dict[str, list[str]] = {}
    for choice, text in texts.items():
        names.setdefault(text, []).append(choice)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(shared)}: {text}" for text, shared in names.items() if text)


@cache
def commands() -> tuple[str, ...]:
    """Those that are composed of configs/COMMAND.yaml."""
    return tuple(sorted(path.stem for path in ROOT.glob("*.yaml") if path.stem != SHARED))


@cache
def groups(command: str) -> Mapping[str, str]:
    """{group: default choice} that a command reads and a user chooses of, in its yaml's order."""
    chosen: dict[str, str] = {}
    for entry in _defaults(ROOT / f"{command}.yaml"):
        if isinstance(entry, str):
            chosen |= groups(entry) if entry != "_self_" else {}
            continue
        for name, choice in entry.items():
            group = name.removeprefix("override ")
            # Another group's choice decides optional ones; Hydra's own begin with "/".
            if not group.startswith(("optional ", "/")):
                chosen[group] = "null" if choice is None else str(choice)
    return chosen


@cache
def offered(command: str) -> Mapping[str, str]:
    """Of `groups` those that a user chooses: others are decided in the command's own file."""
    decided = {
        name.removeprefix("override ")
        for entry in _defaults(ROOT / f"{command}.yaml")
        if isinstance(entry, Mapping)
        for name in entry
        if name.startswith("override ")
    }
    return {group: name for group, name in groups(command).items() if group not in decided}


def is_group(key: str) -> bool:
    """Whether a key chooses one of a folder of yamls."""
    return (ROOT / key).is_dir()


@cache
def choices(group: str) -> tuple[str, ...]:
    """Names of a group's files."""
    return tuple(sorted(path.stem for path in (ROOT / group).glob("*.yaml")))


@cache
def line_of(group: str, choice: str) -> str:
    """What a choice is: its yaml's first sentence, or that of the module of what it builds."""
    text = (ROOT / group / f"{choice}.yaml").read_text(encoding="utf-8")
    said = header(text)
    if not said and (match := TARGET.search(text)):
        said = module_line(match[1])
    return SENTENCE.split(said)[0].rstrip(".")


def header(text: str) -> str:
    """The comment that a file begins with, in one line."""
    words = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            words.append(line.lstrip("# "))
    return " ".join(words)


def module_line(target: str) -> str:
    """First line of the docstring of the module of "rtil.module.Class", which is not imported."""
    path = PACKAGE.parent / Path(*target.split(".")[:-1]).with_suffix(".py")
    return docstring_line(path) if path.is_file() else ""


def docstring_line(path: Path) -> str:
    """First line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


@cache
def of_file(command: str) -> tuple[Setting, ...]:
    """Settings of a command's own file, or of "base"."""
    own = _written(ROOT / f"{command}.yaml", "").values()
    return tuple(replace(one, takes=_takes(one.key, command)) for one in own)


@cache
def of_group(group: str) -> tuple[Setting, ...]:
    """Settings of a group, each with its default in every choice that has it."""
    found: dict[str, list[tuple[str, Setting]]] = {}
    for choice in choices(group):
        path = ROOT / group / f"{choice}.yaml"
        for key, one in _written(path, _package(path, group)).items():
            found.setdefault(key, []).append((choice, one))
    merged = []
    for key, entries in found.items():
        defaults = {choice: one.default for choice, one in entries}
        notes = {choice: one.note for choice, one in entries}
        file = entries[0][0] if len(entries) == 1 else "*"
        source = f"configs/{group}/{file}.yaml"
        merged.append(Setting(key, _takes(key), defaults, notes, source))
    return tuple(merged)


def of_command(command: str) -> tuple[Setting, ...]:
    """Every setting of a command: its own file's, those of files that it includes, its groups'."""
    found: dict[str, Setting] = {}
    for group in groups(command):
        if keys.kind(group) is not ANYTHING:  # plans of experiments set others' settings
            found |= {one.key: one for one in of_group(group)}
    for file in lineage(command):
        found |= {one.key: one for one in of_file(file)}
    return tuple(found.values())


def lineage(command: str) -> Iterator[str]:
    """Files at the top of configs/ that a command is composed of; its own is the last."""
    for entry in _defaults(ROOT / f"{command}.yaml"):
        if isinstance(entry, str) and entry != "_self_":
            yield from lineage(entry)
    yield command


@cache
def _defaults(path: Path) -> Sequence[str | Mapping[str, str | None]]:
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("defaults", ())


def _package(path: Path, group: str) -> str:
    is_global = path.read_text(encoding="utf-8").startswith(GLOBAL)
    return "" if is_global else f"{group.replace('/', '.')}."


@cache
def _written(path: Path, prefix: str) -> Mapping[str, Setting]:
    """{key: setting} of a file and of those beside it that it includes."""
    found: dict[str, Setting] = {}
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), path
    if path.parent != ROOT:
        for entry in _defaults(path):
            if isinstance(entry, str) and entry != "_self_":
                found |= _written(path.parent / f"{entry.partition('@')[0]}.yaml", prefix)
    source = f"configs/{path.relative_to(ROOT).as_posix()}"
    for key, default, note in _leaves(root, prefix, text):
        before = found.get(key)
        said = note or (before.note if before else "")
        found[key] = Setting(key, "", {"": default}, {"": said}, source)
    return found


def _leaves(node: yaml.MappingNode, prefix: str, text: str) -> Iterator[tuple[str, str, str]]:
    """(key, default, note) of all that is no table; a table {size: width} is a value."""
    for name, value in node.value:
        key = f"{prefix}{name.value}"
        if name.value in NO_SETTINGS and node.start_mark.column == 0:
            continue
        if name.value == "<<":
            yield from _leaves(value, prefix, text)
            continue
        is_table = isinstance(value, yaml.MappingNode) and bool(value.value)
        sizes = is_table and all(inner.value.isdigit() for inner, _ in value.value)
        if is_table and not sizes and keys.row(key).kind is not ANYTHING:
            yield from _leaves(value, f"{key}.", text)
            continue
        in_line = isinstance(value, yaml.ScalarNode) or bool(value.flow_style)
        source = text[value.start_mark.index : value.end_mark.index]
        mark = value.end_mark if in_line else name.end_mark
        yield key, " ".join(source.split()) if in_line else "...", _note(text, name, mark)


def _note(text: str, name: yaml.Node, mark: yaml.Mark) -> str:
    """The comment after a value and the lines that go on with it, or that above its key."""
    lines = text.splitlines()
    match = COMMENT.search(lines[mark.line], mark.column)
    if match:
        words = [match[1]]
        for line in lines[mark.line + 1 :]:
            if line[:ASIDE].strip() or not line.strip().startswith("#"):
                break
            words.append(line.strip(" #"))
        return " ".join(words)
    indent = " " * name.start_mark.column + "#"
    above: list[str] = []
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    for i in range(name.start_mark.line - 1, first, -1):
        if not lines[i].startswith(indent):
            break
        above.insert(0, lines[i].strip(" #"))
    return " ".join(above)


def _takes(key: str, command: str = "") -> str:
    kind = keys.kind(key, command)
    return str(kind) if kind else "anything"
