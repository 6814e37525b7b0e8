"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

Every number comes from results*.jsonl. Runs are sorted into cells (one task, knob, inverter, data,
scale and model); a cell has one entry for each arm (rtil=...) and each choice of settings, whose
runs differ in their seed only. Drawing and HTML live in `rtil.figures`. A new column is one key in
METRICS and one line in `rtil.figures.table`.
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import hydra
import numpy as np
import yaml
from omegaconf import DictConfig

from rtil import checkpoint, figures, results
from rtil.metrics import mean_ci, paired_ci
from rtil.operators import KNOBS, NONLINEAR
from rtil.runtime import CONFIGS
from rtil.runtime import entry as run_entry

METRICS = ("psnr_db", "ssim", "lpips", "oracle_psnr_db", "last_psnr_db", "last_ssim",
           "lmmse_psnr_db", "lmmse_ssim")
NEEDED = (*(f"{g}.name" for g in ("model", "rtil", "data", "scale", "task", "inverter")), "seed")
# Keys that the cell or the arm stands for, or that leave two runs comparable.
SAME = (*results.FREE_INVERT, "seed", "generator_sha256", "yardstick", "metrics.lpips",
        "data.origin", "rtil.name", "noise_std", *KNOBS)
NOT_COPIED = {*results.GROUPS, *results.NOT_IN_NAME, *results.FREE_INVERT, "generator_sha256",
              "seed", "noise_std", *KNOBS, "yardstick.use"} - {"num_images"}
TRAINING = ("model", "rtil", "data", "resolution", "image_channels")
WITHOUT_GENERATOR = ("adjoint", "lmmse", "tv")  # inverters whose result is the same for every arm


class Run(NamedTuple):
    """An inversion's directory: config flattened to {"a.b": value}, rows by image id."""

    path: Path
    config: dict[str, object]
    rows: dict[str, dict]


class Case(NamedTuple):
    """What the runs of a cell share; value is that of the task's knob."""

    task: str
    inverter: str
    data: str
    scale: str
    model: str
    knob: str
    noise_std: float
    value: float

    @property
    def series(self) -> tuple[str, ...]:
        """What the cells of one figure share."""
        return self[:5]

    @property
    def measurement(self) -> str:
        """For example "ratio 0.05, noise 0.01"."""
        noise = self.noise_std if self.knob != "noise_std" else 0.0
        return f"{self.knob} {self.value:g}" + (f", noise {noise:g}" if noise else "")


class Entry(NamedTuple):
    """One arm of a cell under one choice of settings (those that tell it apart): a run a seed."""

    arm: str
    settings: dict[str, str]
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return ", ".join([self.arm, *(f"{k}={v}" for k, v in self.settings.items())])


class Cell(NamedTuple):
    """A case, its entries (baseline first) and the arms that were not run."""

    case: Case
    entries: list[Entry]
    missing: list[str]


def collect(root: Path) -> tuple[list[Run], list[str]]:
    """Reads every inversion below <root>/invert; the notes name those without rows.

    Raises:
        FileNotFoundError: none has rows. ValueError: one cannot be read.
    """
    paths = sorted((root / "invert").rglob("config.yaml"))
    runs = [read_run(p.parent) for p in paths if any(p.parent.glob("results*.jsonl"))]
    notes = [f"{run.path} has no rows yet." for run in runs if not run.rows]
    runs = [run for run in runs if run.rows]
    if not runs:
        make = "".join(f"\n    python -m rtil.{part} rtil={arm} root={root}"
                       for part in ("train", "invert") for arm in ("vanilla", "ilo"))
        raise FileNotFoundError(
            f"report: no inversion with results below {root / 'invert'}. Make some:{make}")
    return runs, notes


def read_run(directory: Path) -> Run:
    """Reads one run; raises ValueError as `collect` says."""
    try:
        config = results.flatten(yaml.safe_load((directory / "config.yaml").read_text()) or {})
        rows = {str(row["id"]): row for row in results.result_rows(directory)}
        bad = [key for key in NEEDED if key not in config]
        bad += [f"psnr_db of image {i}" for i, r in rows.items() if not _is_number(r["psnr_db"])]
        if bad:
            raise ValueError(f"no {', '.join(bad)}")
    except (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError) as error:
        raise ValueError(
            f"report: {directory} cannot be read as an inversion ({type(error).__name__}: "
            f"{error}). Delete it and run its command again, or move it out of the way."
        ) from error
    return Run(directory, config, rows)


