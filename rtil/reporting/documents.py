"""Tables and numbers of Markdown documents, made from packed rows between markers.

    <!-- rtil: VIEW results=NAME,NAME KEY=VALUE,VALUE -->
    what `python -m rtil.report docs=.` writes
    <!-- end -->

VIEW is a function of `rtil.reporting.extracts`; NAME is a file of results/, without ".jsonl". What
one table says of a gain depends on all tables, for the correction is over all that are shown.
`settings` is every key and choice (`rtil.reporting.settings`), `gallery` every experiment
(`rtil.reporting.gallery`). `coverage diagnoses=NAME by=KEY` is of the diagnoses in
results/diagnose/NAME (`rtil.reporting.coverage`), `speed benchmarks=NAME group=NAME,NAME` of
results/NAME.json (`rtil.reporting.speed`).
Three views are of documents, not of rows: `summary` has a line for each table of gains with
summary=true, `overview file=FIGURE` draws these, `family` counts all. `forest file=FIGURE` draws
the gains of rows. Figures are written, but not compared: they differ between versions of
matplotlib.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from rtil.process.files import write_text
from rtil.reporting import coverage, extracts, gallery, settings, speed
from rtil.reporting.arrange import Row
from rtil.reporting.claims import Comparison, Families, families
from rtil.reporting.compare import drawable
from rtil.reporting.extracts import NOTHING, OPTIONS, SHOWN, VIEWS, Selection
from rtil.reporting.figures.forest import draw_forest
from rtil.reporting.figures.overview import draw_overview
from rtil.reporting.study import Source, of_everything

MARKER = re.compile(r"(<!-- rtil: (?P<told>[^>]*?) -->)(?P<made>.*?)(<!-- end -->)", re.DOTALL)
BEGIN, END = "<!-- rtil:", "<!-- end -->"
FIGURES = ("forest", "overview")
INLINE = ("gain", "family")  # views that stand within a sentence
PROTOCOLS = {"paper": "the paper's step sizes", "fair": "tuned alike"}  # columns of the summary
OWN = ("results", "baseline")


@dataclass(frozen=True)
class Marker:
    """What is asked for at one place of a document.

    Args:
        path: the document. line: from 1.
        view: what is shown. options: {key: values}.
        made: what stands there now.
    """

    path: Path
    line: int
    view: str
    options: Mapping[str, Sequence[str]]
    made: str

    @property
    def baseline(self) -> str:
        return self.options.get("baseline", ("vanilla",))[0]

    def error(self, why: object) -> ValueError:
        return ValueError(f"report: {self.path}, line {self.line}, rtil: {self.view}: {why}.")


def markers(path: Path) -> list[Marker]:
    """Those of a document, in its order.

    Raises:
        ValueError: one has no end, or an option without "=".
    """
    text = path.read_text(encoding="utf-8")
    found = []
    for match in MARKER.finditer(text):
        view, *words = match["told"].split() or [""]
        line = text.count("\n", 0, match.start()) + 1
        pairs = [word.partition("=") for word in words]
        marker = Marker(
            path, line, view, {key: value.split(",") for key, _, value in pairs}, match["made"]
        )
        if not all(equals for _, equals, _ in pairs):
            raise marker.error("every option is KEY=VALUE,VALUE")
        if BEGIN in match["made"]:
            raise marker.error(f'no "{END}" before the next marker')
        found.append(marker)
    if text.count(BEGIN) != len(found):
        raise ValueError(f'report: {path}: a marker has no "{END}".')
    return found


@dataclass(frozen=True)
class Library:
    """A folder of documents (README.md and docs/) and of the rows behind them (results/).

    Args:
        known: rows that were read, by their files and baseline: many markers are of the same.
    """

    folder: Path
    known: dict[tuple, Sequence[Row]] = field(default_factory=dict)

    @cached_property
    def paths(self) -> list[Path]:
        """Of its documents."""
        return [self.folder / "README.md", *sorted((self.folder / "docs").rglob("*.md"))]

    @property
    def markers(self) -> list[Marker]:
        """Of all documents."""
        return [marker for path in self.paths for marker in markers(path)]

    def files(self, marker: Marker) -> list[Path]:
        """The packed rows that a marker is about."""
        files = [self.folder / "results" / f"{n}.jsonl" for n in marker.options.get("results", ())]
        gone = [file for file in files if not file.is_file()]
        if gone or not files:
            raise marker.error(f"results= names no file {gone[0] if gone else 'of results/'}")
        return files

    def selection(self, marker: Marker) -> Selection:
        """The rows that a marker is about."""
        rest = {key: values for key, values in marker.options.items() if key not in OWN}
        if stray := rest.keys() & OPTIONS - {*SHOWN.get(marker.view, ())}:
            raise marker.error(f"{', '.join(sorted(stray))}= is of other views")
        files, baseline = self.files(marker), marker.baseline
        source = tuple(files), baseline
        if source not in self.known:
            self.known[source] = of_everything(Source(Path("runs"), files), baseline).rows
        place = " ".join([*marker.options["results"], baseline])
        return Selection(place, self.known[source], baseline, rest)

    def compared(self, marker: Marker) -> list[Comparison]:
        """What a table of gains compares."""
        try:
            return self.selection(marker).compared
        except ValueError as error:
            raise marker.error(error) from error

    @cached_property
    def families(self) -> Families:
        """Every comparison that a table of gains shows."""
        tables = [marker for marker in self.markers if marker.view == "gains"]
        return families(one for marker in tables for one in self.compared(marker))

    def text(self, marker: Marker) -> str:
        """What has to stand at a marker.

        Raises:
            ValueError: it asks for what is not there; names the document and the line.
        """
        if marker.view == "family":
            return extracts.family(self.families)
        if block := self.blocks.get(marker.view):
            return f"\n\n{block(marker)}\n\n"
        if marker.view not in VIEWS:
            known = ", ".join([*VIEWS, "family", *self.blocks])
            raise marker.error(f"no such view; there are {known}")
        selection = self.selection(marker)
        try:
            made = VIEWS[marker.view](selection, self.families)
        except ValueError as error:
            raise marker.error(error) from error
        if marker.view in INLINE:
            return made
        return f"\n\n{made}\n\n{self.origin(marker)}\n\n"

    @property
    def blocks(self) -> Mapping[str, Callable[[Marker], str]]:
        """What stands at markers whose view is of documents or of files that are no rows."""
        return {
            "settings": lambda marker: settings.pages(),
            "gallery": self.experiments,
            "coverage": self.coverage,
            "speed": self.speed,
            "summary": self.summary,
            "forest": self.forest,
            "overview": lambda marker: f"![gains]({self.figure(marker)})",
        }

    def origin(self, marker: Marker) -> str:
        """Where a table's rows are, and the command that prints them."""
        files = self.files(marker)
        links = [self.link(marker, file) for file in files]
        places = [f"results/{file.name}" for file in files]
        told = places[0] if len(places) == 1 else f"[{','.join(places)}]"
        command = f"python -m rtil.report {shlex.quote(f'results={told}')}"
        if marker.baseline != "vanilla":
            command += f" baseline={marker.baseline}"
        return f"Rows: {', '.join(links)}; `{command}`."

    def link(self, marker: Marker, path: Path) -> str:
        """A file or folder, as a marker's document links to it."""
        address = Path(os.path.relpath(path, marker.path.parent)).as_posix()
        return f"[{path.stem}]({address})"

    def coverage(self, marker: Marker) -> str:
        """Samples of diagnosed generators by some settings, and where the diagnoses are."""
        if not {"diagnoses", "by"} <= marker.options.keys():
            raise marker.error("diagnoses= has to name a folder of results/diagnose, by= settings")
        folder = self.folder / "results" / "diagnose" / marker.options["diagnoses"][0]
        try:
            lines = coverage.coverage(coverage.read(folder), marker.options["by"])
        except ValueError as error:
            raise marker.error(error) from error
        return f"{extracts.table(lines)}\n\nDiagnoses: {self.link(marker, folder)}."

    def speed(self, marker: Marker) -> str:
        """What the benchmarks measured, and on what."""
        if "benchmarks" not in marker.options:
            raise marker.error("benchmarks= has to name a file of results/, without .json")
        file = self.folder / "results" / f"{marker.options['benchmarks'][0]}.json"
        try:
            content = speed.read(file)
            made = extracts.table(speed.lines(content, marker.options.get("group", ())))
        except (FileNotFoundError, ValueError) as error:
            raise marker.error(error) from error
        return f"{made}\n\nRows: {self.link(marker, file)}: {speed.machine(content)}."

    def experiments(self, marker: Marker) -> str:
        """Every experiment, and what documents show of it."""
        files = sorted((self.folder / "results").glob("*.jsonl"))
        return gallery.pages(files, self.shown(marker))

    def forest(self, marker: Marker) -> str:
        """The figure of gains, which has to have rows."""
        self.drawn(marker)
        return f"![gains]({self.figure(marker)})"

    def summary(self, marker: Marker) -> str:
        """A line for each table that asks for one."""
        lines = []
        for table in self.summarised:
            own = self.compared(table)
            address = Path(os.path.relpath(table.path, marker.path.parent)).as_posix()
            title, heading = title_of(table.path), heading_before(table)
            line = {"what": f"{title}: [{heading}]({address}#{anchor(heading)})"}
            line["arm"] = ", ".join(dict.fromkeys(one.row.arm for one in own))
            counts = sorted({one.trainings for one in own})
            line["trainings"] = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
            for protocol, name in PROTOCOLS.items():
                shown = [one for one in own if one.row.protocol == protocol]
                line[name] = extracts.tally(shown, self.families)
            lines.append(line)
        return extracts.table(lines)

    def shown(self, gallery_marker: Marker) -> list[gallery.Shown]:
        """What documents show of packed rows, as the gallery links to it."""
        origin, shown = gallery_marker.path.parent, []
        for marker in self.markers:
            files = marker.options.get("results")
            # README.md is not of the site, and reads no rows that no other document reads.
            if files is None or marker.path == self.paths[0]:
                continue
            address = Path(os.path.relpath(marker.path, origin)).as_posix()
            figure = ""
            if marker.view == "forest":
                path = marker.path.parent / self.figure(marker)
                figure = Path(os.path.relpath(path, origin)).as_posix()
            shown.append(gallery.Shown(title_of(marker.path), address, files, figure))
        return shown

    def figure(self, marker: Marker) -> str:
        """The file of a figure, from the document."""
        if "file" not in marker.options:
            raise marker.error("file= has to name the figure")
        return marker.options["file"][0]

    def drawn(self, marker: Marker) -> Sequence[Row]:
        """The rows of a forest."""
        rows = drawable(one.row for one in self.compared(marker))
        if not rows:
            raise marker.error(NOTHING)
        return rows

    def draw(self) -> None:
        """Draws every figure."""
        for marker in self.markers:
            if marker.view not in FIGURES:
                continue
            path = marker.path.parent / self.figure(marker)
            if marker.view == "overview":
                bands = {
                    f"{title_of(table.path)}: {heading_before(table)}": self.compared(table)
                    for table in self.summarised
                }
                draw_overview(bands, PROTOCOLS, self.families, path)
            else:
                rows = self.drawn(marker)
                draw_forest(rows[0].measurement.task, rows, marker.baseline, path)

    @property
    def summarised(self) -> list[Marker]:
        """The tables of gains that say summary=true."""
        return [one for one in self.markers if one.view == "gains" and "summary" in one.options]

    def rewritten(self, path: Path) -> str:
        """A document as it has to be."""
        text = path.read_text(encoding="utf-8")
        parts, end = [], 0
        for marker, match in zip(markers(path), MARKER.finditer(text)):
            parts += [text[end : match.start("made")], self.text(marker)]
            end = match.end("made")
        return "".join([*parts, text[end:]])


