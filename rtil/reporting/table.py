"""Numbers of a report: means with their intervals, paired differences, and the table in Markdown.

A new column is one key in METRICS and one line in `table`. Which runs are compared is decided in
`rtil.reporting.cells`, the same table in HTML is `rtil.reporting.page.table_html`, that of
protocols side by side is made in `rtil.reporting.gains`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import numpy as np

from rtil.metrics.intervals import mean_ci
from rtil.operators import NONLINEAR
from rtil.reporting.cells import Cell, Entry, commands, place, told
from rtil.runs import keys
from rtil.runs.run import Run, is_number
from rtil.runs.search import budget

METRICS = (
    "psnr_db",
    "ssim",
    "lpips",
    "gradient_energy",
    "oracle_psnr_db",
    "last_psnr_db",
    "last_ssim",
    "lmmse_psnr_db",
    "lmmse_ssim",
    "lmmse_gradient_energy",
)
READING = (
    "PSNR and SSIM (psnr_db, ssim) are those of the iterate with the lowest measurement loss, or "
    "with selection=last of the last one, with heldout of the one that fits withheld measurements "
    "best, with discrepancy of the first that fits up to the noise; no inverter sees the true "
    "image, and none of these rules does. Oracle PSNR is that of "
    "the best iterate as judged by the true image, which no user has: it is not a result, and "
    "neither is any number in a row that says selection=oracle, where that iterate was kept. "
    "LMMSE is the linear estimate from training images, a yardstick without generator. Sharpness "
    "is the energy of the image's differences over that of the true image's: below 1 is smoother, "
    "as an average of plausible images is. ± is the "
    "half-width of a 95 % confidence interval (Student t). That of a mean, and of Δ, the mean "
    "difference to the baseline, is over images, n of them or for Δ those that both have with the "
    "same seed; with several seeds each image is averaged over them first. It covers other images "
    "under the same trainings, not what another training would change. That does Δ over seeds: "
    "the difference of each seed is the mean over the images that its run and the baseline's "
    "have, and the interval is over these means, n seeds, each a training of both arms with its "
    "own random numbers in inversion. It holds for these images, and is left out below two seeds "
    "or where seeds "
    "share a generator."
)


def per_image(runs: Iterable[Run], metric: str) -> dict[str, float]:
    """Value of each image that has one, averaged over the runs (seeds) that hold the image."""
    return averaged(
        {name: float(row[metric]) for name, row in run.rows.items() if is_number(row.get(metric))}
        for run in runs
    )


def estimate(values: Mapping[object, float]) -> dict | None:
    """Mean, half-width of its 95 % confidence interval and n; None without values."""
    if not values:
        return None
    mean, half_width = mean_ci(list(values.values()))
    return {"mean": mean, "ci95": half_width, "n": len(values)}


def over_sets(values: Mapping[str, float], size: int) -> dict | None:
    """`estimate` of the means of sets of `size` images, in the order of their ids; n counts sets.

    Images beyond the last full set are left out. Fewer degrees of freedom than over images make
    its interval wider; both cover the same mean.
    """
    names = sorted(values)
    sets = [names[i : i + size] for i in range(0, len(names) - size + 1, size)]
    return estimate({str(i): float(np.mean([values[n] for n in s])) for i, s in enumerate(sets)})


def differences(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, float]:
    """a - b of the images that both have."""
    # Two infinite PSNRs are equal, though their difference is not a number.
    return {name: a[name] - b[name] if a[name] != b[name] else 0.0 for name in a if name in b}


def by_seed(entry: Entry, base: Entry, metric: str) -> dict[object, dict[str, float]]:
    """{seed: `differences`} of the seeds that both have and that have an image in common.

    Runs of other seeds have another operator, other noise and another training, so that nothing
    pairs them.
    """
    theirs = {run.seed: run for run in base.runs}
    found = {
        run.seed: differences(per_image([run], metric), per_image([theirs[run.seed]], metric))
        for run in entry.runs
        if run.seed in theirs
    }
    return {seed: values for seed, values in found.items() if values}


def averaged(maps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each image over the maps that hold it."""
    values: dict[str, list[float]] = {}
    for found in maps:
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(v)) for name, v in sorted(values.items())}


