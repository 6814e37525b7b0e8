"""Rows that only a GPU makes meaningful; `--rows gpu` rehearses them on a CPU.

Images per second against batch until they saturate, the inversion step replayed as a CUDA graph
and compiled with mode="reduce-overhead", seconds per 1000 images and length of the paper's
training, its peak memory with 3 images, and profiles.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import inversion, probe, training
from benchmarks.record import Row
from benchmarks.setting import FAMILIES, TITLES, Setting, config, images
from benchmarks.timing import Ratio, alternate, ratio_of, seconds_of, synchronise
from rtil.latents.additive import Additive
from rtil.latents.space import Latents
from rtil.process import replay
from rtil.process.rng import seeded

GAIN = 1.05  # a doubled batch that gains less has saturated
ITERATIONS = 700_000  # of the paper's training (App. A.1)
MATRIX = ("conv", "gemm", "mm", "cutlass", "cudnn", "winograd", "xmma", "dgrad", "wgrad")


def units(setting: Setting) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Every measurement at the sizes asked for; training at the largest."""
    found = []
    for size in setting.sizes:
        found.append((f"ILO saturation {size}", partial(saturation, setting, size)))
        found.append((f"ILO replayed {size}", partial(replayed, setting, size)))
    smallest = min(setting.sizes)
    found.append((f"ILO compiled {smallest}", partial(compiled, setting, smallest)))
    largest = max(setting.sizes)
    for model in ("stylegan2", "pggan"):
        title = f"{TITLES[model]} {largest}"
        found.append((f"length of training {title}", partial(length, setting, model, largest)))
        found.append((f"memory of 3 images {title}", partial(memory, setting, model, largest)))
    found.append((f"profile of training {largest}", partial(profile_training, setting, largest)))
    found.append((f"profile of ILO {largest}", partial(profile_ilo, setting, largest)))
    return found


