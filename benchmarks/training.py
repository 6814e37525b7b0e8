"""Rows of training: the family against vanilla, and rtil against the straightforward form.

A step is the preparation of the real batch, the discriminator's step, the generator's, and the
averaged weights'. Lazy penalties enter with their share: plain + (with penalty - plain) / every
for either network is the exact mean over a period. On a CPU large images have their penalties, a
tenth of a step, timed in the first round alone. A mixture's step is the mean over one rotation
where its members cost differently (numbers of codes).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from benchmarks import flops
from benchmarks.apart import Here, straightforward
from benchmarks.baseline.training import PGGANTraining, StyleGAN2Training
from benchmarks.record import Row
from benchmarks.setting import FAMILIES, TITLES, Setting, config, images, twin
from benchmarks.timing import Peak, alternate, ratio_of, seconds_of
from rtil.models.generator import StyleMixing
from rtil.process import replay
from rtil.process.instantiate import instantiate
from rtil.process.replay import Recorder
from rtil.process.rng import Draws, seed_of, seeded
from rtil.training import loop, networks
from rtil.training.step import Step

Clock = Callable[[Callable[[], object]], float]
LARGE = 128  # sides from which a CPU warms up with one image and times penalties in one round


class Ours:
    """rtil's training of one family, a step in its parts; on a GPU replayed as in training."""

    def __init__(self, cfg: dict, setting: Setting) -> None:
        torch.manual_seed(0)
        self.cfg, self.device = cfg, setting.rt.device
        self.family = instantiate(cfg["rtil"]["family"])
        self.nets = networks.build_nets(cfg, self.family, setting.rt)
        lazy = {"r1": self.nets.objective.d_lazy, "path": self.nets.objective.g_lazy}
        self.every = {key: penalty.every if penalty else 0 for key, penalty in lazy.items()}
        names, self.passes = self.family.spaces[0].names, len(self.family.spaces)
        self.turns = 1 if cfg["model"]["name"] == "stylegan2" else len(names)
        self.rng = seeded(self.device, "bench")
        self.run = Recorder([self.rng], replay.wanted(self.device))

    def prepare(self, raw: torch.Tensor) -> torch.Tensor:
        self.rng.manual_seed(seed_of("bench"))
        mirror = self.cfg["data"]["mirror"]
        draws = Draws(self.rng, len(raw))
        real = loop.prepare(raw, self.cfg["resolution"], self.nets.G, mirror, draws)
        return self.run.hold(real)

    def d_step(self, real: torch.Tensor, step: int, turn: int) -> None:
        loop.d_step(self.nets, self.family, self.step(real, step, turn), self.run)

    def g_step(self, real: torch.Tensor, step: int, turn: int) -> None:
        loop.g_step(self.nets, self.family, self.step(real, step, turn), self.run)

    def step(self, real: torch.Tensor, number: int, turn: int) -> Step:
        """One whose draws depend on the turn alone."""
        self.rng.manual_seed(seed_of("bench", turn))
        draws = Draws(self.rng, len(real))
        return Step(number, real, draws, StyleMixing(self.cfg["model"]["style_mixing"]))

    def follow(self) -> None:
        loop.average(self.nets, self.cfg["model"]["ema_decay"])


class Theirs:
    """The straightforward training of the same family on rtil's weights."""

    turns = 1

    def __init__(self, cfg: dict, setting: Setting) -> None:
        ours = Ours(cfg, setting)
        model, family = cfg["model"], cfg["rtil"]["family"]
        kind = {"stylegan2": StyleGAN2Training, "pggan": PGGANTraining}[model["name"]]
        # Vanilla PGGAN is the member with one code.
        members = family["codes"] if "codes" in family else family["depths"]
        members = [1] if members == [0] and model["name"] == "pggan" else members
        self.steps = kind(
            twin(ours.nets.G, cfg, "generator"),
            twin(ours.nets.D, cfg, "discriminator"),
            model,
            members,
            family.get("block", 1),
        )
        self.every, self.device, self.passes = ours.every, setting.rt.device, len(members)
        self.mirror = cfg["data"]["mirror"]

    def prepare(self, raw: torch.Tensor) -> torch.Tensor:
        real = raw.float() / 127.5 - 1.0
        if self.mirror:
            flip = torch.rand(len(real), 1, 1, 1, device=real.device) < 0.5
            real = torch.where(flip, real.flip(3), real)
        return real

    def d_step(self, real: torch.Tensor, step: int, turn: int) -> None:
        self.steps.d_step(real, seeded(self.device, "bench", turn), step)

    def g_step(self, real: torch.Tensor, step: int, turn: int) -> None:
        self.steps.g_step(len(real), seeded(self.device, "bench", turn), step)

    def follow(self) -> None:
        self.steps.follow()


