"""What version 0.1 computed in tiny runs, on the processor that is most like this one.

tests/golden/tiny_runs*.json hold it for two: libraries choose their kernels by the vendor too,
and by instructions that torch's capability does not tell, such as those for matrices (AMX).
"""

import json
from pathlib import Path

import torch

GOLDEN = Path(__file__).parents[1] / "golden"
CPUINFO = Path("/proc/cpuinfo")


def stated(inverter, rtil, task, protocol="paper"):
    """{key: value} that version 0.1 chose by default for this arm, and later versions do not."""
    settings = {"image_seed": "null"}
    given = task in ("cs", "inpainting", "sr")  # by the paper; elsewhere arms were alike
    if (inverter, rtil) == ("mgan", "vanilla") and given and protocol != "authors":
        settings["inverter.alpha_init"] = 1 / 256
    if inverter in ("ilo", "mgan") and protocol == "authors":
        settings["selection"] = "oracle"
        settings["operator.per_image"] = False
    return settings


def processor():
    """Vendor, and whether it has AMX."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    vendor = next((line.split(":")[1].strip() for line in lines if "vendor_id" in line), "")
    return vendor, any(line.startswith("flags") and "amx_tile" in line for line in lines)


def pinned_runs():
    """The pinned runs, and whether this machine gives the same bits."""
    here = torch.__version__, torch.backends.cpu.get_cpu_capability(), *processor()
    pins = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("tiny_runs*.json"))]
    same = [pin for pin in pins if (pin["torch"], pin["cpu"], pin["vendor"], False) == here]
    return (same or pins)[0], bool(same)