def case_of(run: Run) -> Case:
    """The cell that a run belongs to."""
    config, data = run.config, str(run.config["data.name"])
    if data == "folder" and config.get("data.path"):
        data = f"folder-{Path(str(config['data.path'])).stem}"
    knob = next((key for key in KNOBS if key in config), "noise_std")
    noise = float(config.get("noise_std") or 0.0)
    task, inverter, scale, model = (
        str(config[f"{group}.name"]) for group in ("task", "inverter", "scale", "model"))
    return Case(task, inverter, data, scale, model, knob, noise, float(config.get(knob) or 0.0))


def arrange(runs: Iterable[Run], baseline: str) -> list[Cell]:
    """Sorts runs into cells and entries, and names the arms that a cell lacks.

    It lacks the baseline, every arm run elsewhere in its series, and where a series has the
    baseline alone, the family that the inverter was proposed with.
    """
    series: dict[tuple, list[Run]] = {}
    for run in runs:
        series.setdefault(case_of(run).series, []).append(run)
    cells = []
    for group in series.values():
        places: dict[tuple[Case, str], list[Run]] = {}
        for run in group:
            places.setdefault((case_of(run), run.config["rtil.name"]), []).append(run)
        arms = {arm for _, arm in places}
        inverter = group[0].config["inverter.name"]
        if inverter not in WITHOUT_GENERATOR:
            partner = "mgan" if inverter == "mgan" else "ilo"
            arms |= {baseline} if arms != {baseline} else {partner}
        order = sorted(arms, key=lambda arm: (arm != baseline, arm))
        keys = {a: distinguishing([r for (_, b), r in places.items() if a == b]) for a in order}
        shared = {key for found in keys.values() for key in found if not key.startswith("rtil.")}
        for case in dict.fromkeys(case for case, _ in places):
            entries = [e for arm in order for e in entries_of(
                arm, places.get((case, arm), ()), {*keys[arm], *shared})]
            missing = [arm for arm in order if (case, arm) not in places]
            cells.append(Cell(case, entries, missing))
    return sorted(cells, key=lambda cell: cell.case)


def distinguishing(places: Iterable[Sequence[Run]]) -> set[str]:
    """Settings in which runs of one arm differ within some cell."""
    return {
        line.partition(": ")[0] for runs in places for run in runs
        for line in results.differing_keys(runs[0].config, run.config, SAME)
    }


def entries_of(arm: str, runs: Sequence[Run], keys: Iterable[str]) -> list[Entry]:
    """Groups runs by those settings; runs that share even their seed are told apart as well."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        settings = {key: _text(run.config[key]) for key in sorted(keys) if key in run.config}
        groups.setdefault(tuple(settings.items()), []).append(run)
    entries = []
    for settings, group in sorted(groups.items()):
        group = sorted(group, key=lambda run: (run.config["seed"], str(run.path)))
        if len({run.config["seed"] for run in group}) == len(group):
            entries.append(Entry(arm, dict(settings), tuple(group)))
            continue
        digests = [str(run.config.get("generator_sha256"))[:8] for run in group]
        for run, digest in zip(group, digests):
            extra = {"run_dir": str(run.path)} if digests.count(digest) > 1 else {}
            told = {**dict(settings), "generator_sha256": digest, **extra}
            entries.append(Entry(arm, told, (run,)))
    return entries


def per_image(entry: Entry, metric: str) -> dict[str, float]:
    """Value of each image that has one, averaged over the seeds that hold the image."""
    values: dict[str, list[float]] = {}
    for run in entry.runs:
        for name, row in run.rows.items():
            if _is_number(row.get(metric)):
                values.setdefault(name, []).append(float(row[metric]))
    return {name: float(np.mean(v)) for name, v in sorted(values.items())}


def estimate(values: Mapping[str, float]) -> dict | None:
    """Mean, half-width of its 95 % confidence interval and n; None without values."""
    if not values:
        return None
    mean, half_width = mean_ci(list(values.values()))
    return {"mean": mean, "ci95": half_width, "n": len(values)}


def difference(a: Mapping[str, float], b: Mapping[str, float]) -> dict | None:
    """`estimate` of a - b over the images that both have."""
    common = [name for name in a if name in b]
    if not common:
        return None
    # Two infinite PSNRs are equal, though their difference is not a number.
    pairs = [(a[name], b[name]) if a[name] != b[name] else (0.0, 0.0) for name in common]
    mean, half_width = paired_ci(*zip(*pairs))
    return {"mean": mean, "ci95": half_width, "n": len(common)}


def reference(cell: Cell, entry: Entry, baseline: str) -> Entry | None:
    """The baseline's entry that `entry` is paired with: with its settings, or the only one."""
    if entry.arm == baseline:
        return None
    found = [e for e in cell.entries if e.arm == baseline]
    names = {key for e in found for key in e.settings if not key.startswith("rtil.")}
    same = [e for e in found if all(e.settings.get(k) == entry.settings.get(k) for k in names)]
    return same[0] if len(same) == 1 else found[0] if len(found) == 1 else None


