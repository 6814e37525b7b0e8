"""What a tuning tries: settings drawn from a space of configs/search, the same for every arm.

Trial i is a function of the space, the seed and i alone. So every arm gets the same trials, and
more of them go on from those there are; a search that learns from its scores would give each arm
others, and could not be stopped without keeping its state. Drawn points follow a scrambled Sobol
sequence (Owen 1998), which fills a space of few dimensions more evenly than independent draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

Settings = dict[str, object]
DIGITS = 3  # significant ones of what is drawn


def trials(space: Mapping, steps: Sequence[int] | None, count: int, seed: int) -> list[Settings]:
    """The first `count` trials: the anchors, then the variants in turn.

    Args:
        space: a file of configs/search, resolved.
        steps: of each stage as configured; None where the inverter has no stages. Every trial has
            as many stages and the same sum.

    Raises:
        ValueError: a range that is empty or not positive, or stages for fewer steps.
    """
    check(space)
    stages = space.get("stages") if steps else None
    given = {"inverter.steps": list(steps)} if steps and stages else {}
    proposals = [{**anchor, **given} for anchor in space["anchors"]]
    variants = space["variants"]
    rounds = -(-max(count - len(proposals), 0) // len(variants))
    drawn = [
        points(variant, stages, rounds, seed * len(variants) + i)
        for i, variant in enumerate(variants)
    ]
    for number in range(rounds):
        for variant, rows in zip(variants, drawn):
            place = iter(rows[number])
            chosen = {key: value_of(node, place) for key, node in variant.items()}
            if steps and stages:
                low, high = stages["first"]
                first = low + (high - low) * next(place)
                low, high = stages["ratio"]
                ratio = between(low, high, next(place))
                chosen["inverter.steps"] = divide(steps, first, ratio)
            proposals.append(chosen)
    return proposals[:count]


def keys(space: Mapping, steps: Sequence[int] | None) -> set[str]:
    """What the trials of a space set."""
    varied = {key for node in (*space["anchors"], *space["variants"]) for key in node}
    return varied | ({"inverter.steps"} if space.get("stages") and steps else set())


def stages(inverter: Mapping) -> list[int] | None:
    """Steps of each stage of an inverter's configuration; None where it has no stages."""
    if "depth" not in inverter:
        return None
    steps = inverter["steps"]
    return [steps] * (inverter["depth"] + 1) if isinstance(steps, int) else list(steps)


def check(space: Mapping) -> None:
    """Raises ValueError as `trials` does."""
    for variant in space["variants"]:
        for key, node in variant.items():
            drawn = isinstance(node, Mapping) and "choices" not in node
            if drawn and not 0 < node.get("low", 0) < node.get("high", 0):
                raise ValueError(
                    f"search: {key}: {dict(node)} must be a value, {{choices: "
                    "[...]}, or {low, high} with 0 < low < high."
                )
    stages = space.get("stages") or {"first": [0.5, 0.5], "ratio": [1, 1]}
    (first, most), (low, high) = stages["first"], stages["ratio"]
    if not (0 < first <= most < 1 and 0 < low <= high):
        raise ValueError(
            f"search: stages={dict(stages)}: `first` must be shares in (0, 1), "
            "`ratio` positive, each [low, high]."
        )
    if len({frozenset(node) for node in (*space["anchors"], *space["variants"])}) > 1:
        raise ValueError(
            "search: anchors and variants must all set the same keys: what one "
            "leaves out would be another value for each arm."
        )


def points(variant: Mapping, stages: Mapping | None, count: int, seed: int) -> list[list[float]]:
    """Points of the unit cube with a coordinate for each range of a variant and of its stages."""
    ranges = sum(isinstance(node, Mapping) for node in variant.values()) + (2 if stages else 0)
    if not ranges or not count:
        return [[]] * count
    engine = torch.quasirandom.SobolEngine(ranges, scramble=True, seed=seed)
    return engine.draw(count).tolist()


def value_of(node: object, place) -> object:
    """The value of a setting at the next coordinate; a fixed one takes none."""
    if not isinstance(node, Mapping):
        return node
    if "choices" in node:
        return node["choices"][int(next(place) * len(node["choices"]))]
    return float(f"{between(node['low'], node['high'], next(place)):.{DIGITS}g}")


def between(low: float, high: float, share: float) -> float:
    """low^(1 - share) high^share."""
    return low ** (1 - share) * high**share


def divide(steps: Sequence[int], first: float, ratio: float) -> list[int]:
    """As many stages with the same sum: `first` of it in stage 0, then in geometric progression.

    Whole numbers by largest remainders, none below 1.

    Raises:
        ValueError: fewer steps than stages.
    """
    total, later = sum(steps), len(steps) - 1
    if total < len(steps):
        raise ValueError(f"search: {total} steps for {len(steps)} stages; each needs 1 or more.")
    if not later:
        return [total]
    weights = [ratio**j for j in range(later)]
    shares = [first, *((1 - first) * w / sum(weights) for w in weights)]
    spare = total - len(steps)
    exact = [spare * share for share in shares]
    whole = [int(x) for x in exact]
    order = sorted(range(len(steps)), key=lambda k: whole[k] - exact[k])
    for k in order[: spare - sum(whole)]:
        whole[k] += 1
    return [1 + n for n in whole]
