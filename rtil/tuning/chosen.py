"""What a tuning chose: the content of its file, and its table of trials."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import yaml

from rtil.runs import tuning
from rtil.tuning import space
from rtil.tuning.trials import METRIC, Round, score


def content(config: Mapping, varied: Iterable[str], rounds: Sequence[Round]) -> dict:
    """What a tuning chose, for what it is valid, and how each trial did.

    Args:
        config: of the tuning, resolved, with the digests of its generator and images.
        varied: the settings that trials set.
    """
    first, last = rounds[0], rounds[-1]
    best = last.ranked[0]
    validation: dict[str, object] = {
        "split": "val",
        "data": config["data"]["name"],
        "metric": METRIC,
    }
    finals = {}
    if len(rounds) > 1:
        validation["first_round"] = {"n": len(first.ids), "finalists": len(last.trials)}
        finals = {trial.number: {"final": score(trial, last.ids)} for trial in last.trials}
    rows = [
        {"trial": t.number, **score(t, first.ids), **finals.get(t.number, {}), **t.settings}
        for t in first.trials
    ]
    return {
        "chosen": dict(best.settings),
        "trial": best.number,
        "validation": validation | score(best, last.ids),
        "total_steps": sum(space.stages(config["inverter"]) or [config["inverter"]["steps"]]),
        "search_seed": config["search_seed"],
        "space": config["search"],
        "settings": tuning.settings(config, varied),
        "trials": rows,
    }


def text(content: Mapping) -> str:
    """The file as YAML, a line for each trial."""
    head = {key: value for key, value in content.items() if key != "trials"}
    lines = [
        yaml.safe_dump(row, sort_keys=False, default_flow_style=True, width=math.inf)
        for row in content["trials"]
    ]
    return (
        yaml.safe_dump(head, sort_keys=False, default_flow_style=None, width=120)
        + "trials:\n"
        + "".join(f"- {line}" for line in lines)
    )


def table(content: Mapping) -> str:
    """The trials, best first."""
    validation, names = content["validation"], [*content["chosen"]]
    first = validation.get("first_round", validation)
    head = f"Mean {METRIC} of {first['n']} validation images, total steps {content['total_steps']}"
    if "finalists" in first:
        head += f"; the best {first['finalists']}, above, went on to {validation['n']} images"
    lines = [f"{head}:"]
    for row in sorted(content["trials"], key=rank_of, reverse=True):
        settings = ", ".join(f"{key.removeprefix('inverter.')}={row[key]}" for key in names)
        half = "" if row["ci95"] is None else f" ± {row['ci95']:.3f}"
        final = f"  final {decibels(row['final'], '')}" if "final" in row else ""
        lines.append(f"  {row['trial']:3d}  {decibels(row, '7')}{half}{final}  {settings}")
    return "\n".join(lines)


def rank_of(row: Mapping) -> tuple[float, ...]:
    """What a trial counts by: its score in the final round, then that in the first."""
    means = (row.get("final", {}).get("mean"), row["mean"])
    return tuple(-math.inf if mean is None else mean for mean in means)


def decibels(row: Mapping, width: str) -> str:
    """The mean of a row of `score`."""
    return "not finite" if row["mean"] is None else f"{row['mean']:{width}.3f}"
