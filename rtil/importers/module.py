"""Weights of a module of the user's, as a generator.pt that model=wrapped made.

The module is named by the user, its weights are found in the file by their names and shapes, and
its blocks are compared with it once they are loaded. Where in the file they lie need not be said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from rtil import checkpoint
from rtil.importers.conversion import UNSAID, build, refuse_existing
from rtil.importers.setup import Choices, module_configuration
from rtil.models.wrapped import Wrapped
from rtil.process.brief import brief
from rtil.process.instantiate import TRUSTED, instantiate
from rtil.process.weights import read

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
        source: a file of torch.save or safetensors with a state dict in it; no code is run.
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
    part, state, left = find_weights(declared.module, content, source)
    weights = {f"module.{name}": value for name, value in state.items()}
    G = build(weights, config)
    assert isinstance(G, Wrapped), "model=wrapped builds one"
    G.verify()
    guesses = choices.guessed(complete)
    lines = describe(source, part, G)
    lines += [f"note: {left} other entries beside them were not read"] if left else []
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
) -> tuple[str, dict[str, Tensor], int]:
    """Where in a file a module's weights lie, and these under the module's own names.

    Entries may stand below a name of their own, as those of a decoder do in an autoencoder.

    Returns:
        The place, the weights, and how many entries beside them are left.

    Raises:
        ValueError: the module's entries lie nowhere in the file, or in several places.
    """
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    places = {
        f"{part}, {prefix}*" if prefix else part: (table, prefix)
        for part, table in _tables(content)
        for prefix in _prefixes(table, shapes)
    }
    if not places:
        raise ValueError(
            f"{source} holds no weights of {type(module).__name__}; it holds {brief(content)}."
        )
    below = {
        place: {
            name.removeprefix(prefix): x for name, x in table.items() if name.startswith(prefix)
        }
        for place, (table, prefix) in places.items()
    }
    fitting = {
        place: {name: table[name] for name in shapes}
        for place, table in below.items()
        if shapes.items() <= {name: x.shape for name, x in table.items()}.items()
    }
    averaged = [place for place in fitting if AVERAGED in place.lower()]
    chosen = averaged if len(averaged) == 1 else [*fitting]
    if len(chosen) > 1:
        raise ValueError(
            f"{source} holds weights of {type(module).__name__} {len(chosen)} times, in "
            f"{brief(chosen)}; save those that you mean in a file of their own."
        )
    if not chosen:
        # The place that shares most names is the one that was meant.
        near = max(below, key=lambda place: len(below[place].keys() & shapes.keys()))
        checkpoint.check_fits(module, below[near], f"{source}, {near}")
    (place,) = chosen
    return place, fitting[place], len(places[place][0]) - len(shapes)


def _prefixes(table: Mapping[str, Tensor], names: Iterable[str]) -> list[str]:
    """What may stand before a module's names in a table: before the first of those that it has."""
    for own in names:
        ends = [name for name in table if name == own or name.endswith(f".{own}")]
        if ends:
            return [name.removesuffix(own) for name in ends]
    return []


def _tables(content: object, place: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """(place, {name: tensor}) of the tables of tensors in a file."""
    if not isinstance(content, Mapping) or depth > DEPTH:
        return
    tensors = {str(name): x for name, x in content.items() if isinstance(x, Tensor)}
    if tensors:
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
