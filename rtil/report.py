"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

With `experiment=fig6_ilo` the page is that figure in the paper's arrangement, and names what is
missing. Every number comes from results*.jsonl. `rtil.cells` sorts runs into what is compared,
`rtil.planned` adds what an experiment planned, `rtil.table` holds the statistics (those between
settings of one arm: `rtil.differences`), `rtil.figures` and `rtil.panels` draw and `rtil.page`
writes HTML.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf

from rtil import checkpoint, differences, experiment, figures, page, panels, planned, results
from rtil.cells import WITHOUT_GENERATOR, Cell, Run, arrange, case_of, collect, inversions
from rtil.runtime import CONFIGS
from rtil.runtime import entry as run_entry
from rtil.table import READING, grid_text, records, reference, table_text


class Content(NamedTuple):
    """What a report is about; gaps are generators without samples, plan is the experiment's."""

    title: str
    cells: list[Cell]
    tables: list[list[dict]]
    runs: list[Run]
    notes: list[str]
    gaps: list[str]
    generators: dict[str, dict]
    commands: list[str]
    plan: Mapping


def everything(root: Path, baseline: str) -> Content:
    """All inversions below root; raises as `collect` does."""
    runs, notes = collect(root)
    cells = arrange(runs, baseline)
    if baseline not in (arms := sorted({run.config["rtil.name"] for run in runs})):
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    gaps: list[str] = []
    found = generators(cells, root, gaps)
    tables = [records(cell, baseline) for cell in cells]
    lines = [f"python -m rtil.report root={root}"]
    title = f"Inversions below {root}"
    return Content(title, cells, tables, runs, notes, gaps, found, lines, {})


def one(plan: Mapping, scale: str, root: Path, baseline: str) -> Content:
    """What an experiment has at a scale, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
    """
    runs, _ = inversions(root)
    notes = [plan["note"]] if plan.get("note") else []
    found = planned.belonging(runs, plan, scale)
    words = [f"scale={scale}", *([f"root={root}"] if str(root) != "runs" else [])]
    words += next(iter(planned.besides(runs, plan, scale)), ())
    cells = arrange([run for run, _ in found], baseline, planned.told(plan))
    cells = planned.by_switch(cells, found, plan)
    size = int(plan["common"]["num_images"]) // plan["sets"] if plan.get("sets") else 0
    tables = [records(cell._replace(missing=[]), baseline, size) for cell in cells]
    if plan["cells"]:
        cells, tables = planned.complete(cells, tables, found, plan, words)
    gaps: list[str] = []
    drawn = (generators(cells, root, gaps) if plan["cells"]
             else trained(plan, scale, root, words, notes))
    lines = [experiment.command(plan, "train", experiment.for_training(words))]
    lines += [experiment.command(plan, "invert", words)] if plan["cells"] else []
    if not found and not drawn:
        raise FileNotFoundError(
            f"report: nothing of experiment={plan['name']} at scale={scale} below {root}. Run it:"
            + "".join(f"\n    {line}" for line in lines))
    lines.append(experiment.command(plan, "report", [w for w in words if w.startswith(
        ("scale=", "scale.", "root="))]))
    runs = [run for run, _ in found]
    return Content(plan["title"], cells, tables, runs, notes, gaps, drawn, lines, plan)


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
            group = found.setdefault(", ".join([source, case.scale, case.model]), {})
            group[f"{arm} {digest[:8]}" if arm in group else arm] = loaded(path)
        except (KeyError, OSError, TypeError, ValueError) as error:
            notes.append(f"No samples of {arm} as inverted in {run.path}: {error}")
    return {name: group for name, group in found.items() if group}