def unpaired(entry: Entry, base: Entry) -> str:
    """Which seeds or images a difference to the baseline leaves out, or ""."""
    mine, theirs = ({run.seed: run.rows.keys() for run in e.runs} for e in (entry, base))
    texts = [
        f"{who} seeds {listed(alone)}"
        for who, alone in (
            ("its", mine.keys() - theirs.keys()),
            ("the baseline's", theirs.keys() - mine.keys()),
        )
        if alone
    ]
    both = [seed for seed in mine if seed in theirs]
    shared = [mine[seed] & theirs[seed] for seed in both]
    if any(images != shared[0] for images in shared):
        texts.append(
            f"some images in some seeds (seeds {listed(both)} have "
            f"{', '.join(str(len(images)) for images in shared)} in common)"
        )
    return " and ".join(texts)


def listed(values: Iterable) -> str:
    """Sorted, with commas."""
    return ", ".join(map(str, sorted(values, key=lambda value: (isinstance(value, str), value))))


def over_seeds(entry: Entry, base: Entry, values: Mapping[object, float]) -> dict | None:
    """`estimate` of the differences `by_seed`; n counts seeds.

    None below two of them, which have no interval, and where seeds share a generator: other
    random numbers in inversion are no other training.
    """
    for runs in (entry.runs, base.runs):
        digests = [
            run.config["generator_sha256"]
            for run in runs
            if run.seed in values and run.config.get("generator_sha256")
        ]
        if len({*digests}) < len(digests):
            return None
    return estimate(values) if len(values) > 1 else None


def reference(cell: Cell, entry: Entry, baseline: str) -> Entry | None:
    """The baseline's entry that `entry` is paired with: with its settings, or the only one.

    It is of the same images, protocol and network (settings under `model`), and what an oracle
    selected is compared with nothing but what an oracle selected.
    """
    if entry.arm == baseline:
        return None
    found = [
        e
        for e in cell.entries
        if e.arm == baseline
        and alike(e) == alike(entry)
        and not keys.differing_keys(files_of(e), files_of(entry))
    ]
    names = {key for e in found for key in e.settings if not key.startswith("rtil.")}
    same = [e for e in found if all(e.settings.get(k) == entry.settings.get(k) for k in names)]
    return same[0] if len(same) == 1 else found[0] if len(found) == 1 else None


def alike(entry: Entry) -> tuple:
    """What an entry has in common with the baseline that it can be paired with."""
    run = entry.runs[0]
    network = {key: text for key, text in entry.settings.items() if key.startswith("model.")}
    return entry.oracle, run.protocol, run.config.get("split", "test"), network


def files_of(entry: Entry) -> dict[str, object]:
    """What tells the images of an entry from others; earlier runs do not say it."""
    return {keys.FILES: entry.runs[0].config.get(keys.FILES)}


