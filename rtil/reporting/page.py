"""The page of a study: its sections under their headings, and the figures that go into it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from rtil.process.files import write_text
from rtil.reporting import compare, figures, pictures, sections
from rtil.reporting.arrange import Row, grouped
from rtil.reporting.figures.curves import draw_panels
from rtil.reporting.figures.forest import draw_forest
from rtil.reporting.figures.mosaic import draw_mosaic
from rtil.reporting.headline import first_of
from rtil.reporting.sections import Figure, Section, Text, paragraph, texts
from rtil.reporting.study import Study
from rtil.reporting.tables import overview, record, remarks

HEADINGS = ["Figures", "Tables", "Commands", "Samples", "Reconstructions", "Gallery", "Settings"]
# What the page of an experiment begins with.
FIRST = {
    "curves": "Figures",
    "pictures": "Reconstructions",
    "samples": "Samples",
    "differences": "Tables",
}
LONGEST = 180  # bytes of a file's name; file systems take 255
Sections = dict[str, list[Section]]


@dataclass(frozen=True)
class Look:
    """How a page is made: its folder, the baseline, images across figures and in galleries."""

    out: Path
    baseline: str
    columns: int
    gallery: int

    def file(self, *parts: str) -> Path:
        """A PNG file named after these; what a run calls itself stays inside the folder."""
        name = re.sub(r"[^\w.,=+@-]", "_", "-".join(parts).replace(" ", ""))
        if len(name.encode()) > LONGEST:
            digits = hashlib.sha256(name.encode()).hexdigest()[:8]
            name = f"{name.encode()[:LONGEST].decode(errors='ignore')}-{digits}"
        return self.out / f"{name}.png"


def sections_of(study: Study, look: Look, samples: Sequence[Section]) -> Sections:
    """Every heading with its sections; those without any are left out of an experiment's page."""
    tables, forests = compared(study, look)
    reconstructions, galleries = images(study, look)
    found: Sections = {
        "Figures": [*curves(study, look), *forests, *drawn(study, look)],
        "Tables": tables,
        "Commands": commands(study),
        "Samples": [*samples],
        "Reconstructions": reconstructions,
        "Gallery": galleries,
        "Settings": settings(study),
    }
    if study.source.packed:
        for heading in ("Samples", "Reconstructions", "Gallery"):
            found[heading] = [Text(paragraph("packed"))]
    if not study.plan:
        return found
    # The figure comes first; what an experiment is not made of is no gap.
    order = dict.fromkeys((FIRST[study.kind], *HEADINGS))
    return {heading: found[heading] for heading in order if found[heading]}


def curves(study: Study, look: Look) -> list[Section]:
    """PSNR over the knob of each series, or the curves of an experiment as the paper has them."""
    if study.kind not in ("", "curves"):
        return []
    panels: list[Section] = []
    if study.plan:
        plan = study.plan.experiment
        groups = grouped(study.rows, lambda row: (row.measurement.data, row.measurement.model))
        for (data, model), rows in groups.items():
            path = look.file("figure", plan["name"], data, model)
            draw_panels(rows, path, plan["figure"]["x"], plan.get("published", {}))
            panels.append(Figure(f"data={data}, model={model}", path))
        return [*panels, *texts("figure", plan=plan)]
    ran = [row for row in study.rows if not row.missing]
    for heading, rows in grouped(ran, lambda row: row.measurement.heading).items():
        path = look.file("psnr", *rows[0].measurement.series.values())
        draw_panels([*map(in_series, rows)], path, "value", {})
        panels.append(Figure(heading, path))
    return panels


def drawn(study: Study, look: Look) -> list[Section]:
    """Figures of modules that draw the rows of any page: each has a `FIGURE`."""
    ran = [row for row in study.rows if not row.missing]
    made: list[Section] = []
    for module in iter_modules(figures.__path__):
        draw = getattr(import_module(f"{figures.__name__}.{module.name}"), "FIGURE", None)
        path = look.file(module.name)
        title = draw(ran, path) if draw and ran else None
        if title:
            made.append(Figure(title, path))
    return made


def in_series(row: Row) -> Row:
    """A row in the one panel of its series, over its knob."""
    at = row.measurement
    panel = ", ".join(at.series.values())
    line = row.label + at.noise
    return replace(row, panel=panel, line=line, x=at.value)