def trained(
    plan: Mapping, scale: str, root: Path, words: list[str], notes: list[str]
) -> dict[str, dict]:
    """`generators` of an experiment without inversions; `notes` names those to be trained."""
    paths = [p.parent for p in sorted((root / "train").glob("*/config.yaml"))]
    runs = [Run(path, results.flatten(yaml.safe_load((path / "config.yaml").read_text())), {})
            for path in paths if (path / "generator.pt").exists()]
    found, done = {}, []
    for run, job in planned.belonging(runs, plan, scale, "train"):
        config, arm, path = run.config, run.config["rtil.name"], run.path
        place = (config.get("data.trained_on") or config["data.name"], scale, job["model"])
        group = found.setdefault(", ".join(map(str, place)), {})
        group[f"{arm} {path.name}" if arm in group else arm] = loaded(path / "generator.pt")
        done.append(job)
        if not experiment.trained(path):
            notes.append(f"{path} was stopped before its end.")
    for job in experiment.jobs(plan, "train"):
        if job not in done:
            line = experiment.command(plan, "train", words, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return found


def loaded(path: Path) -> tuple:
    """A generator and its family."""
    G, config = checkpoint.load_generator(path)
    return G, checkpoint.build(config["rtil"]["family"])


def pictured(cell: Cell, baseline: str) -> list[figures.Shown]:
    """What is shown of each entry: the run of its first seed, beside that of its baseline."""
    return [
        figures.Shown(e.label, e.runs[0].path / "images", e.runs[0].rows, b and b.runs[0].rows,
                      "-oracle" if e.oracle else "")
        for e in cell.entries for b in [reference(cell, e, baseline)]
    ]


def report(cfg: DictConfig) -> Path:
    """Writes tables, figures and the page, whose path it returns; raises as `collect` does."""
    root, baseline = Path(cfg.root), cfg.baseline
    if "experiment" in cfg:
        plan = OmegaConf.to_container(cfg.experiment, resolve=True)
        content = one(plan, cfg.scale.name, root, baseline)
        out = Path(cfg.out or root / "report" / f"{plan['name']}-{cfg.scale.name}")
    else:
        content, out = everything(root, baseline), Path(cfg.out or root / "report")
    out.mkdir(parents=True, exist_ok=True)
    html = dict.fromkeys(page.CAPTIONS, "")

    def add(section: str, name: str, kind: str, draw: Callable, *arguments: object) -> None:
        path = out / f"{kind}-{name.replace(', ', '-').replace(' ', '')}.png"
        draw(*arguments, path)
        html[section] += page.figure(path, name)

    text = tables(content, baseline, add, html)
    for name, found in content.generators.items():
        own = bool(content.plan) and content.plan["figure"]["kind"] == "samples"
        rows = figures.sample_rows(found, cfg.columns, content.gaps, own)
        if rows:
            add("Samples", name, "samples", figures.mosaic, rows)
    html["Samples"] += page.paragraphs(content.gaps)
    for cell in content.cells:
        name = ", ".join([*cell.case.series, cell.case.measurement])
        shown = pictured(cell, baseline)
        ids = sorted(set().union(*(s.rows for s in shown)))
        ids.sort(key=lambda i: sum(i not in s.rows for s in shown))  # those of every entry first
        rows = figures.image_rows(shown, ids[: cfg.columns])
        if rows:
            add("Reconstructions", name, "grid", figures.mosaic, rows)
            html["Gallery"] += page.gallery(name, shown, ids[: cfg.gallery])
    html["Commands"] = page.commands(content.commands, content.runs)
    html["Settings"] = page.paragraphs(content.notes) + page.settings(content.runs)
    if content.plan:  # what a figure is not made of is no gap
        html = {section: found for section, found in html.items() if found}
    values = json.loads(json.dumps([*chain(*content.tables)]), parse_constant=lambda _: None)
    results.write_text(out / "table.json", json.dumps(values, indent=1) + "\n")  # no NaN
    results.write_text(out / "table.md", text)
    results.write_text(out / "report.html", page.page(content.title, html))
    print(f"{text}\nPage: {out / 'report.html'}")
    return out / "report.html"


def tables(content: Content, baseline: str, add: Callable, html: dict[str, str]) -> str:
    """Draws the curves, adds the tables to the page, and returns them as Markdown."""
    reading = [READING] if content.tables else []
    text = "\n\n".join([f"# {content.title}", *reading, *content.notes]) + "\n"
    plan, rows_of = content.plan, {}
    for cell, table in zip(content.cells, content.tables):
        rows_of.setdefault(cell.case.series, []).extend(table)
    if plan and plan["figure"]["kind"] == "curves":
        places = dict.fromkeys((cell.case.data, cell.case.model) for cell in content.cells)
        for data, model in places:
            mine = [row for rows in rows_of.values() for row in rows
                    if (row["data"], row["model"]) == (data, model)]
            add("Figures", f"{plan['name']}, {data}, {model}", "figure", panels.panels, mine,
                plan["figure"], plan.get("published", {}))
        html["Figures"] += page.paragraphs(page.caption(plan))
    if plan and plan["figure"]["kind"] == "differences":
        for name, lines in differences.tables(content.cells, plan).items():
            html["Tables"] += page.plain_table(name, lines)
            text += grid_text(name, lines)
        html["Tables"] += page.paragraphs([differences.READING])
        text += f"\n{differences.READING}\n"
    for series, rows in rows_of.items():
        name = ", ".join(series)
        if not plan:
            add("Figures", name, "psnr", figures.curves, name, rows)
        html["Tables"] += page.table_html(name, rows, baseline)
        text += table_text(name, rows, baseline)
    return text


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_entry(lambda: (report(cfg), None)[1])


if __name__ == "__main__":
    main()
