"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

With `experiment=fig6_ilo` the page is that figure in the paper's arrangement, and names what is
missing. Every number comes from results*.jsonl, or with `results=` from the file that `pack=` made
of them (`rtil.runs.archive`). `rtil.reporting.cells` sorts runs into what is compared,
`rtil.reporting.planned` adds what an experiment planned, `rtil.reporting.table` holds the
statistics (those between settings of one arm: `rtil.reporting.differences`, between protocols:
`rtil.reporting.gains`, at settings drawn at random: `rtil.reporting.robustness`),
`rtil.reporting.figures` and `rtil.reporting.panels` draw and `rtil.reporting.page` writes HTML.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import hydra
from omegaconf import DictConfig, OmegaConf

from rtil import checkpoint
from rtil.experiments import plan as experiment
from rtil.experiments.check import trained as is_trained
from rtil.process.command import CONFIGS
from rtil.process.command import entry as run_entry
from rtil.process.files import write_text
from rtil.process.instantiate import instantiate
from rtil.reporting import differences, figures, gains, page, panels, planned, robustness
from rtil.reporting.cells import WITHOUT_GENERATOR, Cell, arrange, case_of
from rtil.reporting.table import READING, grid_text, records, reference, table_text
from rtil.runs import archive
from rtil.runs.run import Run, collect, generator_file, inversions, trainings

FIRST = {
    "curves": "Figures",
    "pictures": "Reconstructions",
    "samples": "Samples",
    "differences": "Tables",
}


class Content(NamedTuple):
    """What a report is about; gaps are generators without samples, plan is the experiment's.

    generators is {(data, scale, model): {arm: (G, its family)}}, recorded are the commands of the
    runs, trainings first.
    """

    title: str
    cells: list[Cell]
    tables: list[list[dict]]
    runs: list[Run]
    notes: list[str]
    gaps: list[str]
    generators: dict[tuple, dict]
    recorded: list[list[str]]
    commands: list[str]
    plan: Mapping


def everything(root: Path, baseline: str, rows: Path | Sequence[Path] | None = None) -> Content:
    """All inversions below root, or those packed in `rows`; raises as `collect` or `read` do."""
    runs, notes = archive.read(rows) if rows else collect(root)
    cells = arrange(runs, baseline)
    if baseline not in (arms := sorted({run.config["rtil.name"] for run in runs})):
        notes.append(f"No run has rtil={baseline}: choose baseline= among {', '.join(arms)}.")
    gaps: list[str] = []
    found = {} if rows else generators(cells, root, gaps)
    tables = [records(cell, baseline) for cell in cells]
    given = f"results={archive.told(rows)}" if rows else f"root={root}"
    lines = [f"python -m rtil.report {shlex.quote(given)}"]
    title = f"Inversions in {archive.told(rows)}" if rows else f"Inversions below {root}"
    recorded = last_commands(histories(runs))
    return Content(title, cells, tables, runs, notes, gaps, found, recorded, lines, {})