def heading_before(marker: Marker) -> str:
    """The heading that a marker stands under."""
    lines = marker.path.read_text(encoding="utf-8").splitlines()[: marker.line]
    return next(line.lstrip("# ") for line in reversed(lines) if line.startswith("#"))


def title_of(path: Path) -> str:
    """The first heading of a document."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(line.lstrip("# ") for line in lines if line.startswith("#"))


def anchor(heading: str) -> str:
    """A heading as a link names it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def regenerate(folder: Path, check: bool) -> list[Path]:
    """Writes what stands between markers, and returns the documents that differed.

    Raises:
        FileNotFoundError: the folder has no README.md.
        ValueError: a marker cannot be read; with check, a document differs, and none is written.
    """
    library = Library(folder)
    if not library.paths[0].is_file():
        raise FileNotFoundError(f"report: docs={folder} has no README.md.")
    texts = {path: library.rewritten(path) for path in library.paths}
    changed = [path for path, text in texts.items() if text != path.read_text(encoding="utf-8")]
    if changed and check:
        raise ValueError(
            f"report: tables of {', '.join(map(str, changed))} are not those of the rows. "
            f"python -m rtil.report docs={folder} writes them."
        )
    for path in changed:
        write_text(path, texts[path])
    if not check:
        library.draw()
    return changed
