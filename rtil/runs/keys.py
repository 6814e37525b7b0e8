"""What a configuration of version 0.1 does not say of its task and inverter. No torch."""

from __future__ import annotations

from collections.abc import Mapping

# The knob of each task, and the family that each inverter was proposed with.
KNOBS = {
    "cs": "ratio",
    "inpainting": "ratio",
    "phase_retrieval": "ratio",
    "sr": "factor",
    "deblur": "blur_std",
    "denoise": "noise_std",
}
FAMILIES = {"ilo": "ilo", "csgm": "ilo", "mgan": "mgan", "lmmse": None, "tv": None, "adjoint": None}


def complete(config: Mapping[str, object]) -> dict[str, object]:
    """A flattened configuration with what it leaves unsaid."""
    task, inverter = config.get("task.name"), config.get("inverter.name")
    unsaid: dict[str, object] = {}
    if task in KNOBS:
        unsaid |= {"task.knob": KNOBS[task], "task.linear": task != "phase_retrieval"}
    if inverter in FAMILIES:
        unsaid["inverter.family"] = FAMILIES[inverter]
    return {**unsaid, **config}
