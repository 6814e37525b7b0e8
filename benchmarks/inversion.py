"""Rows of inversion: steps of ILO and mGANprior against the straightforward form.

Whole inversions of a few steps a stage run through `Inverter.invert`; its `watch`, called with
every iterate, takes the time, so a step is what a user gets: images, measurement, gradient, update
and projections. The first steps of each stage are left out. Stages are weighted by the steps that
the scale gives them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from benchmarks import flops
from benchmarks.apart import Here, straightforward
from benchmarks.baseline import inversion as baseline
from benchmarks.record import Row
from benchmarks.setting import SCALES, Setting, config, generator, images, twin
from benchmarks.stopwatch import Stopwatch
from benchmarks.timing import Peak, alternate, ratio_of
from rtil.inverters.data_term import MeasurementLoss
from rtil.inverters.ilo import ILO
from rtil.inverters.inverter import DESCRIPTION
from rtil.inverters.multicode import MGANPrior
from rtil.operators import build_operator
from rtil.process.command import CONFIGS
from rtil.process.rng import seeded

BATCHES = (1, 4, 12)
RATIO = 0.1  # m/n of compressed sensing
FEWEST, MOST, LONG = 4, 40, 0.4  # steps a stage; seconds of a stage


def enough(seconds: float, quick: bool) -> int:
    """Steps a stage that last about LONG seconds."""
    return FEWEST if quick else min(MOST, max(FEWEST, round(LONG / seconds)))


def composed(*choices: str) -> dict:
    """invert.yaml with these choices, resolved."""
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        cfg = compose("invert", ["image_channels=3", *choices])
    return OmegaConf.to_container(cfg, resolve=True)


def inverter_settings(size: int, name: str) -> dict:
    """The settings of an inverter at the scale of this size."""
    group = composed(f"scale={SCALES[size]}", f"inverter={name}")["inverter"]
    return {key: value for key, value in group.items() if key not in (*DESCRIPTION, "_target_")}


def measurement(size: int, setting: Setting):
    """Operator, loss and true images (12, 3, S, S) of compressed sensing."""
    A = build_operator(composed("task=cs")["task"], (3, size, size), 0, ratio=RATIO)
    A = A.to(setting.rt.device)
    loss = MeasurementLoss(A, mse=0.25).to(setting.rt.device)
    x = images(max(BATCHES), size, setting.rt.device).float() / 127.5 - 1.0
    return A, loss, x


def ours(inverter, G, A, loss, x, stages: Sequence[int], r: int) -> list[float]:
    """Seconds a step and stage of a batch through rtil."""
    inverter = replace(inverter, steps=stages if isinstance(inverter, ILO) else stages[0])
    watch = Stopwatch(stages, x.device)
    rngs = [seeded("cpu", "bench", b) for b in range(len(x))]
    inverter.invert(G, A, A(x), loss, rngs, watch=watch)
    return watch.seconds()


def theirs_ilo(g, A, x, prior, shapes, stages: Sequence[int], r: int) -> list[float]:
    """Seconds a step and stage of one image by the straightforward form."""
    watch = Stopwatch(stages, x.device)
    rng = seeded("cpu", "bench", 0)
    v = torch.randn((1, *shapes[0]), generator=rng).to(x.device)
    noise = [torch.randn((1, *shape), generator=rng).to(x.device) for shape in shapes[1]]
    circulant = baseline.Circulant(A.filter, A.signs, A.indices)
    baseline.ilo(g, circulant, x, prior, v, noise, stages, watch)
    return watch.seconds()


def theirs_mgan(
    g, A, x, channels: int, codes: int, block: int, stages: Sequence[int], r: int
) -> list[float]:
    """Seconds a step of one image, one code at a time."""
    watch = Stopwatch(stages, x.device)
    rng = seeded("cpu", "bench", 0)
    z = torch.randn((codes, g.z_dim), generator=rng).to(x.device)
    alpha = torch.full((codes, channels), 1.0 / codes, device=x.device)
    baseline.mgan(g, A, A(x), z, alpha, block, stages[0], watch)
    return watch.seconds()


def prepared(cases: dict[str, Here], stages: int, quick: bool) -> tuple[int, dict]:
    """Warms up every case; returns the steps a stage to time, and executed operations a step.

    Operations are counted where one image is inverted, as the difference that one step more
    makes, so that what runs once an inversion does not count.

    Args:
        cases: name to a case of the steps of each stage.
        stages: how many stages there are.
    """
    counts = {}
    for name, case in cases.items():
        case([2] * stages, 0)
        if name in ("straightforward", "batch 1"):
            two, three = (case.counted([n] * stages, 0) for n in (2, 3))
            counts[name] = (three - two) / stages
    return enough(min(cases["batch 1"]([2] * stages, 0)), quick), counts


def ilo_units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """ILO at every size."""
    return [(f"ILO {size}", partial(measure_ilo, setting, size)) for size in setting.sizes]


def mgan_units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """mGANprior at every size."""
    return [(f"mGANprior {size}", partial(measure_mgan, setting, size)) for size in setting.sizes]


def parts(setting: Setting, size: int):
    """ILO, generator, operator, loss and true images of this size."""
    G = generator(config("stylegan2", "vanilla", size), setting.rt)
    inverter = ILO(**{**inverter_settings(size, "ilo"), "fit_samples": 1000})
    return inverter, G, *measurement(size, setting)


def short(setting: Setting, name: str, size: int, batch: int, codes: int) -> None:
    """A short inversion of a batch by ILO or mGANprior, for what it leaves behind."""
    if name == "ilo":
        inverter, G, A, loss, x = parts(setting, size)
        stages = [2, 2]
    else:
        settings = {**inverter_settings(size, "mgan"), "num_codes": codes}
        inverter, stages = MGANPrior(**settings), [2]
        G = generator(config("pggan", "vanilla", size), setting.rt)
        A, loss, x = measurement(size, setting)
    repeated = x[torch.arange(batch, device=x.device) % len(x)]
    ours(inverter, G, A, loss, repeated, stages, 0)


def slow_ilo(setting: Setting, size: int) -> Callable:
    """The straightforward ILO of one image, on rtil's weights."""
    _, G, A, _, x = parts(setting, size)
    g = twin(G, config("stylegan2", "vanilla", size), "generator")
    prior = G.style_prior(1000, seeded("cpu", "bench"))
    return partial(theirs_ilo, g, A, x[:1], (prior.mean, prior.std), (G.w_shape, G.noise_shapes))