def one(
    plan: Mapping, scale: str, root: Path, baseline: str, rows: Path | Sequence[Path] | None = None
) -> Content:
    """What an experiment has at a scale below root, or packed in `rows`, and what it lacks.

    Raises:
        FileNotFoundError: it has nothing yet; the message holds the commands that run it.
        ValueError: it is made of generators alone, which packed rows do not hold.
    """
    if rows and not plan["cells"]:
        raise ValueError(
            f"report: experiment={plan['name']} shows generators, and "
            f"{archive.told(rows)} holds inversions alone. Make it from the runs: "
            "leave out results=."
        )
    part = "invert" if plan["cells"] else "train"
    runs, notes = (
        archive.read(rows)
        if rows
        else (inversions(root)[0] if plan["cells"] else trainings(root), [])
    )
    notes = [*([plan["note"]] if plan.get("note") else []), *notes]
    words = [f"scale={scale}", *([f"root={root}"] if str(root) != "runs" else [])]
    words += next(iter(planned.besides(runs, plan, scale, part)), ())
    found = planned.belonging(runs, plan, scale, part)
    if part == "invert":
        whole, found = found, planned.on_the_same_images(found)
        cut = sum(len(a.rows) > len(b.rows) for (a, _), (b, _) in zip(whole, found))
        notes += (
            [
                f"{cut} of {len(found)} inversions have more images than this plan asks for; "
                "those that the others have are shown."
            ]
            if cut
            else []
        )
    runs, gaps, cells, tables = [run for run, _ in found], [], [], []
    if part == "invert":
        cells = arrange(runs, baseline, planned.told(plan))
        cells = planned.by_switch(cells, found, plan)
        size = int(plan["common"]["num_images"]) // plan["sets"] if plan.get("sets") else 0
        tables = [records(cell._replace(missing=[]), baseline, size) for cell in cells]
        cells, tables = planned.complete(cells, tables, found, plan, words)
        drawn = {} if rows else generators(cells, root, gaps)
        recorded = last_commands(histories(runs), plan["name"])
        lines = [
            experiment.command(plan, "train", experiment.for_training(words)),
            *planned.tuning_commands(plan, words),
            experiment.command(plan, "invert", words),
        ]
    else:
        drawn = trained(plan, found, words, notes)
        recorded, runs = last_commands([run.recorded for run in runs], plan["name"]), []
        lines = [experiment.command(plan, "train", words)]
    if not found:
        raise FileNotFoundError(
            f"report: nothing of experiment={plan['name']} at scale={scale} "
            f"{f'in {archive.told(rows)}' if rows else f'below {root}'}. Run it:"
            + "".join(f"\n    {line}" for line in lines)
        )
    lines.append(
        experiment.command(
            plan,
            "report",
            [w for w in words if w.startswith(("scale=", "scale.", "root="))]
            + ([f"results={archive.told(rows)}"] if rows else []),
        )
    )
    return Content(plan["title"], cells, tables, runs, notes, gaps, drawn, recorded, lines, plan)


def histories(runs: Sequence[Run]) -> list[Sequence[list[str]]]:
    """Commands behind each generator that was inverted, then those behind each inversion."""
    trained = {
        (run.path.parent.name, run.config.get("generator_sha256")): run.trained
        for run in runs
        if run.config["inverter.name"] not in WITHOUT_GENERATOR
    }
    return [*trained.values(), *(run.recorded for run in runs)]


def last_commands(histories: Iterable[Sequence[list[str]]], name: str = "") -> list[list[str]]:
    """The last command of each history, of those for an experiment where there are any."""
    found = []
    for recorded in histories:
        found += (planned.commands_for(recorded, name) or recorded)[:1]
    return found


def generators(cells: Iterable[Cell], root: Path, notes: list[str]) -> dict[tuple, dict]:
    """{(data, scale, model): {arm: (G, its family)}} of the generators that were inverted.

    Of several seeds the first one's is taken; `notes` gets a line for each file that is gone.
    """
    found, seen = {}, set()
    for run in (entry.runs[0] for cell in cells for entry in cell.entries):
        config, case, arm = run.config, case_of(run), run.config["rtil.name"]
        digest = str(config.get("generator_sha256"))
        if (arm, digest) in seen or case.inverter in WITHOUT_GENERATOR:
            continue
        seen.add((arm, digest))
        path = generator_file(run, root)
        source = config.get("data.trained_on", config["data.name"])
        source = case.data if source == config["data.name"] else source
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
                raise ValueError(f"{path} has changed since the inversion.")
            group = found.setdefault((source, case.scale, case.model), {})
            group[f"{arm} {digest[:8]}" if arm in group else arm] = loaded(path)
        except (KeyError, OSError, TypeError, ValueError) as error:
            notes.append(f"No samples of {arm} as inverted in {run.path}: {error}")
    return {name: group for name, group in found.items() if group}


def trained(
    plan: Mapping, found: list[tuple[Run, planned.Job]], words: list[str], notes: list[str]
) -> dict[tuple, dict]:
    """`generators` of an experiment without inversions, found among `trainings`.

    `notes` names those that are to be trained.
    """
    drawn, jobs = {}, experiment.jobs(plan, "train")
    order = {json.dumps(job): number for number, job in enumerate(jobs)}
    for run, job in sorted(found, key=lambda f: order.get(json.dumps(f[1]), len(order))):
        config, arm, path = run.config, run.config["rtil.name"], run.path
        source = config.get("data.trained_on") or config["data.name"]
        group = drawn.setdefault((source, config["scale.name"], job["model"]), {})
        group[f"{arm} {path.name}" if arm in group else arm] = loaded(path / "generator.pt")
        if not is_trained(path):
            notes.append(f"{path} was stopped before its end.")
    for job in jobs:
        if job not in [job for _, job in found]:
            line = experiment.command(plan, "train", words, job)
            notes.append(f"Missing: {job['model']}, {job['rtil']}. It is trained by: {line}")
    return drawn