def records(cell: Cell, baseline: str) -> list[dict]:
    """Every number of the cell, a record for each entry and, without "n", for each missing arm."""
    found, common = [], {**cell.case._asdict(), "measurement": cell.case.measurement}
    for entry in cell.entries:
        values = {metric: per_image(entry, metric) for metric in METRICS}
        base = reference(cell, entry, baseline)
        row = {
            **common, "arm": entry.arm, "settings": entry.settings, "label": entry.label,
            "seeds": [run.config["seed"] for run in entry.runs], "n": len(values["psnr_db"]),
            **{metric: estimate(values[metric]) for metric in METRICS},
            "baseline": base and base.label, "runs": [str(run.path) for run in entry.runs],
            "differs": [], "commands": [],
        }
        for key in ("psnr_db", "ssim"):
            row[f"gain_{key}"] = difference(values[key], per_image(base, key) if base else {})
        if base:
            configs = base.runs[0].config, entry.runs[0].config
            row["differs"] = results.differing_keys(*configs, (*SAME, "rtil"))
        if not row["lmmse_psnr_db"] and cell.case.task not in NONLINEAR:  # what fills it in
            lines = [commands(run, entry)[1] for run in entry.runs]
            row["commands"] = [f"{line} yardstick.use=true" for line in lines]
        found.append(row)
    for arm in cell.missing:
        pairs = [commands(run, e._replace(arm=arm)) for e in cell.entries for run in e.runs]
        lines = dict.fromkeys(chain(*pairs))
        found.append({**common, "arm": arm, "label": arm, "commands": [*lines]})
    return found


def commands(run: Run, entry: Entry) -> tuple[str, str]:
    """The training and the inversion that give entry.arm under the choices of a run.

    They repeat the run's groups, seed, knob and settings, and what its own command set besides.
    """
    config, case, provenance = run.config, case_of(run), run.path / "provenance.json"
    argv = json.loads(provenance.read_text())["command"] if provenance.exists() else []
    given = {text.lstrip("+~").partition("=")[0] for text in argv[1:]}
    keys = sorted({*entry.settings, *given} & config.keys() - NOT_COPIED)
    kept = {key: config[key] for key in keys
            if entry.arm == config["rtil.name"] or not key.startswith("rtil.")}
    source = config.get("data.trained_on") or config["data.name"]
    path = {"data.path": config["data.path"]} if config.get("data.path") else {}
    root = {"root": config["root"]} if config.get("root", "runs") != "runs" else {}
    train = {
        "model": case.model, "rtil": entry.arm, "data": source, "scale": case.scale,
        "seed": config["seed"], **root, **(path if source == config["data.name"] else {}),
        **{key: value for key, value in kept.items() if key.partition(".")[0] in TRAINING},
    }
    invert = {
        **train, "data": config["data.name"], **path, "task": case.task,
        case.knob: config.get(case.knob, 0.0), "noise_std": case.noise_std,
        "inverter": case.inverter, **kept,
    }

    def line(part: str, choices: Mapping[str, object]) -> str:
        texts = [shlex.quote(f"{key}={_text(value)}") for key, value in choices.items()]
        return " ".join([f"python -m rtil.{part}", *texts])

    return line("train", train), line("invert", invert)


