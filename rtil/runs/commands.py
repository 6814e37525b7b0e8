"""The commands that fill what a table lacks, written after the run beside it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from rtil.runs import keys, overrides
from rtil.runs.run import Run
from rtil.runs.search import budget
from rtil.runs.setup import composed

MODULE = "model.module"  # of the user's, whose arguments no config has
TARGET = f"{MODULE}._target_"


def commands(run: Run, arm: str, settings: Iterable[str]) -> list[str]:
    """The commands that give an arm under the choices of a run: training, tuning, inversion.

    They repeat the run's groups, files, seed, knob and settings, what its own command set besides,
    and the length, batch, start and precision that its generator's did. Only protocol=fair is
    tuned: where the run's settings were, with as many trials.

    Args:
        arm: rtil=... of the missing runs.
        settings: keys that tell them apart from other runs of the arm.
    """
    config = run.config
    knob = str(config["task.knob"])
    typed = overrides.typed(word for argv in run.recorded[:1] for word in argv[1:])
    names = ("protocol",) if arm == config["rtil.name"] else ("protocol", "rtil")
    repeated = {
        key: config[key]
        for key in sorted({*settings, *typed} & config.keys())
        # Settings of an inverter may be typed by those of the scale that they are read from.
        if (keys.repeated(key, knob) or key.startswith("scale.")) and not keys.is_under(key, names)
    }
    repeated = _module(config) | repeated
    words = [word for argv in (*run.recorded[:1], *run.trained[:1]) for word in argv[1:]]
    added = {overrides.key_of(word) for word in words if word.startswith("+")}
    added |= {key for key in repeated if keys.is_under(key, [MODULE])} - {TARGET}
    source = config.get("data.trained_on") or config["data.name"]
    files = {key: config[key] for key in keys.SPLITS if config.get(key)}
    protocol = {"protocol": run.protocol} if run.protocol != "paper" else {}
    objective = config.get("objective.name", "own")
    train = {
        "model": config["model.name"],
        **({} if objective == "own" else {"objective": objective}),
        "rtil": arm,
        "data": source,
        "scale": config["scale.name"],
        "seed": config["seed"],
        # Empty where the protocol's training is that of any other.
        **(protocol if config.get("protocol.train", run.protocol != "fair") else {}),
        **({"root": config["root"]} if config.get("root", "runs") != "runs" else {}),
        **(files if source == config["data.name"] else {}),
        **{key: value for key, value in repeated.items() if keys.role(key, "train") == "identity"},
    }
    tune = {
        **train,
        "data": config["data.name"],
        **files,
        "task": config["task.name"],
        knob: config.get(knob, 0.0),
        "noise_std": float(str(config.get("noise_std") or 0.0)),
        "inverter": config["inverter.name"],
        **repeated,
    }
    # A sweep's list is of several trainings, and does not say which one was this.
    trained = overrides.typed(word for argv in run.trained[:1] for word in argv[1:] if "=" in word)
    longer = {
        key: text
        for key, text in trained.items()
        if keys.of_training(key) and not overrides.is_sweep(key, text)
    }
    lines = [overrides.line("train", train | longer, added)]
    if run.protocol != "fair":
        return [*lines, overrides.line("invert", tune | protocol, added)]
    at = {key: config.get(f"{keys.AT}.{key}") for key in ("seed", knob)}
    at = {key: value for key, value in at.items() if value is not None}
    invert = tune | protocol | {f"{keys.AT}.{key}": value for key, value in at.items()}
    tuned = overrides.line(
        "train", train | longer | {"seed": at.get("seed", config["seed"])}, added
    )
    lines = [
        tuned,
        overrides.line("tune", tune | at | _budget(run), added),
        *lines,
        overrides.line("invert", invert, added),
    ]
    return [*dict.fromkeys(lines)]


def _module(config: Mapping[str, object]) -> dict[str, object]:
    """Settings of a generator that is a module of the user's, which no choice of a group says.

    A run that took it from a file did not type them.
    """
    if TARGET not in config:
        return {}
    plain, _ = composed("train", (f"model={config['model.name']}",))
    return {
        key: value
        for key, value in config.items()
        if keys.is_under(key, [MODULE]) or re.fullmatch(r"model\.\w+", key)
        if keys.canonical(plain.get(key)) != keys.canonical(value)
    }


def _budget(run: Run) -> dict[str, object]:
    """Trials and images of the tuning behind a run, as they are given to another."""
    spent = budget(run.config)
    if spent is None:
        return {}
    trials, images, _, *rounds = spent
    if not rounds:
        return {"trials": trials, "num_images": images}
    names = ("trials", "num_images", "finalists", "final_images")
    return dict(zip(names, (trials, *rounds, images)))
