"""How much an arm depends on its settings: the tables of the searches behind protocol=fair.

A search tries the same settings for every arm (`rtil.search`), so the scores of its drawn trials,
the settings of somebody who knows nothing, can be paired by trial. All are means over validation
images; which trial won is in the tables of `rtil.table`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median, stdev

from rtil import fair, metrics
from rtil.cells import Run, case_of
from rtil.operators import KNOBS
from rtil.table import written

READING = (
    "Searches: what the settings tried for protocol=fair reach, each the mean PSNR of the same n "
    "validation images. Spread is the standard deviation over the drawn settings, with the lowest "
    "and the highest; anchors (settings of the paper) are left out of it. Δ at a drawn setting is "
    "the difference to the baseline at the same setting, its interval over settings: it says what "
    "an arm gains for whoever takes settings at random from this space, with one training of each "
    "arm. The best is the highest mean, chosen on these very images and therefore no result.")


def of_run(run: Run) -> dict | None:
    """The search that a run's settings come from, small enough to be packed.

    None without one, or where its file is gone or was searched anew since.

    Returns:
        {"seed", "knob", "value", "noise_std", "space", "generator_sha256": what it was a search
        of, "n": images, "drawn": number of the first drawn trial, "means": PSNR in dB of each
        trial, None where its loss was not finite}.
    """
    if run.tuning is not None:
        return dict(run.tuning)
    path = file_of(run)
    if path is None or not path.exists():
        return None
    found = fair.read(path)
    settings, trials = found["settings"], found["trials"]
    if (len(trials), found["trial"]) != tuple(
            run.config.get(f"protocol.tuned.{key}") for key in ("trials", "trial")):
        return None
    knob = next((key for key in KNOBS if key in settings), "noise_std")
    return {
        "seed": settings.get("seed"), "knob": knob, "value": settings.get(knob),
        "noise_std": settings.get("noise_std"), "space": run.config.get("protocol.tuned.space"),
        "generator_sha256": settings.get("generator_sha256"),
        "n": max(trial["n"] for trial in trials), "drawn": len(found["space"]["anchors"]),
        "means": [trial["mean"] for trial in trials],
    }


def file_of(run: Run) -> Path | None:
    """The file of `rtil.tune` that a run took its settings from, also where its root was moved."""
    name = run.config.get("protocol.tuned.file")
    if not name:
        return None
    path, parents = Path(str(name)), run.path.parents
    if path.exists() or "tuned" not in path.parts or len(parents) < 3:
        return path
    return parents[2].joinpath(*path.parts[path.parts.index("tuned"):])


def tables(runs: Iterable[Run], baseline: str) -> dict[str, list[dict[str, str]]]:
    """Rows of {heading: text}, one for each search, under a title for each series of cells.

    Args:
        runs: of a report; those that share a search count once.
        baseline: arm that differences are paired against.
    """
    found: dict[str, dict[tuple, dict[str, Mapping]]] = {}
    for run in runs:
        search = of_run(run)
        if search is None or len(drawn(search)) < 2:
            continue
        case = case_of(run)._replace(knob=search["knob"], value=float(search["value"] or 0.0),
                                     noise_std=float(search["noise_std"] or 0.0))
        place = (case.value, case.measurement, search["seed"], search["space"], search["n"])
        arms = found.setdefault(case.heading, {}).setdefault(place, {})
        label, digest = run.config["rtil.name"], search["generator_sha256"]
        if arms.setdefault(label, search)["generator_sha256"] != digest:
            arms.setdefault(f"{label} {str(digest)[:8]}", search)
    return {
        f"Searches, {heading}": [
            line(measurement, seed, arm, search, arms.get(baseline) if arm != baseline else None)
            for (_, measurement, seed, *_), arms in sorted(places.items(), key=lambda x: x[0][:2])
            for arm, search in sorted(arms.items(), key=lambda x: (x[0] != baseline, x[0]))
        ] for heading, places in found.items()
    }


def drawn(search: Mapping) -> dict[int, float]:
    """{trial: mean PSNR in dB} of the drawn settings that had a finite loss."""
    return {number: mean for number, mean in enumerate(search["means"])
            if number >= search["drawn"] and mean is not None}


def line(
    measurement: str, seed: object, arm: str, search: Mapping, base: Mapping | None
) -> dict[str, str]:
    """A row of the table."""
    mine, theirs = drawn(search), drawn(base) if base else {}
    both = [number for number in mine if number in theirs]
    delta = ahead = "–"
    if len(both) > 1:
        gains = [mine[number] - theirs[number] for number in both]
        mean, half = metrics.mean_ci(gains)
        delta = written({"mean": mean, "ci95": half}, 2, "+", f"{len(both)} settings")
        ahead = (f"{sum(gain > 0 for gain in gains)} of {len(both)}, median {median(gains):+.2f}, "
                 f"{min(gains):+.2f} to {max(gains):+.2f}")
    scored = [mean for mean in search["means"] if mean is not None]
    return {
        "tuned at": measurement, "seed": str(seed), "arm": arm, "n": str(search["n"]),
        "drawn settings": str(len(mine)),
        "spread [dB]": f"{stdev(mine.values()):.2f}, {min(mine.values()):.2f} to "
                       f"{max(mine.values()):.2f}",
        "best [dB]": f"{max(scored):.2f}",
        "Δ at a drawn setting [dB]": delta, "ahead at": ahead,
    }