def generators(cells: Iterable[Cell], root: Path, notes: list[str]) -> dict[str, dict]:
    """{"data, scale, model": {arm: (G, its family)}} of the generators that were inverted.

    Of several seeds the first one's is taken; `notes` gets a line for each file that is gone.
    """
    found, seen = {}, set()
    for run in (entry.runs[0] for cell in cells for entry in cell.entries):
        config, case, arm = run.config, case_of(run), run.config["rtil.name"]
        digest = str(config.get("generator_sha256"))
        if (arm, digest) in seen or case.inverter in WITHOUT_GENERATOR:
            continue
        seen.add((arm, digest))
        path = config.get("generator") or root / "train" / run.path.parent.name / "generator.pt"
        path, source = Path(path), config.get("data.trained_on", config["data.name"])
        source = case.data if source == config["data.name"] else source
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise ValueError(f"{path} has changed since the inversion.")
            G, trained = checkpoint.load_generator(path)
            family = checkpoint.build(trained["rtil"]["family"])
            group = found.setdefault(", ".join([source, case.scale, case.model]), {})
            group[f"{arm} {digest[:8]}" if arm in group else arm] = G, family
        except (KeyError, OSError, TypeError, ValueError) as error:
            notes.append(f"No samples of {arm} as inverted in {run.path}: {error}")
    return found


def pictured(cell: Cell, baseline: str) -> list[figures.Shown]:
    """What is shown of each entry: the run of its first seed, beside that of its baseline."""
    return [
        figures.Shown(e.label, e.runs[0].path / "images", e.runs[0].rows, b and b.runs[0].rows)
        for e in cell.entries for b in [reference(cell, e, baseline)]
    ]


def report(cfg: DictConfig) -> Path:
    """Writes tables, figures and the page, whose path it returns; raises as `collect` does."""
    root, baseline = Path(cfg.root), cfg.baseline
    out = Path(cfg.out or root / "report")
    runs, notes = collect(root)
    cells = arrange(runs, baseline)
    tables = [records(cell, baseline) for cell in cells]
    if baseline not in (arms := sorted({run.config["rtil.name"] for run in runs})):
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    out.mkdir(parents=True, exist_ok=True)
    title = f"Inversions below {root}"
    html = dict.fromkeys(figures.CAPTIONS, "")
    text = "\n\n".join([f"# {title}", figures.READING, *notes]) + "\n"

    def add(section: str, name: str, kind: str, draw: Callable, *content: object) -> None:
        path = out / f"{kind}-{name.replace(', ', '-').replace(' ', '')}.png"
        draw(*content, path)
        html[section] += figures.figure(path, name)

    for series in dict.fromkeys(cell.case.series for cell in cells):
        name = ", ".join(series)
        rows = [r for cell, t in zip(cells, tables) for r in t if cell.case.series == series]
        add("Figures", name, "psnr", figures.curves, name, rows)
        html["Tables"] += figures.table_html(name, rows, baseline)
        text += figures.table_text(name, rows, baseline)
    gaps: list[str] = []
    for name, found in generators(cells, root, gaps).items():
        rows = figures.sample_rows(found, cfg.columns, gaps)
        if rows:
            add("Samples", name, "samples", figures.mosaic, rows)
    html["Samples"] += figures.paragraphs(gaps)
    for cell in cells:
        name = ", ".join([*cell.case.series, cell.case.measurement])
        shown = pictured(cell, baseline)
        ids = sorted(set().union(*(s.rows for s in shown)))
        ids.sort(key=lambda i: sum(i not in s.rows for s in shown))  # those of every entry first
        rows = figures.image_rows(shown, ids[: cfg.columns])
        if rows:
            add("Reconstructions", name, "grid", figures.mosaic, rows)
            html["Gallery"] += figures.gallery(name, shown, ids[: cfg.gallery])
    html["Settings"] = figures.paragraphs(notes) + figures.settings(runs)
    values = json.loads(json.dumps([*chain(*tables)]), parse_constant=lambda _: None)  # no NaN
    results.write_text(out / "table.json", json.dumps(values, indent=1) + "\n")
    results.write_text(out / "table.md", text)
    results.write_text(out / "report.html", figures.page(title, html))
    print(f"{text}\nPage: {out / 'report.html'}")
    return out / "report.html"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_entry(lambda: (report(cfg), None)[1])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not math.isnan(value)


def _text(value: object) -> str:
    """A setting as Hydra reads it on a command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


if __name__ == "__main__":
    main()
