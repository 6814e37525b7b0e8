"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

Every number comes from results*.jsonl. `rtil.cells` sorts runs into what is compared, `rtil.table`
holds the statistics, `rtil.figures` draws and `rtil.page` writes HTML.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path

import hydra
from omegaconf import DictConfig

from rtil import checkpoint, figures, page, results
from rtil.cells import WITHOUT_GENERATOR, Cell, arrange, case_of, collect
from rtil.runtime import CONFIGS
from rtil.runtime import entry as run_entry
from rtil.table import READING, records, reference, table_text


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
    html = dict.fromkeys(page.CAPTIONS, "")
    text = "\n\n".join([f"# {title}", READING, *notes]) + "\n"

    def add(section: str, name: str, kind: str, draw: Callable, *content: object) -> None:
        path = out / f"{kind}-{name.replace(', ', '-').replace(' ', '')}.png"
        draw(*content, path)
        html[section] += page.figure(path, name)

    for series in dict.fromkeys(cell.case.series for cell in cells):
        name = ", ".join(series)
        rows = [r for cell, t in zip(cells, tables) for r in t if cell.case.series == series]
        add("Figures", name, "psnr", figures.curves, name, rows)
        html["Tables"] += page.table_html(name, rows, baseline)
        text += table_text(name, rows, baseline)
    gaps: list[str] = []
    for name, found in generators(cells, root, gaps).items():
        rows = figures.sample_rows(found, cfg.columns, gaps)
        if rows:
            add("Samples", name, "samples", figures.mosaic, rows)
    html["Samples"] += page.paragraphs(gaps)
    for cell in cells:
        name = ", ".join([*cell.case.series, cell.case.measurement])
        shown = pictured(cell, baseline)
        ids = sorted(set().union(*(s.rows for s in shown)))
        ids.sort(key=lambda i: sum(i not in s.rows for s in shown))  # those of every entry first
        rows = figures.image_rows(shown, ids[: cfg.columns])
        if rows:
            add("Reconstructions", name, "grid", figures.mosaic, rows)
            html["Gallery"] += page.gallery(name, shown, ids[: cfg.gallery])
    html["Settings"] = page.paragraphs(notes) + page.settings(runs)
    values = json.loads(json.dumps([*chain(*tables)]), parse_constant=lambda _: None)  # no NaN
    results.write_text(out / "table.json", json.dumps(values, indent=1) + "\n")
    results.write_text(out / "table.md", text)
    results.write_text(out / "report.html", page.page(title, html))
    print(f"{text}\nPage: {out / 'report.html'}")
    return out / "report.html"


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    run_entry(lambda: (report(cfg), None)[1])


if __name__ == "__main__":
    main()
