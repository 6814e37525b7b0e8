"""The page of a study: its sections under their headings, and the figures that go into it."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtil.experiments.members import commands_for
from rtil.reporting import compare, pictures
from rtil.reporting.arrange import Row
from rtil.reporting.figures.curves import draw_panels
from rtil.reporting.figures.forest import draw_forest
from rtil.reporting.figures.mosaic import draw_mosaic
from rtil.reporting.figures.style import looks_of
from rtil.reporting.sections import Figure, Section, Text, paragraph, texts
from rtil.reporting.study import Study
from rtil.reporting.tables import overview, remarks
from rtil.runs.run import Run

HEADINGS = ["Figures", "Tables", "Commands", "Samples", "Reconstructions", "Gallery", "Settings"]
# What the page of an experiment begins with.
FIRST = {
    "curves": "Figures",
    "pictures": "Reconstructions",
    "samples": "Samples",
    "differences": "Tables",
}
Sections = dict[str, list[Section]]
Series = Mapping[str, Sequence[Row]]  # rows of one task, inverter, data set, scale and model


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
        return self.out / f"{name}.png"


def sections_of(study: Study, look: Look, samples: Sequence[Section]) -> Sections:
    """Every heading with its sections; those without any are left out of an experiment's page."""
    series = defaultdict[str, list[Row]](list)
    for row in study.rows:
        series[row.measurement.heading].append(row)
    sections: Sections = {
        "Figures": [*curves(study, look), *forests(series, look)],
        "Tables": tables(study, series, look.baseline),
        "Commands": commands(study),
        "Samples": [*samples],
        **images(study, look),
        "Settings": [*map(Text, study.notes), *map(settings, study.runs)],
    }
    if study.source.packed:
        for heading in ("Samples", "Reconstructions", "Gallery"):
            sections[heading] = [Text(paragraph("packed"))]
    if not study.plan:
        return sections
    # The figure comes first; what an experiment is not made of is no gap.
    order = dict.fromkeys((FIRST[study.kind], *HEADINGS))
    return {heading: sections[heading] for heading in order if sections[heading]}


def curves(study: Study, look: Look) -> list[Section]:
    """PSNR over the knob of each series, or the curves of an experiment as the paper has them."""
    plan = study.plan.experiment if study.plan else {}
    if plan and study.kind != "curves":
        return []
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in study.rows:
        at = row.measurement
        title, names = at.heading, ("psnr", *at.series.values())
        if plan:
            title = f"data={at.data}, model={at.model}"
            names = "figure", plan["name"], at.data, at.model
        groups[title, names].append(row)
    made: list[Section] = []
    for (title, names), rows in groups.items():
        # A colour for each line of a series: there may be many of one arm.
        shown = [row for row in rows if plan or not row.missing]
        arms = [row.arm.name if plan else row.place.line for row in shown]
        looks = looks_of(zip(arms, (row.place.line for row in shown)))
        path = look.file(*names)
        x = "value"
        if plan:
            x = plan["figure"]["x"]
        published = plan.get("published", {})
        draw_panels(rows, looks, path, x, published)
        made.append(Figure(title, path))
    return [*made, *texts("figure", plan=plan)] if plan else made


def forests(series: Series, look: Look) -> list[Section]:
    """The gains of each series that has several protocols."""
    made: list[Section] = []
    for heading, rows in series.items():
        # One protocol alone has its gains in the table.
        shown = compare.drawable(rows)
        if shown and compare.by_protocol(heading, rows, look.baseline):
            names = [*rows[0].measurement.series.values()]
            path = look.file("gains", *names)
            draw_forest(", ".join(names), shown, look.baseline, path)
            made.append(Figure(f"Gains by protocol, {heading}", path))
    return made


def tables(study: Study, series: Series, baseline: str) -> list[Section]:
    """Every table, with its remarks and how it is read."""
    made: list[Section] = []
    if study.plan and study.kind == "differences":
        made += compare.by_switch(study.cells, study.plan)
        made += texts("switches")
    gains: list[Section] = []
    for heading, rows in series.items():
        made += [overview(heading, rows, baseline), *remarks(rows)]
        gains += compare.by_protocol(heading, rows, baseline)
    searches = compare.by_setting(study.cells, baseline)
    made += [*gains, *texts("protocols")] if gains else []
    return [*made, *searches, *texts("searches")] if searches else made


def commands(study: Study) -> list[Section]:
    """The commands behind the page, then those recorded by runs, each once.

    That is the last command behind each generator that was inverted, then behind each run: of
    those for the experiment, if any.
    """
    runs = study.plan.runs if study.plan else study.runs
    name = study.plan.experiment["name"] if study.plan else ""
    # Many inversions share a generator.
    trained = {
        (run.path.parent.name, run.config.get("generator_sha256")): run.trained
        for run in runs
        if run.config.get("inverter.family") is not None
    }
    counts: Counter[str] = Counter()
    # Only the last command that worked on a run: earlier ones were stopped, or asked for less.
    for history in (*trained.values(), *(run.recorded for run in runs)):
        for program, *arguments in (commands_for(history, name) or history)[:1]:
            line = f"python -m rtil.{Path(program).stem} {shlex.join(arguments)}"
            counts[line.strip()] += 1
    lines = [f"{line}    # {n} {'runs' if n > 1 else 'run'}" for line, n in counts.items()]
    recorded = [Text("As recorded by the runs:", lines)] if lines else []
    return [Text(commands=study.commands), *recorded]


def images(study: Study, look: Look) -> Sections:
    """Reconstructions of each cell, and its gallery."""
    sections: Sections = {"Reconstructions": [], "Gallery": []}
    for cell in () if study.source.packed else study.cells:
        at = cell.measurement
        parts = pictures.parts_of(cell, look.baseline)
        names = pictures.image_ids(cell)
        rows = pictures.image_rows(parts, names[: look.columns])
        if rows:  # inversions may be asked to write no pictures
            title = f"{at.heading}, {at.text}"
            path = look.file("grid", *at.series.values(), at.text.replace(", ", "-"))
            draw_mosaic(rows, path)
            sections["Reconstructions"].append(Figure(title, path))
            # The first one is open; a browser draws the others when they are unfolded.
            unfold = not sections["Gallery"]
            names = names[: look.gallery]
            made = pictures.gallery(title, parts, names, unfold)
            sections["Gallery"].append(made)
    return sections


def settings(run: Run) -> Text:
    """The folder, size and configuration of a run."""
    # The page has no address in it, not even of where the data came from.
    lines = [f"{key}: {value}" for key, value in run.config.items() if key != "data.origin"]
    return Text("\n".join(lines), fold=f"{run.path}, {len(run.rows)} images")
