"""The commands that fill what a table lacks, written after the run beside it. No torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping

from rtil.runs import results
from rtil.runs.run import Run
from rtil.runs.search import budget

NOT_COPIED = {
    *results.GROUPS,
    *results.NOT_IN_NAME,
    *results.FREE_INVERT,
    *results.FOUND,
    "generator_sha256",
    "seed",
    "noise_std",
    "yardstick.use",
} - {"num_images"}
GROUPS = ("model", "scale", "task", "inverter")
TRAINING = ("model", "rtil", "data", "resolution", "image_channels")
TRAINED_WITH = ("total_nimg", "batch", "hardware.precision")  # typed to a training alone
IMAGE_FILES = ("data.path", "data.val_path", "data.test_path")


def commands(run: Run, arm: str, settings: Iterable[str]) -> list[str]:
    """The commands that give an arm, told apart by these settings, under the choices of a run: training, tuning, inversion.

    They repeat the run's groups, files, seed, knob and settings, what its own command set besides,
    and the length, batch and precision that its generator's did. Only protocol=fair is tuned:
    where the run's settings were, with as many trials.
    """
    config = run.config
    knob, group = str(config["task.knob"]), {key: config[f"{key}.name"] for key in GROUPS}
    given = {text.lstrip("+~").partition("=")[0] for argv in run.recorded[:1] for text in argv[1:]}
    keys = sorted({*settings, *given} & config.keys() - NOT_COPIED - {knob})
    kept = {
        key: config[key]
        for key in keys
        if not results.is_under(key, ("protocol",))
        and (arm == config["rtil.name"] or not key.startswith("rtil."))
    }
    source = config.get("data.trained_on") or config["data.name"]
    files = {key: config[key] for key in IMAGE_FILES if config.get(key)}
    trained = dict(
        text.lstrip("+~").split("=", 1)
        for argv in run.trained[:1]
        for text in argv[1:]
        if "=" in text
    )
    root = {"root": config["root"]} if config.get("root", "runs") != "runs" else {}
    protocol = {"protocol": run.protocol} if run.protocol != "paper" else {}
    train = {
        "model": group["model"],
        "rtil": arm,
        "data": source,
        "scale": group["scale"],
        "seed": config["seed"],
        # Empty where the protocol's training is that of any other.
        **(protocol if config.get("protocol.train", run.protocol != "fair") else {}),
        **root,
        **(files if source == config["data.name"] else {}),
        **{key: value for key, value in kept.items() if key.partition(".")[0] in TRAINING},
    }
    longer = {key: trained[key] for key in TRAINED_WITH if "," not in trained.get(key, ",")}
    tune = {
        **train,
        "data": config["data.name"],
        **files,
        "task": group["task"],
        knob: config.get(knob, 0.0),
        "noise_std": float(config.get("noise_std") or 0.0),
        "inverter": group["inverter"],
        **kept,
    }
    lines = [line("train", train | longer)]
    if run.protocol != "fair":
        return [*lines, line("invert", tune | protocol)]
    at = {
        key: value
        for key in ("seed", knob)
        if (value := config.get(f"protocol.at.{key}")) is not None
    }
    invert = tune | protocol | {f"protocol.at.{key}": value for key, value in at.items()}
    spent: dict[str, object] = {}
    if found := budget(config):
        trials, n, _, *first = found
        spent = {"trials": trials, "num_images": n} | (
            dict(zip(("num_images", "finalists", "final_images"), (*first, n))) if first else {}
        )
    there = line("train", train | longer | {"seed": at.get("seed", config["seed"])})
    lines = [there, line("tune", tune | at | spent), *lines, line("invert", invert)]
    return [*dict.fromkeys(lines)]


def line(part: str, choices: Mapping[str, object]) -> str:
    """A command of rtil with these choices."""
    texts = [
        shlex.quote(
            f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        )
        for key, value in choices.items()
    ]
    return " ".join([f"python -m rtil.{part}", *texts])