def loaded(path: Path) -> tuple:
    """A generator and its family."""
    G, config = checkpoint.load_generator(path)
    return G, instantiate(config["rtil"]["family"])


def pictured(cell: Cell, baseline: str) -> list[figures.Shown]:
    """What is shown of each entry: the run of its first seed, beside that of its baseline."""
    return [
        figures.Shown(
            e.label,
            e.runs[0].path / "images",
            e.runs[0].rows,
            b and b.runs[0].rows,
            "-oracle" if e.oracle else "",
        )
        for e in cell.entries
        for b in [reference(cell, e, baseline)]
    ]


def packed_rows(cfg: DictConfig) -> Path | list[Path] | None:
    """What cfg.results names: one file or folder, or each of a list."""
    if OmegaConf.is_list(cfg.results):
        return [Path(place) for place in cfg.results] or None
    return Path(cfg.results) if cfg.results else None


def report(cfg: DictConfig) -> Path:
    """Writes tables, figures and the page, whose path it returns; raises as `collect` does.

    With cfg.results they are made from packed rows, without anything that needs an image.
    """
    root, baseline, rows = Path(cfg.root), cfg.baseline, packed_rows(cfg)
    place = root / "report"
    if rows:
        place /= "+".join(path.stem for path in ([rows] if isinstance(rows, Path) else rows))
    if "experiment" in cfg:
        plan = OmegaConf.to_container(cfg.experiment, resolve=True)
        content = one(plan, cfg.scale.name, root, baseline, rows)
        out = Path(cfg.out or place / f"{plan['name']}-{cfg.scale.name}")
    else:
        content, out = everything(root, baseline, rows), Path(cfg.out or place)
    out.mkdir(parents=True, exist_ok=True)
    html = dict.fromkeys(page.CAPTIONS, "")

    def add(section: str, heading: str, name: str, draw: Callable, *arguments: object) -> None:
        path = out / f"{name.replace(' ', '')}.png"
        draw(*arguments, path)
        html[section] += page.figure(path, heading)

    text = tables(content, baseline, add, html)
    for place, found in content.generators.items():
        heading = ", ".join(map("=".join, zip(("data", "scale", "model"), place)))
        own = bool(content.plan) and content.plan["figure"]["kind"] == "samples"
        samples = figures.sample_rows(found, cfg.columns, content.gaps, own)
        if samples:
            add("Samples", heading, "-".join(["samples", *place]), figures.mosaic, samples)
    html["Samples"] += page.paragraphs(content.gaps)
    for section in ("Samples", "Reconstructions", "Gallery") if rows else ():
        html[section] = page.paragraphs([archive.WITHOUT_PICTURES])
    for cell in () if rows else content.cells:
        heading = f"{cell.case.heading}, {cell.case.measurement}"
        shown = pictured(cell, baseline)
        ids = sorted(set().union(*(s.rows for s in shown)))
        ids.sort(key=lambda i: sum(i not in s.rows for s in shown))  # those of every entry first
        images = figures.image_rows(shown, ids[: cfg.columns])
        if images:
            measurement = cell.case.measurement.replace(", ", "-")
            name = "-".join(["grid", *cell.case.series, measurement])
            add("Reconstructions", heading, name, figures.mosaic, images)
            html["Gallery"] += page.gallery(
                heading, shown, ids[: cfg.gallery], unfold=not html["Gallery"]
            )
    html["Commands"] = page.commands(content.commands, content.recorded)
    html["Settings"] = page.paragraphs(content.notes) + page.settings(content.runs)
    if content.plan:  # what a figure is not made of is no gap
        first = FIRST[content.plan["figure"]["kind"]]
        html = {s: html[s] for s in dict.fromkeys((first, *html)) if html[s]}
    values = json.loads(json.dumps([*chain(*content.tables)]), parse_constant=lambda _: None)
    write_text(out / "table.json", json.dumps(values, indent=1) + "\n")  # no NaN
    write_text(out / "table.md", text)
    write_text(out / "report.html", page.page(content.title, lead(content), html))
    print(f"{text}\nPage: {out / 'report.html'}")
    return out / "report.html"


