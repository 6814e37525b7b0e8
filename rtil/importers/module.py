"""Weights of a module of the user's, as a generator.pt that model=wrapped made.

The module is named by the user, its weights are found in the file by their names and shapes, and
its blocks are compared with it once they are loaded. Where in the file they lie need not be said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from rtil import checkpoint
from rtil.importers.conversion import UNSAID, build, refuse_existing
from rtil.importers.setup import Choices, module_configuration
from rtil.models.wrapped import Wrapped
from rtil.process.brief import brief
from rtil.process.instantiate import TRUSTED, instantiate
from rtil.process.weights import read

PARALLEL = "module."  # what nn.DataParallel puts before names
AVERAGED = "ema"  # in the name of averaged weights, which draw the better images
DEPTH = 3  # of tables in a file


def import_module(
    source: str | Path,
    out: str | Path | None,
    words: Sequence[str],
    choices: Choices = UNSAID,
    force: bool = False,
) -> list[str]:
    """Writes the weights of a module as generator.pt, once its blocks draw what it draws.

    Args:
        source: a file of torch.save with a state dict in it; no code of it is run.
        out: the file to write; None only reports.
        words: overrides that name the module and its cuts, as in training with model=wrapped.
        choices: how it was trained; `Choices.complete` fills in what is not said.
        force: replaces an existing file.

    Returns:
        The report, by lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: out exists; the module cannot be built or cut; the file is damaged, would run
            code, or holds no weights of the module. What was at out stays.
    """
    if out is not None:
        refuse_existing(out, force)
    source = Path(source)
    content = read(source)
    config, complete = module_configuration(source.stem, words, choices)
    declared: Wrapped = instantiate(config["model"]["generator"])
    part, state = find_weights(declared.module, content, source)
    weights = {f"module.{name}": value for name, value in state.items()}
    G = build(weights, config)
    assert isinstance(G, Wrapped), "model=wrapped builds one"
    G.verify()
    guesses = choices.guessed(complete)
    lines = describe(source, part, G)
    lines += [f"guessed: {guess} (the file does not say)" for guess in guesses]
    lines.append(f"taken as: rtil={complete.rtil} scale={complete.scale} data={complete.data}")
    if out is None:
        return lines
    origin = {
        "file": source.name,
        "layout": "module",
        "part": part,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "guessed": guesses,
    }
    counters = {"nimg": 0, "step": 0, "origin": origin}
    checkpoint.save(
        {"format": checkpoint.EXPORT, "G_ema": weights, "config": config, **counters}, Path(out)
    )
    target = config["model"]["module"]["_target_"]
    named = "" if target.startswith(TRUSTED) else f" modules=[{target}]"
    return [
        *lines,
        f"wrote {out}; next:",
        f"  python -m rtil.invert generator={out}{named} data=... task=cs ratio=0.1",
    ]


def find_weights(
    module: nn.Module, content: object, source: Path
) -> tuple[str, dict[str, Tensor]]:
    """Where in a file a module's weights lie, and these under the module's own names.

    Raises:
        ValueError: no table of the file has its entries, or several have.
    """
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    tables = dict(_tables(content))
    if not tables:
        raise ValueError(f"{source} holds no table of tensors; it holds {brief(content)}.")
    fitting = {
        part: table
        for part, table in tables.items()
        if {name: value.shape for name, value in table.items()} == shapes
    }
    averaged = [part for part in fitting if AVERAGED in part.lower()]
    parts = averaged if len(averaged) == 1 else [*fitting]
    if len(parts) > 1:
        raise ValueError(
            f"{source} holds weights of {type(module).__name__} {len(parts)} times, in "
            f"{brief(parts)}; save the one that you mean in a file of its own."
        )
    if not parts:
        # The table that shares most names is the one that was meant.
        part = max(tables, key=lambda part: len(tables[part].keys() & shapes.keys()))
        checkpoint.check_fits(module, tables[part], f"{source}, {part}")
    return parts[0], fitting[parts[0]]


def _tables(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """(place, {name: tensor}) of the tables of tensors in a file."""
    if not isinstance(content, Mapping) or depth > DEPTH:
        return
    tensors = {str(name): x for name, x in content.items() if isinstance(x, Tensor)}
    if tensors:
        if all(name.startswith(PARALLEL) for name in tensors):
            tensors = {name.removeprefix(PARALLEL): x for name, x in tensors.items()}
        yield place or "the whole file", tensors
    for name, value in content.items():
        yield from _tables(value, f"{place}.{name}" if place else str(name), depth + 1)


def describe(source: Path, part: str, G: Wrapped) -> list[str]:
    """What was found, by lines."""
    channels, side, _ = G.image_shape
    count = sum(p.numel() for p in G.parameters())
    blocks = [f"{name}: {shape}" for name, shape in zip(G.stages.names, G.shapes.values())]
    return [
        f"{source}: weights of {type(G.module).__name__} ({part})",
        f"size: {side}x{side} pixels, {channels} colour channels, z0 of {G.z_dim}, {count} "
        "parameters",
        f"blocks end at {'; '.join(blocks)}",
        "check: blocks draw what the module draws, from every cut",
    ]