def mean_step(
    steps: Ours | Theirs,
    raw: torch.Tensor,
    clock: Clock,
    r: int,
    lazy: dict[str, float] | None = None,
) -> dict[str, float]:
    """Parts of a mean step: what clock gives for each, penalties by their share.

    Args:
        raw: uint8 images (B, 3, S, S).
        clock: measures a call, in seconds or operations.
        r: round; a mixture's first turn.
        lazy: the penalties' parts, where they are known.
    """
    parts = {"prepare": clock(lambda: steps.prepare(raw))}
    real = steps.prepare(raw)
    turns = range(r, r + steps.turns)
    d = [clock(partial(steps.d_step, real, 1, turn)) for turn in turns]
    g = [clock(partial(steps.g_step, real, 1, turn)) for turn in turns]
    parts |= {"d": sum(d) / len(d), "g": sum(g) / len(g)}
    if lazy is None:
        lazy = {}
        for key, network in (("r1", "d"), ("path", "g")):
            if steps.every[key]:
                work = {
                    "d": partial(steps.d_step, real, 0, r),
                    "g": partial(steps.g_step, real, 0, r),
                }[network]
                lazy[key] = (clock(work) - parts[network]) / steps.every[key]
    parts |= lazy
    parts["average"] = clock(steps.follow)
    return parts


class Timed:
    """A case: the parts of a mean step in seconds.

    Args:
        steps: what is timed.
        raw: uint8 images (B, 3, S, S).
        vanilla: the counts of the same form's vanilla, or None. Large families on a CPU take the
            penalties' counts from it (R1 once, path length for each of `passes` members), saving
            minutes.

    Attributes:
        executed: operations of a mean step; counting them ran its parts, so they are warm.
    """

    def __init__(self, steps: Ours | Theirs, raw: torch.Tensor, vanilla: dict | None) -> None:
        self.steps, self.raw, self.lazy = steps, raw, None
        self.large = raw.shape[2] >= LARGE and not raw.is_cuda
        few, known = raw, None
        if self.large:
            few = raw[:1]
            if vanilla:
                path, r1 = vanilla.get("path", 0.0), vanilla.get("r1", 0.0)
                known = {"r1": r1 * len(few) / len(raw), "path": path * steps.passes}
        counts = mean_step(steps, few, flops.counted, 0, known)
        path = counts.pop("path", 0.0)  # its batch is its own
        self.counts = {key: n * len(raw) / len(few) for key, n in counts.items()} | {"path": path}
        self.executed = sum(self.counts.values())
        if raw.is_cuda and isinstance(steps, Ours):
            for _ in range(replay.WARM + 1):
                self(0)

    def __call__(self, r: int) -> dict[str, float]:
        clock = partial(seconds_of, device=self.raw.device)
        # On a GPU always the same members: those of another round would be recorded anew.
        parts = mean_step(self.steps, self.raw, clock, 0 if self.raw.is_cuda else r, self.lazy)
        if self.large:
            self.lazy = {key: parts[key] for key in ("r1", "path") if key in parts}
        return parts


def timed(
    kind: type[Ours | Theirs],
    cfg: dict,
    setting: Setting,
    batch: int,
    size: int,
    vanilla: dict | None,
) -> Timed:
    """A case of training, see Timed."""
    return Timed(kind(cfg, setting), images(batch, size, setting.rt.device), vanilla)


def needed(model: dict, family: dict | None, batch: int, mixture: bool) -> flops.Cost:
    """Operations and bytes that a step's result needs; family None for vanilla."""
    if model["name"] == "stylegan2":
        members = 1 if family is None or mixture else len(family["depths"])
        return flops.stylegan2_step(flops.stylegan2(model), batch, members, model["objective"])
    layers = flops.pggan(model)
    if family is None:
        return flops.pggan_step(layers, batch, [1], 1)
    count = flops.pggan_mixture_step if mixture else flops.pggan_step
    return count(layers, batch, family["codes"], family["block"])


def units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """One unit per model and size."""
    return [
        (f"training {TITLES[model]} {size}", partial(measure, setting, model, size))
        for size in setting.sizes
        for model in ("stylegan2", "pggan")
    ]


