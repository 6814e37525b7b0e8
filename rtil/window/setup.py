"""What the window works with: generators, held-out images, and settings of each click.

A click is composed as a command line is: what was typed, then what the controls say. So it has
the defaults of its task, and its errors are those of the commands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from omegaconf import DictConfig
from torch import Tensor

from rtil.data.base import ImageData
from rtil.data.limits import Limits
from rtil.data.load import image_order, load_data
from rtil.inversion.batch import Part
from rtil.inversion.loop import Method
from rtil.inversion.problem import Measuring
from rtil.inversion.setup import (
    Trained,
    check_settings,
    load_generator,
    measuring_of,
    recovery_of,
    resolved,
    with_trained,
)
from rtil.inversion.yardstick import TrainingImages
from rtil.inverters import build_inverter
from rtil.inverters.inverter import FittedInverter
from rtil.inverters.lmmse import LMMSE
from rtil.latents.family import Family
from rtil.models.generator import Generator
from rtil.models.unit_range import UnitRange
from rtil.operators import knobs_of
from rtil.operators.task import NOISE, takes
from rtil.process.device import Hardware, Runtime, start
from rtil.process.instantiate import instantiate
from rtil.runs import keys, overrides, reference
from rtil.runs.setup import checked, composed, configuration
from rtil.runs.truth import looks_at_truth

STEPS = "inverter.steps"
COMPOSING = Lock()  # Hydra composes for one thread at a time
# What is chosen in the window, or belongs to results on disk, which it has none of.
NOT_TYPED = (
    *("input", "mask", "fit", "keep_observed", "output", "run_dir", "pictures", "num_images"),
    *("save_measurements", "save_draws", "metrics", "operator", "protocol", "tuned", "experiment"),
)


@dataclass(frozen=True)
class Arm:
    """A generator that is shown: G on its device, its family, and what it is called."""

    label: str
    trained: Trained
    G: Generator
    family: Family


@dataclass(frozen=True)
class Controls:
    """What the controls of a click say; value is the knob's, steps () are the inverter's own."""

    task: str
    value: float
    noise_std: float
    seed: int
    steps: Sequence[int] = ()


@dataclass(frozen=True)
class Ready:
    """An inversion of one arm, before its measurement: see `rtil.inversion.loop`.

    steps: of each stage, where the inverter has several.
    """

    method: Method
    measuring: Measuring
    part: Part
    steps: Sequence[int]


@dataclass(frozen=True)
class Measure:
    """A task's knob, its value where none is chosen, and whether a mask takes its place."""

    knob: str
    value: float
    masks: bool