def pack(cfg: DictConfig) -> Path:
    """Writes the inversions below cfg.root, or those of an experiment, to the file cfg.pack.

    Raises:
        FileNotFoundError: there are none. ValueError: as `collect` and `rtil.runs.archive.write`
        say.
    """
    if cfg.results:
        raise ValueError(
            "report: pack= writes what is below root=, results= reads what was "
            "packed: give one of them."
        )
    root, runs = Path(cfg.root), collect(Path(cfg.root))[0]
    if "experiment" in cfg:
        plan = OmegaConf.to_container(cfg.experiment, resolve=True)
        runs = [run for run, _ in planned.belonging(runs, plan, cfg.scale.name)]
        if not runs:
            raise FileNotFoundError(
                f"report: no inversion of experiment={plan['name']} at scale={cfg.scale.name} "
                f"below {root}. python -m rtil.report experiment={plan['name']} root={root} "
                "names the commands that run it."
            )
    print(archive.write(runs, root, Path(cfg.pack)))
    return Path(cfg.pack)


def tables(content: Content, baseline: str, add: Callable, html: dict[str, str]) -> str:
    """Draws the curves, adds the tables to the page, and returns them as Markdown."""
    reading = [READING] if content.tables else []
    text = "\n\n".join([f"# {content.title}", *reading, *content.notes]) + "\n"
    plan, rows_of = content.plan, {}
    for cell, table in zip(content.cells, content.tables):
        place = cell.case.series, cell.case.heading
        rows_of.setdefault(place, []).extend(table)
    if plan and plan["figure"]["kind"] == "curves":
        places = dict.fromkeys((cell.case.data, cell.case.model) for cell in content.cells)
        for data, model in places:
            mine = [
                row
                for rows in rows_of.values()
                for row in rows
                if (row["data"], row["model"]) == (data, model)
            ]
            add(
                "Figures",
                f"data={data}, model={model}",
                f"figure-{plan['name']}-{data}-{model}",
                panels.panels,
                mine,
                plan["figure"],
                plan.get("published", {}),
            )
        html["Figures"] += page.paragraphs(page.caption(plan))
    if plan and plan["figure"]["kind"] == "differences":
        for name, lines in differences.tables(content.cells, plan).items():
            html["Tables"] += page.plain_table(name, lines)
            text += grid_text(name, lines)
        html["Tables"] += page.paragraphs([differences.READING])
        text += f"\n{differences.READING}\n"
    for (series, heading), rows in rows_of.items():
        if not plan:
            add(
                "Figures",
                heading,
                "-".join(["psnr", *series]),
                figures.curves,
                ", ".join(series),
                rows,
            )
        html["Tables"] += page.table_html(heading, rows, baseline)
        text += table_text(heading, rows, baseline)
    sides = {place: gains.gains(rows, baseline) for place, rows in rows_of.items()}
    for (series, heading), lines in ((place, lines) for place, lines in sides.items() if lines):
        name = f"Gains by protocol, {heading}"
        drawn = gains.shown(rows_of[series, heading])
        if drawn:
            add(
                "Figures",
                name,
                "-".join(["gains", *series]),
                figures.forest,
                ", ".join(series),
                drawn,
                baseline,
            )
        html["Tables"] += page.plain_table(name, lines)
        text += grid_text(name, lines)
    if any(sides.values()):
        html["Tables"] += page.paragraphs([gains.READING])
        text += f"\n{gains.READING}\n"
    tried = robustness.tables(content.cells, baseline)
    for name, lines in tried.items():
        html["Tables"] += page.plain_table(name, lines)
        text += grid_text(name, lines)
    if tried:
        html["Tables"] += page.paragraphs([robustness.READING])
        text += f"\n{robustness.READING}\n"
    return text


def lead(content: Content) -> str:
    """How much of what the page is about is there."""
    rows = [*chain(*content.tables)]
    if not rows:
        number = sum(map(len, content.generators.values()))
        return " ".join([f"{number} generators.", *content.notes])
    gone, fewer = sum("n" not in row for row in rows), sum(bool(row.get("more")) for row in rows)
    gaps = [f"{gone} missing"] * bool(gone)
    gaps += [f"{fewer} with fewer images than planned"] * bool(fewer)
    found = f"{', '.join(gaps)}; the tables name the commands." if gaps else "all there."
    return f"{len(rows)} entries, each an arm at a measurement: {found}"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_entry(lambda: (pack(cfg) if cfg.pack else report(cfg), None)[1])


if __name__ == "__main__":
    main()
