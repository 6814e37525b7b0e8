"""What `--help` prints: a screen of a command, or with `--help all` every key of it.

Choices, defaults, ranges and notes come from `rtil.runs.reference`; here is which of them are
worth a screen. A command without a page has the first of everything. No torch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rtil.process.brief import brief
from rtil.process.command import PACKAGE
from rtil.runs import reference
from rtil.runs.reference import Setting

WIDTH, LINES = 100, 50  # of a screen
FLAGS = ("--help", "-h")
ALL = "all"  # after the flag: every key
KEYS = 10
SHORTER = {"a whole number": "whole", "a number ": "", "a text": "text", "a list": "list"}
COMPOSED = Mapping[str, object]  # {key: value} of what is chosen


@dataclass(frozen=True)
class Page:
    """What is worth a screen.

    Args:
        groups: that have a line for each choice, as far as they fit; others have one in all.
        keys: that people change. examples: command lines.
    """

    groups: Sequence[str] = ()
    keys: Sequence[str] = ()
    examples: Sequence[str] = ()


PAGES: Mapping[str, Page] = {
    "train": Page(
        ("rtil", "model", "scale", "data", "hardware"),
        (
            *("total_nimg", "batch", "seed", "data.path", "rtil.family.depths"),
            *("rtil.family.sigma", "model.lr", "init", "hardware.precision", "root"),
        ),
        (
            "python -m rtil.train rtil=ilo",
            "python -m rtil.train -m rtil=vanilla,ilo seed=0,1,2",
            "python -m rtil.train data=folder data.path=PHOTOS.zip scale=faces64 rtil=ilo_mixture",
        ),
    ),
    "invert": Page(
        ("inverter", "task", "rtil", "model"),
        (
            *("ratio", "factor", "noise_std", "num_images", "seed", "inverter.steps"),
            *("selection", "generator", "input", "mask"),
        ),
        (
            "python -m rtil.invert task=cs ratio=0.05",
            "python -m rtil.invert -m rtil=vanilla,ilo task=inpainting ratio=0.1,0.25",
            "python -m rtil.invert generator=FILE input=photo.png task=inpainting mask=mask.png",
        ),
    ),
    "tune": Page(
        ("task", "inverter", "rtil", "model"),
        (
            *("trials", "num_images", "final_images", "finalists", "ratio", "factor"),
            *("noise_std", "seed", "search_seed", "generator"),
        ),
        (
            "python -m rtil.tune task=cs ratio=0.05 trials=24",
            "python -m rtil.tune -m rtil=vanilla,ilo task=cs ratio=0.05,0.1",
            "python -m rtil.tune task=sr factor=4 num_images=8 final_images=32",
        ),
    ),
    "report": Page(
        ("scale",),
        (
            *("root", "results", "out", "baseline", "columns", "gallery", "modules"),
            *("pack", "docs", "check"),
        ),
        (
            "python -m rtil.report root=runs",
            "python -m rtil.report experiment=fig6_ilo scale=demo",
            "python -m rtil.report results=results/NAME.jsonl",
        ),
    ),
    "diagnose": Page(
        ("rtil", "model", "data", "scale"),
        (
            *("generator", "num_samples", "num_images", "stage_steps", "dims", "neighbours"),
            *("bootstrap", "split", "seed", "out"),
        ),
        (
            "python -m rtil.diagnose generator=FILE",
            "python -m rtil.diagnose rtil=ilo",
            "python -m rtil.diagnose -m rtil=vanilla,ilo num_samples=200",
        ),
    ),
    "app": Page(
        ("task", "inverter"),
        (
            *("generator", "baseline", "host", "port", "inverter.steps", "noise_std", "selection"),
            *("split", "yardstick.num_train", "data.path"),
        ),
        (
            "python -m rtil.app generator=FILE",
            "python -m rtil.app generator=FILE baseline=VANILLA task=inpainting",
            "python -m rtil.app generator=FILE inverter=posterior",
        ),
    ),
    "theory": Page(
        (),
        (
            *("n0", "n1", "nd", "ratios", "noise_std", "num_train", "num_signals", "steps"),
            *("lr", "out"),
        ),
        (
            "python -m rtil.theory",
            "python -m rtil.theory noise_std=[0,0.5]",
            "python -m rtil.theory n1=10 ratios=[0.2,0.5]",
        ),
    ),
}


def asked(words: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in FLAGS for word in words)


def text(command: str, words: Collection[str], composed: COMPOSED) -> str:
    """What is printed for a command line that asks for help.

    Args:
        composed: settings under what else is typed; empty where that does not compose.
    """
    return everything(command, composed) if ALL in words else screen(command, composed)


def screen(command: str, composed: COMPOSED) -> str:
    """What a command does, its choices, the keys that people change, and examples."""
    page = PAGES.get(command, Page())
    settings = {one.key: one for one in reference.of_command(command)}
    names = page.keys or [*settings][:KEYS]
    head = [
        f"usage: python -m rtil.{command} [KEY=VALUE ...]   or: rtil {command} [KEY=VALUE ...]",
        reference.docstring_line(PACKAGE / f"{command}.py"),
    ]
    rows = [_row(settings[key], composed) for key in names if key in settings]
    tail = ["", f"Keys that people change, of {len(settings)}, each with its default:"]
    tail += _columns(rows)
    if page.examples:
        tail += ["", "Examples:", *(f"  {line}" for line in page.examples)]
    tail += [
        "",
        f"Every key with what it takes: rtil {command} --help all, or docs/reference.md.",
        "Settings as composed: --cfg job. Several values: -m KEY=A,B. Completion: the same page.",
    ]
    chosen = _groups(command, page.groups, composed, LINES - len(head) - len(tail))
    return "\n".join([*head, *chosen, *tail])


def everything(command: str, composed: COMPOSED) -> str:
    """Every choice, and every key with what it takes, its default, its file and its note."""
    lines = [f"Groups of rtil.{command}, GROUP=NAME:"]
    for group in reference.offered(command):
        for choice in reference.choices(group):
            lines.append(f"  {group}={choice}: {reference.line_of(group, choice)}")
    lines += ["", f"Keys of rtil.{command}:"]
    for one in reference.of_command(command):
        default = brief(composed[one.key]) if one.key in composed else one.default
        lines.append(f"  {one.key}={default}")
        lines.append(f"      takes {one.takes}; {one.source}")
        if one.note:
            lines.append(f"      {one.note}")
    return "\n".join(lines)


def _groups(command: str, first: Sequence[str], composed: COMPOSED, room: int) -> list[str]:
    """Lines of a command's groups: a line for each choice, of as many groups as there is room."""
    defaults = reference.offered(command)
    if not defaults:
        return []
    names = [*first, *(group for group in defaults if group not in first)]
    names = [group for group in names if group in defaults]
    room -= 2 + len(names)
    lines = ["", "Choices, GROUP=NAME; * marks the default:"]
    for group in names:
        choices = reference.choices(group)
        default = composed.get(f"{group}.name", defaults[group])
        if group in first and len(choices) - 1 <= room:
            room -= len(choices) - 1
            lines += _expanded(group, choices, str(default))
        else:
            known = ", ".join(f"{name}*" if name == default else name for name in choices)
            lines.append(_cut(f"  {group:10} {known}"))
    return lines


