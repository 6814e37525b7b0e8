"""The page of a study: its sections under their headings, and the figures that go into it."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rtil.reporting import compare, pictures
from rtil.reporting.arrange import Row
from rtil.reporting.figures.curves import draw_panels, panels_of
from rtil.reporting.figures.forest import draw_forest
from rtil.reporting.figures.mosaic import ImageRow, draw_mosaic
from rtil.reporting.figures.style import looks_of
from rtil.reporting.sections import Figure, Section, Table, Text, texts
from rtil.reporting.study import Study
from rtil.reporting.tables import overview, remarks
from rtil.reporting.texts import paragraph, paragraphs
from rtil.runs.run import Run

HEADINGS = (
    "Figures",
    "Tables",
    "Commands",
    "Samples",
    "Reconstructions",
    "Gallery",
    "Settings",
)
# What the page of an experiment begins with.
FIRST = {
    "curves": "Figures",
    "pictures": "Reconstructions",
    "samples": "Samples",
    "differences": "Tables",
}
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
        return self.out / f"{name}.png"


@dataclass(frozen=True)
class Samples:
    """Rows of samples of the generators of a group, and of what could not be drawn, why."""

    groups: Mapping[tuple[str, str, str], Sequence[ImageRow]]
    notes: Sequence[str] = ()


def sections_of(study: Study, look: Look, samples: Samples) -> Sections:
    """Every heading with its sections; those without any are left out of an experiment's page."""
    sections: Sections = {heading: [] for heading in HEADINGS}
    # One figure and one table for each task, inverter, data set, scale and model.
    series: dict[str, list[Row]] = defaultdict(list)
    for row in study.rows:
        series[row.measurement.heading].append(row)
    sections["Figures"] = [*figures(study, series, look), *forests(series, look)]
    sections["Tables"] = tables(study, series, look.baseline)
    sections["Commands"] = commands(study)
    sections["Samples"] = drawn(samples, look)
    if study.source.packed:
        for heading in ("Samples", "Reconstructions", "Gallery"):
            sections[heading] = [Text(paragraph("packed"))]
    else:
        sections |= images(study, look)
    sections["Settings"] = [*texts(study.notes), *map(settings, study.runs)]
    if not study.plan:
        return sections
    # The figure comes first; what an experiment is not made of is no gap.
    first = FIRST[study.kind]
    return {key: sections[key] for key in dict.fromkeys((first, *HEADINGS)) if sections[key]}


def figures(study: Study, series: Mapping[str, Sequence[Row]], look: Look) -> list[Section]:
    """PSNR over the knob of each series, or the curves of an experiment."""
    made: list[Section] = []
    if not study.plan:
        for heading, rows in series.items():
            path = look.file("psnr", *rows[0].measurement.series.values())
            # A colour for each line: there may be many of one arm.
            looks = looks_of((row.place.line, row.place.line) for row in rows if not row.missing)
            draw_panels(panels_of(rows), looks, path)
            made.append(Figure(heading, path))
    if study.kind == "curves":
        figure, published = study.experiment["figure"], study.experiment.get("published", {})
        groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in study.rows:
            groups[row.measurement.data, row.measurement.model].append(row)
        for (data, model), rows in groups.items():
            path = look.file("figure", study.experiment["name"], data, model)
            looks = looks_of((row.arm.name, row.place.line) for row in rows)
            panels = panels_of(rows, figure["x"], published)
            draw_panels(panels, looks, path, what=str(published.get("what")))
            made.append(Figure(f"data={data}, model={model}", path))
        made += texts(paragraphs("figure", plan=study.experiment))
    return made


def forests(series: Mapping[str, Sequence[Row]], look: Look) -> list[Section]:
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


def tables(study: Study, series: Mapping[str, Sequence[Row]], baseline: str) -> list[Section]:
    """Every table, with its remarks and how it is read."""
    made: list[Section] = []
    if study.plan and study.kind == "differences":
        made += compare.by_switch(study.cells, study.scores, study.plan)
        made.append(Text(paragraph("switches")))
    gains: list[Table] = []
    for heading, rows in series.items():
        made += [overview(heading, rows, baseline), *remarks(rows)]
        gains += compare.by_protocol(heading, rows, baseline)
    searches = compare.by_setting(study.cells, baseline)
    for name, compared in (("protocols", gains), ("searches", searches)):
        if compared:
            made += [*compared, Text(paragraph(name))]
    return made


def commands(study: Study) -> list[Section]:
    """The commands behind the page, then those recorded by runs, each once."""
    counts = Counter(
        f"python -m rtil.{Path(name).stem} {' '.join(map(shlex.quote, arguments))}".strip()
        for name, *arguments in study.recorded
    )
    lines = [f"{line}    # {n} {'runs' if n > 1 else 'run'}" for line, n in counts.items()]
    recorded = [Text("As recorded by the runs:", lines)] if lines else []
    return [Text(commands=study.commands), *recorded]


def drawn(samples: Samples, look: Look) -> list[Section]:
    """A figure of samples for each group of generators."""
    made: list[Section] = []
    for group, rows in samples.groups.items():
        path = look.file("samples", *group)
        draw_mosaic(rows, path)
        keys = ("data", "scale", "model")
        made.append(Figure(", ".join(map("=".join, zip(keys, group))), path))
    return [*made, *texts(samples.notes)]


def images(study: Study, look: Look) -> Sections:
    """Reconstructions of each cell, and its gallery."""
    sections: Sections = {"Reconstructions": [], "Gallery": []}
    for cell in study.cells:
        at = cell.measurement
        title = f"{at.heading}, {at.text}"
        shown = pictures.pictured(cell, look.baseline)
        names = pictures.image_ids(shown)
        rows = pictures.image_rows(shown, names[: look.columns])
        if rows:  # inversions may be asked to write no pictures
            path = look.file("grid", *at.series.values(), at.text.replace(", ", "-"))
            draw_mosaic(rows, path)
            sections["Reconstructions"].append(Figure(title, path))
            # The first one is open; a browser draws the others when they are unfolded.
            unfold = not sections["Gallery"]
            gallery = pictures.gallery(title, shown, names[: look.gallery], unfold)
            sections["Gallery"].append(gallery)
    return sections


def settings(run: Run) -> Text:
    """The folder, size and configuration of a run."""
    # The page has no address in it, not even of where the data came from.
    lines = [f"{key}: {value}" for key, value in run.config.items() if key != "data.origin"]
    return Text("\n".join(lines), fold=f"{run.path}, {len(run.rows)} images")