def measure(setting: Setting, model: str, size: int) -> list[Row]:
    """Every row of one model and size, from one alternation of all its variants."""
    published, mixture = FAMILIES[model]
    cfgs = {f: config(model, f, size) for f in ("vanilla", mixture, published)}
    batch = setting.batch.get(size, cfgs["vanilla"]["batch"])
    family = cfgs[published]["rtil"]["family"]
    kinds = {
        "vanilla": (Ours, "vanilla", None, False),
        "mixture": (Ours, mixture, family, True),
        "straightforward vanilla": (Theirs, "vanilla", None, False),
        "family": (Ours, published, family, False),
        "straightforward family": (Theirs, published, family, False),
    }
    if setting.has_bf16:
        kinds |= {f"{name}, bf16": kinds[name] for name in ("vanilla", "mixture")}
    peak = Peak(setting.rt.device)
    cases, facts = {"sgemm": peak}, {}
    model_cfg = cfgs["vanilla"]["model"]
    for name, (kind, key, members, mixed) in kinds.items():
        begin = time.perf_counter()
        vanilla = cases.get("straightforward vanilla" if kind is Theirs else "vanilla")
        variant = setting.in_bf16() if name.endswith("bf16") else setting
        given = kind, cfgs[key], variant, batch, size, vanilla and vanilla.facts("counts")
        cases[name] = (
            straightforward(setting, timed, *given) if kind is Theirs else Here(timed(*given))
        )
        cost = needed(model_cfg, members, batch, mixed)
        facts[name] = {
            "flops_needed": cost.flops,
            "bytes_needed": cost.bytes,
            "flops_executed": cases[name].facts("executed"),
        }
        setting.say(
            f"warm {name}: {facts[name]['flops_executed'] / 1e9:.4g} Gflop a step, "
            f"{time.perf_counter() - begin:.1f} s"
        )
    found = alternate(cases, setting.repeats, setting.say)
    rate = found.pop("sgemm")
    times = {name: [sum(parts.values()) for parts in rounds] for name, rounds in found.items()}
    for name, rounds in found.items():
        facts[name] |= {
            "seconds": times[name],
            "images_per_second": batch / median(times[name]),
            "parts": {key: median(parts[key] for parts in rounds) for key in rounds[0]},
        }
    return rows(model, size, batch, times, facts, rate, setting)


def rows(
    model: str,
    size: int,
    batch: int,
    times: dict[str, list[float]],
    facts: dict[str, dict],
    rate: list[float],
    setting: Setting,
) -> list[Row]:
    """The rows of one model and size.

    Args:
        times: seconds of a mean step of every variant, by round.
        facts: operations, bytes and parts of every variant.
        rate: operations a second of sgemm, by round.
    """
    where = f"{TITLES[model]} {size}"

    def row(title: str, top: str, bottom: str, reach: str | None, against: str) -> Row:
        details = {
            "batch": batch,
            "top": top,
            "bottom": bottom,
            top: facts[top],
            bottom: facts[bottom],
        }
        ratio = ratio_of(times[top], times[bottom])
        return Row("train", f"{title}, {where}", against, ratio, reach, details=details)

    slow, slow_family = "straightforward vanilla", "straightforward family"
    if model == "stylegan2":
        found = [
            row("ILO family step, mixture", "mixture", "vanilla", "<= 1.15", "vanilla step"),
            row("ILO family step, as published", "family", "vanilla", None, "vanilla step"),
        ]
    else:
        found = [
            row(
                "mGANprior family step, mixture",
                "mixture",
                "family",
                "<= 0.4",
                "family as published",
            ),
            row("mGANprior family step, mixture", "mixture", "vanilla", None, "vanilla step"),
            row("mGANprior family step, as published", "family", "vanilla", None, "vanilla step"),
        ]
    found += [
        row("training images/s, vanilla", slow, "vanilla", ">= 2.5", slow),
        row("training images/s, mixture", slow_family, "mixture", ">= 10", slow_family),
        row("training images/s, as published", slow_family, "family", None, slow_family),
    ]
    if "vanilla, bf16" in times:  # the straightforward form stays float32: what else one could run
        found += [
            row("training images/s, vanilla, bf16", slow, "vanilla, bf16", ">= 2.5", slow),
            row(
                "training images/s, mixture, bf16",
                slow_family,
                "mixture, bf16",
                ">= 10",
                slow_family,
            ),
        ]
    goals = {
        "vanilla": ">= 0.6",
        "mixture": None,
        slow: None,
        "vanilla, bf16": ">= 0.6",
        "mixture, bf16": None,
    }
    for name, reach in goals.items():
        if name not in times:
            continue
        reached = [facts[name]["flops_needed"] / seconds for seconds in times[name]]
        found.append(
            Row(
                "train",
                f"fraction of peak, training step, {name}, {where}",
                "sgemm",
                ratio_of(reached, rate),
                reach,
                unit="of peak",
                details={**facts[name], "batch": batch, "sgemm_flops_per_second": rate},
            )
        )
    return found