def _expanded(group: str, choices: Sequence[str], default: str) -> Iterator[str]:
    width = max(map(len, choices)) + 1
    for i, name in enumerate(choices):
        marked = f"{name}*" if name == default else name
        line = f"  {'' if i else group:10} {marked:{width}}  {reference.line_of(group, name)}"
        yield _cut(line)


def _row(one: Setting, composed: COMPOSED) -> tuple[str, str, str]:
    """Key, default, and what it takes with its note."""
    same = len({*one.defaults.values()}) == 1
    default = one.default if same else "-"  # of choices that are not made
    if one.key in composed:
        default = brief(composed[one.key])
    takes = one.takes
    for words, short in SHORTER.items():
        takes = takes.replace(words, short)
    # Of the choice that is made, where what the key means depends on it.
    choice = composed.get(f"{one.key.partition('.')[0]}.name")
    note = one.notes.get(str(choice), one.note)
    return one.key, default, f"{takes}: {note}" if note else takes


def _columns(rows: Sequence[tuple[str, str, str]]) -> list[str]:
    if not rows:
        return []
    first, second = (max(len(row[i]) for row in rows) for i in range(2))
    return [_cut(f"  {key:{first}}  {value:{second}}  {note}") for key, value, note in rows]


def _cut(line: str) -> str:
    """A line of the screen's width at most, its columns left as they are."""
    if len(line) <= WIDTH:
        return line
    start = line[: WIDTH - 4]
    return f"{start[: start.rindex(' ')].rstrip(' ,;:')} ..."
