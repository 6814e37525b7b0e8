"""What version 0.1 did not write into a configuration, because other settings of it said so.

The only names of parts in this package: later versions record these settings themselves. What a
setting means that version 0.1 did not have is the `default` of its row in `rtil.runs.keys`.
"""

from __future__ import annotations

from collections.abc import Mapping

TASKS: Mapping[str, Mapping[str, object]] = {
    "cs": {"knob": "ratio", "linear": True, "measures": "vector"},
    "phase_retrieval": {"knob": "ratio", "linear": False, "measures": "vector"},
    "inpainting": {"knob": "ratio", "linear": True, "measures": "image"},
    "sr": {"knob": "factor", "linear": True, "measures": "image"},
    "deblur": {"knob": "blur_std", "linear": True, "measures": "image"},
    "denoise": {"knob": "noise_std", "linear": True, "measures": "image"},
}
FAMILIES = {"ilo": "ilo", "csgm": "ilo", "mgan": "mgan"}


def implied(config: Mapping[str, object]) -> dict[str, object]:
    """What other settings of a flattened configuration imply.

    An inverter that needs no generator has no family.
    """
    said: dict[str, object] = {}
    if "rtil.name" in config:
        # A mixture is of the arm that its name begins with.
        said["rtil.arm"] = str(config["rtil.name"]).removesuffix("_mixture")
    task = TASKS.get(str(config.get("task.name")), {})
    said |= {f"task.{key}": value for key, value in task.items()}
    if "inverter.name" in config:
        said["inverter.family"] = FAMILIES.get(str(config["inverter.name"]))
    if config.get("inverter.name") == "lmmse" and "noise_std" in config:
        said["inverter.noise_std"] = config["noise_std"]
    if "scale.stylegan2.r1_weight" in config:
        said["scale.pggan_r1.r1_weight"] = config["scale.stylegan2.r1_weight"]
    return said