def saturation(setting: Setting, size: int) -> list[Row]:
    """Image-steps per second of ILO's first stage at doubled batches, until they stop to gain."""
    device = setting.rt.device
    inverter, G, A, loss, x = inversion.parts(setting, size)
    n, rates, batch, stopped = 4 if device.type == "cpu" else 20, {}, 1, "saturated"
    while True:
        pictures = x[:1].expand(batch, -1, -1, -1)
        try:
            case = partial(inversion.ours, inverter, G, A, loss, pictures)
            case([2], 0)
            rates[batch] = [batch / case([n], r)[0] for r in range(setting.repeats)]
        except torch.OutOfMemoryError:
            stopped = "memory"
            break
        setting.say(f"batch {batch}: {median(rates[batch]):.4g} image-steps/s")
        if batch > 1 and median(rates[batch]) < GAIN * median(rates[batch // 2]):
            break
        if device.type == "cpu" and batch >= 16:
            stopped = "rehearsal"
            break
        batch *= 2
    best = max(rates, key=lambda b: median(rates[b]))
    return [
        Row(
            "gpu",
            f"ILO image-steps/s, {size}x{size}, batch {best}, the fastest",
            "batch 1",
            ratio_of(rates[best], rates[1]),
            details={"rates": rates, "stopped": stopped},
        )
    ]


def replayed(setting: Setting, size: int) -> list[Row]:
    """ILO's steps replayed as CUDA graphs (hardware.cuda_graphs) against started one by one."""
    inverter, G, A, loss, x = inversion.parts(setting, size)
    n, rows = replay.FEWEST if setting.rt.device.type == "cpu" else 40, []
    for batch in inversion.BATCHES[:1] if setting.quick else inversion.BATCHES:
        work = partial(inversion.ours, inverter, G, A, loss, x[:batch])

        def case(enabled: bool, r: int, work=work) -> dict[str, float]:
            replay.set_graphs(enabled)
            try:
                begin = time.perf_counter()
                step = work([n], r)[0]
                synchronise(setting.rt.device)
                return {"step": step, "rest": time.perf_counter() - begin - n * step}
            finally:
                replay.set_graphs(True)

        cases = {"one by one": partial(case, False), "replayed": partial(case, True)}
        for start in cases.values():
            start(0)
        found = alternate(cases, setting.repeats, setting.say)
        steps = {name: [entry["step"] for entry in rounds] for name, rounds in found.items()}
        rest = {name: median(entry["rest"] for entry in rounds) for name, rounds in found.items()}
        rows.append(
            Row(
                "gpu",
                f"ILO step, CUDA graphs, {size}x{size}, batch {batch}",
                "one by one",
                ratio_of(steps["one by one"], steps["replayed"]),
                details={
                    "seconds": steps,
                    "recording_seconds": rest["replayed"] - rest["one by one"],
                },
            )
        )
    return rows


def compiled(setting: Setting, size: int) -> list[Row]:
    """The inversion step (image, measurement, gradient, Adam) compiled against the same eager."""
    device = setting.rt.device
    _, G, A, loss, x = inversion.parts(setting, size)
    prior = G.style_prior(1000, seeded("cpu", "bench"))
    rows = []
    for batch in (1,):
        y = A(x[:batch]).detach()
        rng = seeded("cpu", "bench", batch)
        cases = {}
        for name in ("eager", "compiled"):
            v = torch.randn((batch, *G.w_shape), generator=rng).to(device).requires_grad_(True)
            noise = tuple(
                torch.randn((batch, *shape), generator=rng).to(device).requires_grad_(True)
                for shape in G.noise_shapes
            )

            def value(v, noise, y=y, batch=batch):
                latents = Latents(prior(v), noise, {}, member=(0,) * batch)
                return loss(A(Additive(0).synthesize(G, latents)), y).sum()

            if name == "compiled":
                value = torch.compile(value, mode="reduce-overhead")
            optim = torch.optim.Adam([v, *noise], 0.01, fused=True)

            def step(value=value, v=v, noise=noise, optim=optim):
                optim.zero_grad()
                value(v, noise).backward()
                optim.step()

            for _ in range(3):
                step()
            calls = 5 if device.type == "cpu" else 50
            cases[name] = partial(
                lambda step, calls, r: seconds_of(lambda: [step() for _ in range(calls)], device),
                step,
                calls,
            )
        found = alternate(cases, setting.repeats, setting.say)
        rows.append(
            Row(
                "gpu",
                f"inversion step, reduce-overhead, {size}x{size}, batch {batch}",
                "eager",
                ratio_of(found["eager"], found["compiled"]),
                details={"seconds": found, "calls": calls},
            )
        )
    return rows


def length(setting: Setting, model: str, size: int) -> list[Row]:
    """Seconds per 1000 images of every family, and the hours that 700,000 steps take."""
    rows = []
    for family in ("vanilla", *reversed(FAMILIES[model])):
        cfg = config(model, family, size)
        batch = setting.batch.get(size, cfg["batch"])
        steps, raw = training.Ours(cfg, setting), images(batch, size, setting.rt.device)
        clock = partial(seconds_of, device=setting.rt.device)
        for _ in range(replay.WARM + 1):
            training.mean_step(steps, raw, clock, 0)
        seconds = [
            sum(training.mean_step(steps, raw, clock, 0).values()) for _ in range(setting.repeats)
        ]
        kimg = [1000 * s / batch for s in seconds]
        rows.append(
            Row(
                "gpu",
                f"training {TITLES[model]} {size}, {family}, batch {batch}",
                "1000 images",
                Ratio(median(kimg), min(kimg), max(kimg), len(kimg)),
                unit="s/kimg",
                details={
                    "seconds": seconds,
                    "iterations": ITERATIONS,
                    "hours_of_all_iterations": ITERATIONS * median(seconds) / 3600,
                },
            )
        )
    return rows


def memory(setting: Setting, model: str, size: int) -> list[Row]:
    """Peak of training with 3 images, what each of two GPUs holds at the paper's batch."""
    rows = []
    for family in FAMILIES[model]:
        job = {"model": model, "family": family, "size": size, "batch": 3, "overrides": []}
        if setting.rt.device.type == "cuda":  # counts allocations, so no process of its own
            gc.collect()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            probe.train(setting, **job)
            found = (torch.cuda.max_memory_allocated() - before) / 2**30
        else:
            threads = torch.get_num_threads()
            found = probe.peak_mib(setting.rt.device, threads, kind="train", **job) / 2**10
        rows.append(
            Row(
                "gpu",
                f"peak memory, {TITLES[model]} {size}, {family}, 3 images",
                "11 GB GPU",
                Ratio(found, found, found, 1),
                "<= 10.5",
                unit="GiB",
            )
        )
    return rows


def profiled(title: str, work: Callable[[], object], setting: Setting) -> Row:
    """Share of matrix work in the time of a warm call, and its 20 longest kernels."""
    cuda = setting.rt.device.type == "cuda"
    work()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if cuda else [])
    with profile(activities=activities) as seen:
        work()
        if cuda:
            torch.cuda.synchronize()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = [e for e in seen.key_averages() if getattr(e, key) > 0]
    if cuda:  # kernels, not the operators that launch them
        events = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda e: -getattr(e, key))
    total = sum(getattr(e, key) for e in events)
    top = [
        {
            "name": e.key,
            "milliseconds": getattr(e, key) / 1e3,
            "calls": e.count,
            "share": getattr(e, key) / total,
        }
        for e in events[:20]
    ]
    for entry in top:
        setting.say(
            f"{entry['share']:6.1%} {entry['milliseconds']:9.2f} ms "
            f"{entry['calls']:6d} x {entry['name'][:70]}"
        )
    matrix = sum(getattr(e, key) for e in events if any(m in e.key.lower() for m in MATRIX))
    share = matrix / total
    return Row(
        "gpu",
        f"convolutions and products, {title}",
        "time of all kernels",
        Ratio(share, share, share, 1),
        unit="of time",
        details={"top": top},
    )


def profile_training(setting: Setting, size: int) -> list[Row]:
    """A plain step of either model's mixture."""
    rows = []
    for model in ("stylegan2", "pggan"):
        cfg = config(model, FAMILIES[model][1], size)
        batch = setting.batch.get(size, cfg["batch"])
        steps, raw = training.Ours(cfg, setting), images(batch, size, setting.rt.device)

        def work(steps=steps, raw=raw):
            real = steps.prepare(raw)
            steps.d_step(real, 1, 0)
            steps.g_step(real, 1, 0)
            steps.follow()

        rows.append(profiled(f"training step, {TITLES[model]} {size}, mixture", work, setting))
    return rows


def profile_ilo(setting: Setting, size: int) -> list[Row]:
    """A few steps of ILO with one image and with four."""
    inverter, G, A, loss, x = inversion.parts(setting, size)
    return [
        profiled(
            f"ILO {size}, batch {batch}",
            partial(inversion.ours, inverter, G, A, loss, x[:batch], [5], 0),
            setting,
        )
        for batch in (1, 4)
    ]