def compared(study: Study, look: Look) -> tuple[list[Section], list[Section]]:
    """Every table with its remarks and how it is read, and the gains of protocols as figures."""
    tables: list[Section] = []
    if study.plan and study.kind == "differences":
        tables += [*compare.by_switch(study.rows, study.plan), *texts("switches")]
    series = grouped(study.rows, lambda row: row.measurement.heading)
    gains: list[Section] = []
    forests: list[Section] = []
    for heading, rows in series.items():
        tables += [overview(heading, rows, look.baseline), *remarks(rows)]
        # One protocol alone has its gains in the table.
        protocols = compare.by_protocol(heading, rows, look.baseline)
        shown = compare.drawable(rows)
        if protocols and shown:
            names = [*rows[0].measurement.series.values()]
            path = look.file("gains", *names)
            draw_forest(", ".join(names), shown, look.baseline, path)
            forests.append(Figure(f"Gains by protocol, {heading}", path))
        gains += protocols
    searches = compare.by_setting(study.rows, look.baseline)
    tables += [*gains, *texts("protocols")] if gains else []
    tables += [*searches, *texts("searches")] if searches else []
    return tables, forests


def commands(study: Study) -> list[Section]:
    """The commands behind the page, then those recorded by runs, each once.

    That is the last command behind each generator that was inverted, then behind each run: of
    those for the experiment, if any.
    """
    name = f"experiment={study.plan.experiment['name']}" if study.plan else ""
    # Many inversions share a generator.
    trained = {
        (run.path.parent.name, run.config.get("generator_sha256")): run.trained
        for run in study.runs
        if run.config.get("inverter.family") is not None
    }
    counts: Counter[str] = Counter()
    for history in (*trained.values(), *(run.recorded for run in study.runs)):
        own = [words for words in history if {name, f"+{name}"} & {*words}]
        # Only the last command that worked on a run: earlier ones were stopped, or asked for less.
        for program, *arguments in (own or history)[:1]:
            line = f"python -m rtil.{Path(program).stem} {shlex.join(arguments)}"
            counts[line.strip()] += 1
    lines = []
    for line, n in counts.items():
        what = "runs" if n > 1 else "run"
        lines.append(f"{line}    # {n} {what}")
    recorded = [Text("As recorded by the runs:", lines)] if lines else []
    return [Text(commands=study.commands), *recorded]


def images(study: Study, look: Look) -> tuple[list[Section], list[Section]]:
    """Mosaics and galleries."""
    shown = [row for row in study.rows if not row.missing and not study.source.packed]
    mosaics: list[Section] = []
    galleries: list[Section] = []
    for at, own in grouped(shown, lambda row: row.measurement).items():
        parts, names = pictures.parts_of(own), pictures.image_ids(own)
        rows = pictures.image_rows(parts, names[: look.columns])
        if rows:  # inversions may be asked to write no pictures
            title = f"{at.heading}, {at.text}"
            path = look.file("grid", *at.series.values(), at.text.replace(", ", "-"))
            draw_mosaic(rows, path)
            mosaics.append(Figure(title, path))
            # The first one is open; a browser draws the others when they are unfolded.
            unfold = not galleries
            galleries.append(pictures.gallery(title, parts, names[: look.gallery], unfold))
    return mosaics, galleries


def settings(study: Study) -> list[Section]:
    """Notes, then each run's settings."""
    folds: list[Section] = []
    for run in study.runs if study.rows else ():
        # The page has no address in it, not even of where the data came from.
        shown = {**run.config}
        shown.pop("data.origin", None)
        lines = [f"{key}: {value}" for key, value in shown.items()]
        folds.append(Text("\n".join(lines), fold=f"{run.path}, {len(run.rows)} images"))
    return [*map(Text, study.notes), *folds]


def written(text: str) -> str:
    """A text that a file can hold: half a character, as damaged names have them, is its code."""
    return text.encode(errors="backslashreplace").decode()


def write(study: Study, found: Sections, out: Path) -> Path:
    """Writes table.json, table.md and the page, whose path it returns; prints the tables."""
    reading = [paragraph("reading")] if study.rows else []
    head = "\n\n".join([f"# {study.title}", *reading, *study.notes]) + "\n"
    text = written(head + sections.markdown(found.get("Tables", ())))
    rows = json.dumps([record(row) for row in study.rows])
    # JSON has no NaN: an interval of one image is null.
    values = json.loads(rows, parse_constant=lambda _: None)
    write_text(out / "table.json", json.dumps(values, indent=1) + "\n")
    write_text(out / "table.md", text)
    page = out / "report.html"
    html = sections.page(study.title, study.lead, found, first_of(study))
    write_text(page, written(html))
    print(f"{text}\nPage: {page}")
    return page