@dataclass
class Bench:
    """Everything that clicks share.

    Args:
        typed: words of the command line. config: resolved, with what the generator brings along.
        data: held-out images; None, with the reason in `no_data`. order: of their numbers.
    """

    typed: Sequence[str]
    config: dict
    rt: Runtime
    arms: Sequence[Arm]
    data: ImageData | None
    no_data: str
    order: Sequence[int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images."""
        return self.arms[0].G.image_shape

    @property
    def limits(self) -> Limits:
        """Of what is dropped."""
        return Limits.of(self.config["data"])

    @cached_property
    def training(self) -> Tensor:
        """The generator's training images, read when they are needed first.

        Raises:
            FileNotFoundError, ValueError: they are not here.
        """
        count = self.config["yardstick"]["num_train"]
        trained = self.arms[0].trained.config
        return TrainingImages(trained, self.config["data"], self.shape, count).load()

    @cached_property
    def linear(self) -> LMMSE:
        """The linear estimate of these images. Raises as `training` does."""
        return LMMSE().fit(self.training)

    def words(self, controls: Controls) -> list[str]:
        """The command line of a click."""
        task = self.config["task"]
        knob = measure_of(controls.task).knob
        set_here = {"task", "seed", NOISE, *knobs_of(self.config)}
        set_here |= {STEPS} if controls.steps else set()
        kept = []
        for word in self.typed:
            key = overrides.key_of(word)
            other = key.startswith("task.") and task["name"] != controls.task
            if key not in set_here and not other:
                kept.append(word)
        said = {knob: controls.value, "seed": controls.seed}
        if knob != NOISE:
            said[NOISE] = controls.noise_std
        kept.append(f"task={controls.task}")
        kept += [f"{key}={keys.canonical(value)}" for key, value in said.items()]
        if controls.steps:
            one, *more = controls.steps
            kept.append(f"{STEPS}={[one, *more] if more else one}".replace(" ", ""))
        return kept

    def ready(self, arm: Arm, controls: Controls, mask: Tensor | None) -> Ready:
        """The inversion of a click by an arm.

        Raises:
            ValueError, FileNotFoundError: settings that do not fit, each named.
        """
        words = self.words(controls)
        with COMPOSING:
            cfg = checked(configuration("app", words), "app", words)
        check_settings(cfg, "app")
        recovery = recovery_of(cfg)
        cfg.generator = arm.trained.name
        config = resolved(with_trained(cfg, words, arm.trained.config))
        inverter = build_inverter(config["inverter"], arm.family)
        inverter.check(arm.G)
        measuring = measuring_of(config)
        part = measuring.part(self.shape, mask)
        inverter.check_operator(part.A)
        recovery.check(inverter, part.A)
        if isinstance(inverter, FittedInverter):
            inverter = inverter.fit(self.training)
        steps = config["inverter"].get("steps")
        unit_range = config["target_range"] == "unit"
        G = UnitRange(arm.G) if unit_range else arm.G
        method = Method(G, unit_range, inverter, None, recovery, controls.seed, 1)
        part = recovery.split(part, measuring.loss).to(self.rt.device)
        return Ready(method, measuring, part, steps if isinstance(steps, list) else ())


def measure_of(task: str) -> Measure:
    """What the page says of a task. Raises ValueError where there is none of this name."""
    if task not in reference.choices("task"):
        raise ValueError(f"app: task={task} is none of configs/task.")
    with COMPOSING:
        flat, _ = composed("app", (f"task={task}",))
    knob = str(flat["task.knob"])
    masks = takes({"_target_": flat["task._target_"]}, "mask")
    return Measure(knob, float(str(flat[knob])), masks)


def prepare(cfg: DictConfig, typed: Sequence[str]) -> Bench:
    """Checks the settings and loads the generators.

    Args:
        cfg: composed from app.yaml; left as it is.
        typed: "key=value" texts given by the user.

    Raises:
        ValueError, FileNotFoundError: bad settings or generators, or two that do not match.
    """
    for key in overrides.typed(typed):
        if keys.is_under(key, NOT_TYPED):
            raise ValueError(f"app: {key} has no effect on a window; remove it.")
    cfg = checked(cfg, "app", typed)
    check_settings(cfg, "app")
    if looks_at_truth(cfg.selection):
        raise ValueError(f"app: selection={cfg.selection} picks by the true image; use best.")
    recovery_of(cfg)
    rt = start(Hardware(**cfg.hardware))
    cfg, arm = _arm(cfg, typed, rt)
    arms = [arm]
    if cfg.baseline:
        other = cfg.copy()
        other.generator = cfg.baseline
        # Its own family, whatever was typed of the other's.
        words = [word for word in typed if not keys.is_under(overrides.key_of(word), ["rtil"])]
        arms.append(_arm(other, words, rt)[1])
        if arms[1].G.image_shape != arm.G.image_shape:
            raise ValueError(
                f"app: baseline={cfg.baseline} draws images {arms[1].G.image_shape} and "
                f"generator={arm.trained.name} {arm.G.image_shape} (channels, height, width)."
            )
    config = resolved(cfg)
    data, why = None, ""
    try:
        channels, size, _ = arm.G.image_shape
        data = load_data(config["data"], size, config["split"], channels)
    except (FileNotFoundError, ValueError) as error:
        why = str(error)
    order = image_order(len(data), config["image_seed"]) if data else []
    return Bench([*typed], config, rt, arms, data, why, order)


def _arm(cfg: DictConfig, typed: Sequence[str], rt: Runtime) -> tuple[DictConfig, Arm]:
    cfg, trained = load_generator(cfg, typed)
    label = str(trained.config["rtil"]["name"])
    family = instantiate(resolved(cfg)["rtil"]["family"])
    return cfg, Arm(label, trained, rt.place(trained.G), family)
