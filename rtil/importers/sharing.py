"""A generator to give away: generator.safetensors, and a card beside it that says what it is.

Where it lay on the machine that trained it stays there: absolute paths are cut to their names.
The file is read like any other (`rtil.checkpoint`). What the card says is in the file's record
alone, so that a card can be made of a file again; its text is card.md.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rtil import checkpoint
from rtil.importers.conversion import refuse_existing
from rtil.metrics.image import psnr, to_unit
from rtil.metrics.intervals import Mean
from rtil.models.generator import Generator
from rtil.process.digest import digest
from rtil.process.files import write_text
from rtil.process.instantiate import TRUSTED, allow
from rtil.process.rng import seeded
from rtil.process.tensor_file import SUFFIX, as_float16
from rtil.process.weights import ADVICE
from rtil.runs import keys, record, schema
from rtil.runs.identity import read_config
from rtil.runs.kinds import ListOf, check

CARD = Path(__file__).with_name("card.md")
TAG = "\n- rtil\n"  # in the head of every card
DTYPES = ("float32", "float16")
DRAWN = 32  # images that the check compares
MOST_DB = 200.0  # what equal images count as in a mean
HISTORY = ListOf(schema.COMMAND)
ABSOLUTE = re.compile(r"(?<![\w.:/])~?/[^\s,\]'\"]+")  # a path within a text; none of an address


@dataclass(frozen=True)
class Form:
    """How a generator is written.

    Attributes:
        dtype: of DTYPES. discriminator: whether it is written too, for init=FILE.
        modules: classes outside rtil, "package.Class", that the file may name because you do.
    """

    dtype: str = "float32"
    discriminator: bool = False
    modules: Sequence[str] = ()


PLAIN = Form()


def share_file(
    source: str | Path, out: str | Path, form: Form = PLAIN, force: bool = False
) -> list[str]:
    """Writes a generator as safetensors with its card, once what was written draws its images.

    Args:
        source: generator.pt, checkpoint-*.pt or a .safetensors of rtil.
        out: the file to write, NAME.safetensors. The card is README.md beside a
            generator.safetensors, as hubs show it, and NAME.md beside any other.
        force: replaces existing files.

    Returns:
        The report, by lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: out exists; what stands in a card's place is none; no discriminator where one
            is asked for; weights that have no float16; the check failed. What was at out stays.
    """
    source, out = Path(source), Path(out)
    if out.suffix != SUFFIX:
        raise ValueError(f"export: --out {out} must end in {SUFFIX}.")
    card = card_of(out)
    for path in (out, card):
        refuse_existing(path, force)
    if card.exists() and TAG not in card.read_text(encoding="utf-8", errors="replace"):
        raise ValueError(f"export: {card} is no card of rtil. Name --out in another folder.")
    allow(form.modules)
    G, config, _ = checkpoint.load_trained(source)
    check(config, schema.TRAINING, str(source), ADVICE)
    shared = shared_content(checkpoint.load(source), source, form)
    with tempfile.TemporaryDirectory() as folder:
        trial = Path(folder) / out.name
        checkpoint.save(shared, trial)
        effect = check_images(G, checkpoint.load_trained(trial)[0], form.dtype)
        text, size = card_text(trial, G, effect), trial.stat().st_size
    checkpoint.save(shared, out)
    write_text(card, text)
    facts = f"{', '.join(tables_of(shared))} as {precision_of(shared)}, {size:,} bytes"
    return [
        f"wrote {out}: {facts}",
        f"wrote {card}: fill in the licence",
        f"check: {effect}",
    ]


def card_of(out: Path) -> Path:
    """Where the card of a file stands."""
    return out.with_name("README.md" if out.stem == "generator" else f"{out.stem}.md")


def shared_content(content: Mapping[str, Any], source: Path, form: Form) -> dict[str, Any]:
    """What is written, of what was read.

    Raises:
        ValueError: it has no discriminator, or weights that float16 cannot hold.
    """
    names = ["G_ema", "D"] if form.discriminator else ["G_ema"]
    if form.discriminator and "D" not in content:
        raise ValueError(
            f"export: {source} holds no discriminator. Name a checkpoint-*.pt of the training, or "
            "leave --discriminator out."
        )
    tables: dict[str, dict[str, Tensor]] = {}
    for name in names:
        check(content[name], checkpoint.MODULE, f"{source}: {name}", ADVICE)
        tables[name] = dict(content[name])
    if form.dtype == "float16":
        tables = {name: _halved(table, source) for name, table in tables.items()}
    plain = {
        "format": checkpoint.EXPORT,
        "config": content["config"],
        "nimg": content["nimg"],
        **{key: content[key] for key in ("step", "origin") if key in content},
        "commands": content["commands"] if "commands" in content else _commands(content, source),
    }
    return {**portable(plain), **tables}


def _halved(table: Mapping[str, Tensor], source: Path) -> dict[str, Tensor]:
    """A table in float16. Raises ValueError where a value is beyond it."""
    halved = {name: as_float16(x) for name, x in table.items()}
    for name, x in halved.items():
        if not bool(x.isfinite().all()):
            raise ValueError(
                f"export: {source}: {name} has values beyond 65504, which float16 has not. "
                "Leave --dtype out."
            )
    return halved


def _commands(content: Mapping[str, Any], source: Path) -> list[dict]:
    """The commands behind a file that lies in the directory of its training, oldest first."""
    folder = source.parent
    if not (folder / "config.yaml").exists():
        return []
    same = keys.matters("train")
    if keys.differing_keys(read_config(folder), content["config"], same):
        return []  # the file was copied to another training's directory
    entries = reversed(record.history(folder))
    return [{key: entry.get(key) for key in ("command", "commit")} for entry in entries]


def portable(value: Any) -> Any:
    """Plain values, of which absolute paths are cut to their last names."""
    if isinstance(value, Mapping):
        return {key: portable(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [portable(entry) for entry in value]
    if not isinstance(value, str):
        return value
    key, sign, path = value.partition("=") if "=" in value else ("", "", value)
    if os.path.isabs(path):  # all of it, spaces too
        return f"{key}{sign}{_name_of(path)}"
    return ABSOLUTE.sub(lambda match: _name_of(match[0]), value)


def _name_of(path: str) -> str:
    return os.path.basename(path.rstrip("/"))


@torch.no_grad()
def check_images(G: Generator, written: Generator, dtype: str) -> str:
    """What writing changed in images of the same latents, as a sentence.

    Raises:
        ValueError: float32 changed anything.
    """
    z0 = torch.randn(DRAWN, G.z_dim, generator=seeded("cpu", 0, "export"))
    scores, furthest = [], 0.0
    for z in z0.split(1):  # one by one: large images take much memory
        image, other = (to_unit(network(z).clamp(-1, 1)).double() for network in (G, written))
        scores.append(psnr(other, image).clamp_max(MOST_DB).item())
        furthest = max(furthest, float((other - image).abs().max()))
    if furthest == 0:
        return f"images of {DRAWN} latents are those of the file that it was made of, bit for bit."
    if dtype == "float32":
        raise ValueError(
            "export: self check failed: what was written draws other images. Nothing was written."
        )
    return (
        f"beside float32, images of {DRAWN} latents have {Mean.of(scores).text('.1f')} dB PSNR "
        f"(mean with its 95 % interval; the worst {min(scores):.1f} dB), and no pixel differs by "
        f"more than {255 * furthest:.2f} of 255 levels."
    )


def tables_of(content: Mapping[str, Any]) -> list[str]:
    """What a file holds, in words."""
    return ["generator", *(["discriminator"] if "D" in content else [])]


def precision_of(content: Mapping[str, Any]) -> str:
    """Of DTYPES: what the generator's weights are stored in."""
    halved = any(x.dtype is torch.float16 for x in content["G_ema"].values())
    return "float16" if halved else "float32"


