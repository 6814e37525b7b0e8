"""What every foreign layout is made of: its size, its table of entries and its own arithmetic.

A layout is one module with a function `find(content) -> Foreign | None`. Its table maps names and
orientations to ours in both directions; its `images` draws from the foreign tensors without the
table, so that the two can be checked against each other. To add one, write such a module and
list it in rtil.importers.conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rtil.models.generator import Generator
from rtil.models.pggan import PGGANGenerator
from rtil.models.stylegan2 import StyleGAN2Generator
from rtil.process.brief import brief
from rtil.runs.kinds import WIDTH

MAX_NAMED = 12  # entries that a message lists


class Rule(NamedTuple):
    """How an entry's tensor changes on its way to us and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


SAME = Rule(lambda t: t, lambda t: t)
LEADING = Rule(lambda t: t[0], lambda t: t[None])  # (1, ...) and (...)
ONE = Rule(lambda t: t.reshape(()), lambda t: t.reshape(1))  # (1,) and ()
COLOUR = Rule(lambda t: t.flatten(), lambda t: t.reshape(1, -1, 1, 1))
FLIP = Rule(lambda t: t.flip(2, 3), lambda t: t.flip(2, 3))
TURN = Rule(
    lambda t: t.transpose(0, 1).flip(2, 3),  # (in, out, k, k), flipped
    lambda t: t.transpose(0, 1).flip(2, 3),
)
HWIO = Rule(lambda t: t.permute(3, 2, 0, 1), lambda t: t.permute(2, 3, 1, 0))
HWIO_FLIP = Rule(
    lambda t: t.permute(3, 2, 0, 1).flip(2, 3), lambda t: t.flip(2, 3).permute(2, 3, 1, 0)
)
BIAS = Rule(lambda t: t + 1.0, lambda t: t - 1.0)  # style bias without its one


class Entry(NamedTuple):
    """One tensor: its name there, its name in our state dict, and what happens to it."""

    theirs: str
    ours: str
    rule: Rule = SAME


@dataclass(frozen=True)
class Spec:
    """A generator's size, and its form where that is not the default.

    model: stylegan2 or pggan. channels: {size: width}. num_mapping, mapping_lr: StyleGAN2 only.
    form: what PGGANGenerator gets beside sizes; empty for the published form.
    """

    model: str
    channels: dict[int, int]
    image_channels: int
    z_dim: int
    num_mapping: int = 0
    mapping_lr: float = 0.01
    form: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        return max(self.channels)

    def network(self) -> Generator:
        """Our network of this size, without memory (device meta)."""
        sizes = (self.resolution, self.channels, self.image_channels, self.z_dim)
        with torch.device("meta"):
            if self.model == "pggan":
                return PGGANGenerator(*sizes, **self.form)
            return StyleGAN2Generator(*sizes, self.num_mapping, self.mapping_lr)


@dataclass(frozen=True)
class Foreign:
    """A generator as found in a file.

    Attributes:
        layout: whose layout it is.
        part: where in the file it was.
        spec: its size.
        state: its tensors under their names there.
        entries: the table to ours.
        images: z (z_dim,) in float64 to its images (1, C, H, W), the last at full resolution and
            those before it of earlier growing stages; written from the layout's definition.
        ignored: names that are read but not converted (filters, averages).
        notes: what the report adds.
        guesses: what the file does not say and is taken so: with another choice the images are
            others, and the check cannot tell, as both of its sides share the guess.
    """

    layout: str
    part: str
    spec: Spec
    state: dict[str, Tensor]
    entries: list[Entry]
    images: Callable[[Tensor], list[Tensor]]
    ignored: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    guesses: tuple[str, ...] = ()

    def weights(self) -> dict[str, Tensor]:
        """Our state dict, float32.

        Raises:
            ValueError: entries that are missing, unknown, misshapen or not finite, by name.
        """
        shapes = expected(self.spec, self.entries)
        known = shapes.keys() | self.ignored
        wrong = [
            f"{name} {shape} is missing"
            for name, shape in shapes.items()
            if name not in self.state
        ]
        wrong += [
            f"{brief(name)} {tuple(value.shape)} has no counterpart in rtil"
            for name, value in self.state.items()
            if name not in known
        ]
        for name in shapes.keys() & self.state.keys():
            found = tuple(self.state[name].shape)
            if found != shapes[name]:
                wrong.append(f"{name} has shape {found}; {shapes[name]} fits")
            elif not bool(self.state[name].isfinite().all()):
                wrong.append(f"{name} holds values that are not finite")
        refuse(self.layout, sorted(wrong))
        return {
            e.ours: e.rule.to_ours(self.state[e.theirs].float()).contiguous() for e in self.entries
        }