def records(cell: Cell, baseline: str, set_size: int = 0) -> list[dict]:
    """Every number of the cell, a record for each entry and, without "n", for each missing arm.

    With a set_size, "sets" is the PSNR over sets of so many images.
    """
    found, common = [], {**cell.case._asdict(), "measurement": cell.case.measurement}
    for entry in cell.entries:
        values = {metric: per_image(entry.runs, metric) for metric in METRICS}
        base = reference(cell, entry, baseline)
        row = {
            **common,
            "arm": entry.arm,
            "settings": entry.settings,
            "label": entry.label,
            "seeds": [run.seed for run in entry.runs],
            "n": len(values["psnr_db"]),
            "fewest": min(len(run.rows) for run in entry.runs),
            **{metric: estimate(values[metric]) for metric in METRICS},
            "baseline": base and base.label,
            "runs": [str(run.path) for run in entry.runs],
            "differs": [],
            "commands": [],
            "unpaired": unpaired(entry, base) if base else "",
            "protocol": entry.runs[0].protocol,
            "choices": [told(run.config) for run in entry.runs],
            "budgets": [budget(run.config) for run in entry.runs],
            "tuned_at": [place(run.config) for run in entry.runs],
        }
        if set_size:
            row["sets"] = over_sets(values["psnr_db"], set_size)
        for key in ("psnr_db", "ssim"):
            pairs = by_seed(entry, base, key) if base else {}
            means = {seed: float(np.mean([*found.values()])) for seed, found in pairs.items()}
            row[f"gain_{key}"] = estimate(averaged(pairs.values()))
            row[f"gain_{key}_by_seed"] = means
            row[f"gain_{key}_seeds"] = over_seeds(entry, base, means) if base else None
        row["lmmse_gain_psnr_db"] = estimate(
            averaged(
                differences(per_image([run], "lmmse_psnr_db"), per_image([run], "psnr_db"))
                for run in entry.runs
            )
        )
        if base:
            theirs = {other.seed: other for other in base.runs}
            row["differs"] = [
                *dict.fromkeys(
                    chain.from_iterable(
                        keys.differing_keys(
                            theirs[run.seed].config,
                            run.config,
                            lambda key: keys.tells_apart(key) and not keys.is_under(key, ["rtil"]),
                        )
                        for run in entry.runs
                        if run.seed in theirs
                    )
                )
            ]
        if not row["lmmse_psnr_db"] and cell.case.task not in NONLINEAR:  # what fills it in
            lines = [commands(run, entry)[-1] for run in entry.runs]
            row["commands"] = [f"{line} yardstick.use=true" for line in lines]
        found.append(row)
    for arm in cell.missing:
        pairs = [commands(run, e._replace(arm=arm)) for e in cell.entries for run in e.runs]
        lines = dict.fromkeys(chain(*pairs))
        found.append({**common, "arm": arm, "label": arm, "commands": [*lines]})
    return found


def written(found: Mapping | None, digits: int = 2, sign: str = "", count: str = "") -> str:
    """An estimate as text, for example "+0.31 ± 0.12 (n=32)"."""
    if not found:
        return "–"
    half = "" if math.isnan(found["ci95"]) else f" ± {found['ci95']:.{digits}f}"
    return f"{found['mean']:{sign}.{digits}f}{half}" + (f" ({count})" if count else "")


def seeds(found: Mapping | None) -> str:
    """A gain over seeds as text, always with their number."""
    return written(found, 2, "+", f"{found['n']} seeds" if found else "")


def table(rows: Iterable[Mapping], baseline: str) -> list[dict[str, str]]:
    """Records of `rtil.report` as rows of {heading: text}; columns that none has are left out."""

    def text(row: Mapping, key: str, digits: int = 2, sign: str = "") -> str:
        found = row.get(key)
        count = f"n={found['n']}" if found and found["n"] != row["n"] else ""
        return written(found, digits, sign, count)

    def count(row: Mapping) -> str:
        if "n" not in row:
            return "–"
        n, planned = row["n"], row.get("planned", 0)
        text = f"{row['fewest']} to {n}" if row["fewest"] < n else str(n)  # of its seeds
        return f"{text} of {planned}" if row["fewest"] < planned else text

    lines = [
        {
            "measurement": row["measurement"],
            "arm": row["label"],
            "seeds": ", ".join(map(str, row.get("seeds", "–"))),
            "n": count(row),
            "PSNR [dB]": text(row, "psnr_db") if "n" in row else "missing",
            f"Δ PSNR to {baseline} [dB]": text(row, "gain_psnr_db", 2, "+"),
            "Δ PSNR over seeds [dB]": seeds(row.get("gain_psnr_db_seeds")),
            "SSIM": text(row, "ssim", 3),
            f"Δ SSIM to {baseline}": text(row, "gain_ssim", 3, "+"),
            "LPIPS": text(row, "lpips", 3),
            "sharpness": text(row, "gradient_energy"),
            "LMMSE PSNR [dB]": text(row, "lmmse_psnr_db"),
            "LMMSE SSIM": text(row, "lmmse_ssim", 3),
            "LMMSE sharpness": text(row, "lmmse_gradient_energy"),
            "last PSNR [dB]": text(row, "last_psnr_db"),
            "oracle PSNR [dB]": text(row, "oracle_psnr_db"),
            "PSNR over sets [dB]": text(row, "sets"),
        }
        for row in rows
    ]
    empty = {key for key in lines[0] if all(line[key] == "–" for line in lines)}
    return [{key: t for key, t in line.items() if key not in empty} for line in lines]