def slow_mgan(setting: Setting, size: int, codes: int, block: int) -> Callable:
    """The straightforward mGANprior of one image, on rtil's weights."""
    cfg = config("pggan", "vanilla", size)
    G = generator(cfg, setting.rt)
    g = twin(G, cfg, "generator").requires_grad_(False)
    A, _, x = measurement(size, setting)
    return partial(theirs_mgan, g, A, x[:1], G.shapes[block][0], codes, block)


def ilo_in_bf16(setting: Setting, size: int, batches: Sequence[int]) -> dict[str, Here]:
    """The cases of hardware.precision=bf16: the smallest and the largest batch."""
    if not setting.has_bf16:
        return {}
    inverter, G, A, loss, x = parts(setting.in_bf16(), size)
    return {
        f"batch {b}, bf16": Here(partial(ours, inverter, G, A, loss, x[:b]))
        for b in (batches[0], batches[-1])
    }


def in_brief(
    group: str,
    work: str,
    where: str,
    against: str,
    batch: int,
    times: dict[str, list[float]],
    reach: str | None,
    needed: float,
    rate: list[float],
) -> list[Row]:
    """The rows of hardware.precision=bf16; the straightforward form and the peak stay float32.

    Args:
        work: what steps. where: at what size.
        times: seconds a step of every case, by round.
        needed: operations of a step. rate: operations a second of sgemm, by round.
    """
    name = f"batch {batch}, bf16"
    per_image = [batch * t for t in times["straightforward"]]
    details = {key: times[key] for key in ("straightforward", f"batch {batch}", name)}
    reached = [needed / t for t in times[name]]
    return [
        Row(
            group,
            f"{work} image-steps/s, {where}, {name}",
            against,
            ratio_of(per_image, times[name]),
            reach,
            details=details,
        ),
        Row(
            group,
            f"fraction of peak, {work} step, {where}, {name}",
            "sgemm",
            ratio_of(reached, rate),
            unit="of peak",
            details={"flops_needed": needed, "sgemm_flops_per_second": rate},
        ),
    ]