def expected(spec: Spec, entries: Iterable[Entry]) -> dict[str, tuple[int, ...]]:
    """The shape of every entry of the table, in the foreign layout."""
    ours = spec.network().state_dict()
    return {e.theirs: tuple(e.rule.to_theirs(ours[e.ours]).shape) for e in entries}


def refuse(layout: str, differences: list[str]) -> None:
    """Raises ValueError naming what differs, if anything does."""
    if differences:
        raise misfit(layout, differences)


def misfit(layout: str, differences: list[str]) -> ValueError:
    """The error that names what differs."""
    shown = differences[:MAX_NAMED]
    if len(differences) > len(shown):
        shown.append(f"and {len(differences) - len(shown)} more")
    return ValueError(
        f"a generator in the layout of {layout} that rtil cannot hold:\n  "
        + "\n  ".join(shown)
        + "\nNothing was written: it would draw other images here than there."
    )


def tensors(content: object) -> dict[str, Tensor] | None:
    """content as a state dict without DataParallel's prefix; None if it is no state dict."""
    if not isinstance(content, Mapping) or not content:
        return None
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items()):
        return None
    state = dict(content)
    if all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def generator_state(content: object) -> tuple[str, dict[str, Tensor]] | None:
    """The averaged generator's tensors, or the generator's where there is no average.

    Returns:
        (name of the part, state dict), or None where the content holds neither.
    """
    if isinstance(content, Mapping):
        nested = content.get("models", content)
        for part in ("g_ema", "generator_smooth", "g", "generator"):
            state = tensors(nested.get(part)) if isinstance(nested, Mapping) else None
            if state:
                return part, state
    state = tensors(content)
    return ("the file itself", state) if state else None


def width(layout: str, state: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of an axis of an entry that sizes are read from.

    Raises:
        ValueError: the entry is missing, has too few axes, or is no width of a network.
    """
    value = state.get(name)
    if value is None:
        raise misfit(layout, [f"{name} is missing"])
    if value.ndim <= axis:
        raise misfit(layout, [f"{name} has shape {tuple(value.shape)}; too few axes"])
    if fault := WIDTH.fault(value.shape[axis], f"axis {axis} of {name}"):
        raise misfit(layout, [str(fault)])
    return value.shape[axis]


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the largest number that follows the prefix in the names; 0 without any.

    It is no more than there are entries: of a larger number those before it are missing.
    """
    tails = [name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)]
    numbers = [int(tail[:9]) + 1 for tail in tails if tail.isdecimal()]
    return min(max(numbers, default=0), len(state))


def sizes(blocks: int) -> list[int]:
    """4, 8, ..., one for each block."""
    return [4 * 2**i for i in range(blocks)]


def other_filters(state: Mapping[str, Tensor], ending: str, gain: float = 1.0) -> list[str]:
    """Lines on the filters among the entries that are not [1, 3, 3, 1] times the gain."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    fir = gain * taps[:, None] * taps
    wrong = []
    for name, value in state.items():
        if name.endswith(ending):
            square = value.squeeze().float()
            if square.shape != fir.shape or not torch.allclose(square, fir, atol=1e-5):
                found = brief(square.flatten()[:5].tolist())
                wrong.append(f"{brief(name)}: resampling filter {found}; rtil has [1, 3, 3, 1]")
    return wrong


def multiplier(lr: float) -> str:
    """The guess of a mapping network's learning-rate multiplier, which scales its weights."""
    return f"mapping multiplier {lr:g}"


def mapping_note(weights: Iterable[Tensor], lr: float) -> tuple[str, ...]:
    """A warning where the mapping's weights do not look like N(0, 1) divided by lr."""
    rms = torch.stack([w.double().square().mean() for w in weights]).mean().sqrt().item()
    if 0.2 < rms * lr < 5.0:
        return ()
    return (
        f"WARNING: weights of the mapping have rms {rms:.3g}, where a learning-rate multiplier "
        f"of {lr} leads one to expect about {1 / lr:.3g}. The file does not hold the multiplier; "
        "with another one the images are others.",
    )