def table_text(name: str, rows: Sequence[Mapping], baseline: str) -> str:
    """`table` and its `remarks` as a section of Markdown."""
    text = grid_text(name, table(rows, baseline))
    for remark, missing in remarks(rows):
        text += f"\n{remark}\n" + (f"\n```\n{missing}\n```\n" if missing else "")
    return text


def grid_text(name: str, lines: Sequence[Mapping[str, str]]) -> str:
    """Rows of {heading: text} under a heading, in Markdown."""
    widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
    rule = {key: "-" * width for key, width in widths.items()}
    text = f"\n## {name}\n\n"
    for line in (dict(zip(widths, widths)), rule, *lines):
        text += "| " + " | ".join(line[key].ljust(widths[key]) for key in widths) + " |\n"
    return text


def remarks(rows: Sequence[Mapping]) -> list[tuple[str, str]]:
    """What the table of these records lacks or must be read with: (text, commands)."""
    lacking, differing, gaps = [], {}, {}
    for row in rows:
        if "job" in row:  # of an experiment: all gaps of a kind in one remark
            kind = "Missing" if "n" not in row else "Fewer images than planned"
            lines = row["commands"] if "n" not in row else row["more"]
            if lines:
                where, texts = gaps.setdefault(kind, ([], {}))
                where.append(f"{row['label']} at {row['task']}, {row['measurement']}")
                texts.update(dict.fromkeys(lines))
            if "n" not in row:
                continue
        where, commands = f"{row['label']} at {row['measurement']}", "\n".join(row["commands"])
        if commands:
            lacking.append(
                (
                    f"LMMSE of {where} is missing. Delete {', '.join(row['runs'])}, then run:"
                    if "n" in row
                    else f"Missing: {where}. These commands fill it:",
                    commands,
                )
            )
        if row.get("unpaired"):
            lacking.append(
                (
                    f"Δ of {where} leaves out {row['unpaired']}: it pairs runs of one "
                    "seed, image by image.",
                    "",
                )
            )
        if row.get("differs"):
            text = "; ".join(row["differs"]).replace(" there,", " in the baseline,")
            differing.setdefault(text, {}).setdefault(row["arm"], {})[row["measurement"]] = None
    lacking += [
        (
            f"{kind}, {len(where)} of {len(rows)} planned: {'; '.join(where)}. "
            "These commands fill them:",
            "\n".join(texts),
        )
        for kind, (where, texts) in gaps.items()
    ]
    return (
        lacking
        + [(text, "") for text in choices(rows)]
        + [
            (
                f"Settings of {' and '.join(arms)} differ from the baseline's at "
                f"{'; '.join(dict.fromkeys(chain(*arms.values())))}: {text}.",
                "",
            )
            for text, arms in differing.items()
        ]
    )


def choices(rows: Iterable[Mapping]) -> list[str]:
    """Which choices were made on what, where a row is of another protocol than the paper's."""
    rows = [row for row in rows if "n" in row]
    if all(row["protocol"] == "paper" for row in rows):
        return []
    told: dict[str, None] = {}
    for row in rows:
        for seed, text in zip(row["seeds"], row["choices"]):
            place = f"{row['arm']} at {row['measurement']}, seed {seed}, "
            told[(place if row["protocol"] == "fair" else "") + text] = None
    for case in dict.fromkeys((row["task"], row["measurement"]) for row in rows):
        budgets = {
            b
            for row in rows
            if (row["task"], row["measurement"]) == case
            for b in row["budgets"]
            if b
        }
        if len(budgets) > 1:
            told[
                f"Not fair at {', '.join(case)}: arms were tuned with different (trials, "
                "validation images, space, and of a first round images, trials kept): "
                f"{', '.join(str(b) for b in sorted(budgets))}."
            ] = None
        places = {row["arm"]: set() for row in rows}
        for row in rows:
            if (row["task"], row["measurement"]) == case:
                places[row["arm"]] |= {*row["tuned_at"]} - {""}
        tuned = {arm: listed(found) for arm, found in places.items() if found}
        if len({*tuned.values()}) > 1:
            told[
                f"Not fair at {', '.join(case)}: arms were tuned at different measurements: "
                + "; ".join(f"{arm} at {text}" for arm, text in tuned.items())
                + "."
            ] = None
    return [*told]