def measure_ilo(setting: Setting, size: int) -> list[Row]:
    """ILO at every batch against one image of the straightforward form."""
    cfg = config("stylegan2", "vanilla", size)
    schedule = list(inverter_settings(size, "ilo")["steps"])
    inverter, G, A, loss, x = parts(setting, size)
    batches = BATCHES[:2] if setting.quick else BATCHES
    cases = {"straightforward": straightforward(setting, slow_ilo, setting, size)}
    for b in batches:
        cases[f"batch {b}"] = Here(partial(ours, inverter, G, A, loss, x[:b]))
    cases |= ilo_in_bf16(setting, size, batches)
    n, counts = prepared(cases, len(schedule), setting.quick)
    cases = {name: partial(case, [n] * len(schedule)) for name, case in cases.items()}
    found = alternate({"sgemm": Peak(setting.rt.device), **cases}, setting.repeats, setting.say)
    rate, layers = found.pop("sgemm"), flops.stylegan2(cfg["model"])

    def mean(values: Sequence[float]) -> float:
        return sum(n * value for n, value in zip(schedule, values)) / sum(schedule)

    times = {name: [mean(stage) for stage in rounds] for name, rounds in found.items()}
    first = {name: [stage[0] for stage in rounds] for name, rounds in found.items()}
    where, rows = f"{size}x{size}", []
    base = {
        "seconds": times["straightforward"],
        "stage_seconds": found["straightforward"],
        "flops_executed_mean_of_stages": counts["straightforward"],
        "schedule": schedule,
    }
    for b in batches:
        name, step = f"batch {b}", [flops.ilo_step(layers, b, k) for k in range(len(schedule))]
        cost = {
            "flops_needed": mean([c.flops for c in step]),
            "bytes_needed": mean([c.bytes for c in step]),
        }
        details = {
            **cost,
            "flops_needed_by_stage": [c.flops for c in step],
            "flops_executed_mean_of_stages": counts.get(name),
            "seconds": times[name],
            "stage_seconds": found[name],
            "image_steps_per_second": b / median(times[name]),
            "straightforward": base,
        }
        reach = {1: ">= 4", 12: ">= 4.5"}.get(b)
        for title, seconds, goal in (("all stages", times, reach), ("stage 0", first, None)):
            per_image = [b * t for t in seconds["straightforward"]]
            rows.append(
                Row(
                    "ilo",
                    f"ILO image-steps/s, {where}, batch {b}, {title}",
                    "straightforward",
                    ratio_of(per_image, seconds[name]),
                    goal,
                    details=details,
                )
            )
        reached = [cost["flops_needed"] / t for t in times[name]]
        rows.append(
            Row(
                "ilo",
                f"fraction of peak, ILO step, {where}, batch {b}",
                "sgemm",
                ratio_of(reached, rate),
                ">= 0.6",
                unit="of peak",
                details={**details, "sgemm_flops_per_second": rate},
            )
        )
    one = mean([flops.ilo_step(layers, 1, k).flops for k in range(len(schedule))])
    for b in batches:
        if f"batch {b}, bf16" in times:
            rows += in_brief(
                "ilo",
                "ILO",
                where,
                "straightforward",
                b,
                times,
                {1: ">= 4", 12: ">= 4.5"}.get(b),
                b * one,
                rate,
            )
    rows.append(
        Row(
            "ilo",
            f"fraction of peak, ILO step, {where}, straightforward",
            "sgemm",
            ratio_of([one / t for t in times["straightforward"]], rate),
            unit="of peak",
            details={**base, "flops_needed": one},
        )
    )
    return rows


def measure_mgan(setting: Setting, size: int) -> list[Row]:
    """mGANprior at batch 1 and at the scale's batch against one code after the other."""
    cfg, settings = config("pggan", "vanilla", size), inverter_settings(size, "mgan")
    codes, block = settings["num_codes"] if setting.quick else 20, settings["block"]
    inverter = MGANPrior(**{**settings, "num_codes": codes})
    G = generator(cfg, setting.rt)
    A, loss, x = measurement(size, setting)
    cases = {"straightforward": straightforward(setting, slow_mgan, setting, size, codes, block)}
    brief = generator(cfg, setting.in_bf16().rt) if setting.has_bf16 else None
    for b in BATCHES[:2]:
        cases[f"batch {b}"] = Here(partial(ours, inverter, G, A, loss, x[:b]))
        if brief:
            cases[f"batch {b}, bf16"] = Here(partial(ours, inverter, brief, A, loss, x[:b]))
    n, counts = prepared(cases, 1, setting.quick)
    cases = {name: partial(case, [n]) for name, case in cases.items()}
    found = alternate({"sgemm": Peak(setting.rt.device), **cases}, setting.repeats, setting.say)
    rate, layers = found.pop("sgemm"), flops.pggan(cfg["model"])
    times = {name: [stage[0] for stage in rounds] for name, rounds in found.items()}
    rows = []
    for b in BATCHES[:2]:
        name, cost = f"batch {b}", flops.mgan_step(layers, b, codes, block)
        details = {
            "flops_needed": cost.flops,
            "bytes_needed": cost.bytes,
            "seconds": times[name],
            "flops_executed": counts.get(name),
            "image_steps_per_second": b / median(times[name]),
            "straightforward": {
                "seconds": times["straightforward"],
                "flops_executed": counts["straightforward"],
            },
        }
        title = f"{size}x{size}, N = {codes}, batch {b}"
        per_image = [b * t for t in times["straightforward"]]
        rows.append(
            Row(
                "mgan",
                f"mGANprior image-steps/s, {title}",
                "one pass per code, batch 1",
                ratio_of(per_image, times[name]),
                ">= 2",
                details=details,
            )
        )
        rows.append(
            Row(
                "mgan",
                f"fraction of peak, mGANprior step, {title}",
                "sgemm",
                ratio_of([cost.flops / t for t in times[name]], rate),
                unit="of peak",
                details={**details, "sgemm_flops_per_second": rate},
            )
        )
        if brief:
            rows += in_brief(
                "mgan",
                "mGANprior",
                f"{size}x{size}, N = {codes}",
                "one pass per code, batch 1",
                b,
                times,
                ">= 2",
                cost.flops,
                rate,
            )
    return rows
