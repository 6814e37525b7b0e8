"""What a training starts from where it is not from nothing: a generator that is trained already.

`init=FILE` names an exported or imported generator, or a checkpoint, whose discriminator is taken
too. Networks are built as the command asks and get the file's weights, so its classes are never
built because it says so, and one that does not fit is refused before an image is read. Taken are
the averaged weights: they are what inversions meet, and G draws the same images at step 0.
Optimisers, schedules and penalties begin as in any training (`rtil.training.setup`,
`rtil.training.loop`).
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from rtil import checkpoint, generators
from rtil.latents.family import Family
from rtil.models.generator import Generator, StyleMixing
from rtil.objectives.objective import Objective
from rtil.process.digest import digest
from rtil.process.instantiate import instantiate
from rtil.process.rng import Draws
from rtil.process.weights import ADVICE
from rtil.runs import keys
from rtil.runs.kinds import check

GROWS = "model.generator.phase_nimg"  # what a schedule of growing is; it is over in what starts
SHOWN = 6  # differences that a message names
DRAWS = 32  # batches of a penalty; of path lengths 64 samples, whose mean is known to some 5 %


@dataclass(frozen=True)
class Initial:
    """Weights that a training starts from.

    Attributes:
        path: where they were read. name: the file as it is recorded.
        sha256: of the weights, however they were packed and wherever the file lies.
        nimg: images that they were trained with; 0 where they were imported.
        config: of that training.
        G, D: weights by name; D is None where the file holds no discriminator.
    """

    path: Path
    name: str
    sha256: str
    nimg: int
    config: Mapping
    G: Mapping[str, Tensor]
    D: Mapping[str, Tensor] | None

    @property
    def image_channels(self) -> int | None:
        """Colours of the images that it draws, where its file says so."""
        said = self.config["model"]["generator"].get("image_channels")
        return said or self.config.get("image_channels")

    def images(self) -> list[dict]:
        """What it was trained on, and what it started from itself: each as a run records it."""
        own = {key: self.config[key] for key in ("data", keys.FILES) if key in self.config}
        earlier = self.config.get("init_images") or []
        return [own, *(before for before in earlier if before != own)] if own else [*earlier]

    def facts(self) -> dict[str, object]:
        """What a run records of it."""
        parts = ["generator"] if self.D is None else ["generator", "discriminator"]
        return {
            "file": Path(self.name).name,
            "sha256": self.sha256,
            "nimg": self.nimg,
            "holds": parts,
        }

    def check(self, model: Mapping, words: Sequence[str], G: Generator, D: nn.Module) -> None:
        """Checks that networks can take these weights.

        Args:
            model: the group `model` that the networks were built from.
            words: overrides that ask for such a generator as this.
            G, D: the networks, on any device.

        Raises:
            ValueError: they differ in a setting or a shape, or the generator is still growing; in
                one line.
        """
        wrong = [*self._differing(model), *checkpoint.misfits(G, self.G)]
        advice = "Ask for it as it is"
        advice += f": {shlex.join(words)}" if words else ", or name another file."
        if not wrong and self.D is not None:
            wrong = [f"D.{text}" for text in checkpoint.misfits(D, self.D)]
            advice = "Name a generator.pt, beside which a new discriminator learns alone first."
        if wrong:
            more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            raise ValueError(
                f"train: init={self.path} does not fit what is trained: "
                f"{'; '.join(wrong[:SHOWN])}{more}. {advice}"
            )
        self._check_grown(model, G)

    def _differing(self, model: Mapping) -> list[str]:
        """Lines "key: old there, new here" for the settings of the generator."""
        there, here = (
            {"model": {"generator": m["generator"]}} for m in (self.config["model"], model)
        )
        both = keys.flatten(there).keys() & keys.flatten(here).keys()

        def counts(key: str) -> bool:
            # A table may hold more sizes than a network reads, as that of a scale does.
            is_read = key in both or not keys.SIZE.search(key)
            return is_read and not keys.is_under(key, [GROWS])

        return keys.differing_keys(there, here, counts)

    def _check_grown(self, model: Mapping, G: Generator) -> None:
        """Raises ValueError where the generator of the file is still growing."""
        # Built as it is asked for, with the file's schedule: what a file names is not built.
        phases = self.config["model"]["generator"].get("phase_nimg")
        if not phases:
            return
        grown: Generator = instantiate({**model["generator"], "phase_nimg": phases})
        grown.progress(self.nimg)
        if grown.stage != G.stage:
            raise ValueError(
                f"train: init={self.path} is still growing after {self.nimg} images: it draws "
                f"{grown.image_shape[1]} pixels a side, and its last size is not faded in. Train "
                "it to the end, or name another file."
            )

    def load(self, G: Generator, D: nn.Module) -> None:
        """Gives networks these weights. Raises ValueError where a value is not finite."""
        checkpoint.load_weights(G, self.G, self.path)
        if self.D is not None:
            checkpoint.load_weights(D, self.D, self.path)


def read(path: str | Path, with_discriminator: bool = True) -> Initial:
    """Reads what a training starts from; no code of the file is run.

    Args:
        path: generator.pt, generator.safetensors or checkpoint-*.pt; hf://user/repo, or the name
            of a generator that comes with rtil.
        with_discriminator: whether one is trained, and taken where the file holds it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, damaged or of an unknown format.
    """
    path, name = generators.locate(path, "init")
    content = checkpoint.load(path)
    # Trainings without a discriminator say so by an empty one.
    weights = {"G": content["G_ema"], "D": (with_discriminator and content.get("D")) or None}
    if weights["D"] is not None:
        check(weights["D"], checkpoint.MODULE, f"{path}: D", ADVICE)
    sha256 = digest(weights)
    return Initial(path, name, sha256, content["nimg"], content["config"], **weights)


def start_penalty(
    objective: Objective,
    family: Family,
    G: Generator,
    style_mixing: StyleMixing,
    rng: torch.Generator,
) -> None:
    """Sets what the generator's penalty remembers to what it is of a trained generator.

    Args:
        style_mixing: of the training.
        rng: seeded alike in all processes: they draw all samples, and remember the same.
    """
    lazy = objective.g_lazy
    if lazy is None or lazy.start is None:
        return
    for index, space in enumerate(family.spaces):
        drawn = (space.sample(G, lazy.batch, rng, style_mixing, turn) for turn in range(DRAWS))
        lazy.start(G, space, index, drawn, Draws(rng, lazy.batch))