def card_text(file: Path, G: Generator, effect: str) -> str:
    """The card of a file that rtil wrote.

    Args:
        G: its generator. effect: what `check_images` says of it.
    """
    from jinja2 import Environment

    content = checkpoint.load(file)
    check(content.get("commands", []), HISTORY, f"{file}: commands", ADVICE)
    config, channels = content["config"], G.image_shape[0]
    commands = [
        {"text": _typed(entry["command"]), "commit": entry.get("commit")}
        for entry in content.get("commands", [])
    ]
    target = (config["model"].get("module") or {}).get("_target_", "")
    own = target if target and not target.startswith(TRUSTED) else ""
    environment = Environment(keep_trailing_newline=True)
    return environment.from_string(CARD.read_text(encoding="utf-8")).render(
        name=file.stem if file.stem != "generator" else f"{config['rtil']['name']} generator",
        file=file.name,
        network=type(G).__name__,
        parameters=sum(p.numel() for p in G.parameters()),
        side=G.image_shape[1],
        channels=channels,
        z_dim=G.z_dim,
        config=config,
        nimg=content["nimg"],
        origin=content.get("origin"),
        tables=tables_of(content),
        precision=precision_of(content),
        digest=digest(content),
        effect=f"Written and read again, {effect}",
        commands=commands,
        modules_argument=f', modules=["{own}"]' if own else "",
        modules_word=f" 'modules=[{own}]'" if own else "",
    )


def _typed(command: Sequence[str]) -> str:
    """A command as it is typed again."""
    program, *words = command
    own = ["python", "-m", "rtil.train"] if program == "train.py" else [program]
    return shlex.join([*own, *words])
