"""What a run may be called by the paper's name: said here alone, from the run's own settings.

`protocol=paper` has the step sizes of the paper's appendix at every scale. The perceptual terms
that the appendix adds to the squared error need networks that are no part of rtil, and scales
below `scale=paper` leave them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import yaml

from rtil.process.command import CONFIGS

ALONE = "paper's step sizes, MSE alone"
Term = Mapping[str, object]  # settings of the data term that the appendix has for an arm


@lru_cache
def appendix() -> Mapping[str, Mapping[str, Mapping[str, Term]]]:
    """The tables of configs/appendix: by inverter, arm and task."""
    files = sorted((Path(CONFIGS) / "appendix").glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def term_of(config: Mapping[str, object]) -> Term | None:
    """What the appendix says of the perceptual term of a run's arm and task; None for none."""
    arms = appendix().get(str(config.get("inverter.name")), {})
    own = arms.get(str(config.get("rtil.arm")), {}).get(str(config.get("task.name")), {})
    if "lpips" not in own:
        return None
    # Of masks that observe less the appendix has the squared error alone (A.3).
    observed, least = config.get("ratio"), own.get("lpips_min_ratio", 0.0)
    if isinstance(observed, (int, float)) and isinstance(least, float) and observed < least:
        return None
    return own


def name_of(config: Mapping[str, object]) -> str:
    """What a run of protocol=paper lacks of the paper's data term; "" where nothing."""
    is_paper = config.get("protocol.name", "paper") == "paper"
    return ALONE if is_paper and term_of(config) and not config.get("loss.lpips") else ""
