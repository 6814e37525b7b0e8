"""The HTML page of the report: self-contained, no network; sorting is the only script in it."""

from __future__ import annotations

import base64
import io
import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from rtil.reporting.figures import Shown, decibel, error_map, picture
from rtil.reporting.table import READING, remarks, table
from rtil.runs.run import Run

SMALL = 128  # pixels; the page enlarges smaller images without smoothing
CAPTIONS = {
    "Figures": "PSNR of the reported iterate, mean over n images with its 95 % interval; dash-"
    "dotted: the linear estimate, which uses no generator. Points of one measurement stand side "
    "by side. Gains: mean difference to the baseline; thick bars over images, thin ones over "
    "trainings.",
    "Tables": READING + " Rows in blue gain, rows in orange lose: the interval of Δ PSNR "
    "over images excludes 0.",
    "Commands": "What makes this page, and the commands that its runs were made with.",
    "Samples": "One row for each generator (of the first seed) and member, the same seeds in all "
    "(paper, Fig. 9). G^k: Gaussian maps of the RTIL family's σ after blocks 1 to k; N: codes.",
    "Reconstructions": "The first images, not chosen, of the first seed, with their PSNR.",
    "Gallery": "The first images, of the first seed, with PSNR (gain over the baseline); a click "
    "on a measurement unfolds it, the buttons sort it. Error: |reconstruction - original|, mean "
    "over channels, black at 0, light from 0.5 of white on.",
    "Settings": "Every run: its folder, images and configuration.",
}


def gallery(title: str, shown: Sequence[Shown], names: Sequence[str], unfold: bool) -> str:
    """A table of images, sortable by the PSNR gain of each entry over its baseline.

    A folded one costs the browser nothing until it is unfolded.
    """
    texts = [
        "as listed",
        *(f"gain of {s.label}, {end} first" for s in shown if s.base for end in ("best", "worst")),
    ]
    buttons = "".join(
        f'<button data-key="{(i + 1) // 2}" data-sign="{1 - i % 2 * 2}" '
        f'class="{"" if i else "on"}">{escape(text)}</button>'
        for i, text in enumerate(texts)
    )
    body = ""
    for number, name in enumerate(names):
        original, keys = picture(shown, name, "-original"), [float(number)]
        cells = [
            cell(original),
            cell(picture(shown, name, "-measurement")),
            cell(picture(shown, name, "-lmmse"), decibel(shown, name, "lmmse_psnr_db")),
        ]
        for s in shown:
            text, image = decibel([s], name, "psnr_db"), picture([s], name, s.suffix)
            if s.base:
                both = name in s.rows and name in s.base
                gain = s.rows[name]["psnr_db"] - s.base[name]["psnr_db"] if both else math.nan
                text += f" ({gain:+.2f})" if both else ""
                keys.append(gain)
            cells += [cell(image, text), cell(error_map(image, original))]
        body += f'<tr data-keys="{" ".join(f"{key:.6g}" for key in keys)}">'
        body += f"<th>{escape(name)}</th>{''.join(cells)}</tr>"
    labels = [text for s in shown for text in (s.label, f"|error| of {s.label}")]
    html = grid_html(["image", "original", "measurement", "LMMSE", *labels], body)
    summary = f"<summary>{escape(title)}; {len(names)} images</summary>"
    state = " open" if unfold else ""
    return f'<details class="gallery"{state}>{summary}<p>{buttons}</p>{html}</details>'


def cell(image: np.ndarray | None, caption: str = "") -> str:
    """A cell of the gallery: an image in [0, 1] and the text under it."""
    if image is None:
        return f"<td>none<br>{caption}</td>"
    buffer, small = io.BytesIO(), image.shape[1] < SMALL
    kind = "PNG" if small else "JPEG"  # a fifth of the size; the run's folder has every bit
    file = Image.fromarray((image * 255).round().astype(np.uint8))
    file.save(buffer, kind, quality=90)
    address = uri(buffer.getvalue(), kind.lower())
    return f'<td><img class="{"small" if small else ""}" src="{address}" alt=""><br>{caption}</td>'


def uri(content: bytes, kind: str = "png") -> str:
    """A picture's file as the address of itself."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def grid_html(head: Iterable[str], body: str) -> str:
    """A table with these headings that scrolls sideways where it is too wide."""
    cells = "".join(f"<th>{escape(text)}</th>" for text in head)
    table = f"<table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def table_html(name: str, rows: Sequence[Mapping], baseline: str) -> str:
    """`table` and its `remarks`; a row's colour says on which side of 0 its interval lies."""
    lines, body = table(rows, baseline), ""
    for row, line in zip(rows, lines):
        gain, look = row.get("gain_psnr_db"), "" if "n" in row else "missing"
        if gain and abs(gain["mean"]) > gain["ci95"]:
            look = "better" if gain["mean"] > 0 else "worse"
        cells = "".join(f"<td>{escape(text)}</td>" for text in line.values())
        body += f'<tr class="{look}">{cells}</tr>'
    html = f"<h3>{escape(name)}</h3>" + grid_html(lines[0], body)
    for text, commands in remarks(rows):
        html += paragraphs([text]) + (code(commands.splitlines()) if commands else "")
    return html


def plain_table(name: str, lines: Sequence[Mapping[str, str]]) -> str:
    """Rows of {heading: text} under a heading."""
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(t)}</td>' for t in line.values())}</tr>" for line in lines
    )
    return f"<h3>{escape(name)}</h3>" + grid_html(lines[0], body)


def figure(path: Path, heading: str) -> str:
    """A PNG file inside the page, under its heading."""
    image = f'<img src="{uri(path.read_bytes())}" alt="{escape(path.stem)}">'
    return f"<h3>{escape(heading)}</h3><figure>{image}</figure>"


def paragraphs(lines: Iterable[str]) -> str:
    """Remarks."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def settings(runs: Iterable[Run]) -> str:
    """The folder, size and configuration of every run."""
    text = ""
    for run in runs:
        lines = [f"{key}: {value}" for key, value in run.config.items() if key != "data.origin"]
        text += (
            f"<details><summary>{escape(str(run.path))}, {len(run.rows)} images</summary>"
            f"<pre>{escape(chr(10).join(lines))}</pre></details>"
        )
    return text


def commands(lines: Iterable[str], recorded: Iterable[Sequence[str]]) -> str:
    """The commands behind the page, then those recorded by runs, each once."""
    counts = Counter(
        f"python -m rtil.{Path(name).stem} {' '.join(map(shlex.quote, words))}".strip()
        for name, *words in recorded
    )
    html = code(lines)
    if counts:
        html += "<p>As recorded by the runs:</p>"
        html += code(
            f"{line}    # {count} {'runs' if count > 1 else 'run'}"
            for line, count in counts.items()
        )
    return html


def code(lines: Iterable[str]) -> str:
    """Commands to be copied, each a block of its own where it is longer than the page is wide."""
    return f"<pre>{''.join(f'<code>{escape(line)}</code>' for line in lines)}</pre>"


def caption(plan: Mapping) -> list[str]:
    """How to read an experiment's figure."""
    lines = [
        "Vertical bars: 95 % interval of the mean over the images, n of them in the title of each "
        "panel. Dotted: the best iterate as judged by the true image, no result. Crosses at the "
        "foot: missing; the tables name the commands."
    ]
    if plan.get("published"):
        lines.append(
            f"Dashed: the paper's figure, read off ({plan['published']['what']}). It is "
            "comparable with the dotted line, and only for the same data at the same size."
        )
    if plan.get("sets"):
        lines.append(
            f"The paper averages over {plan['sets']} sets of 12 test images and does not say "
            "whether its intervals are over images or over sets. The images are what was drawn "
            "at random, so the bars are over images; the tables have the interval over sets too."
        )
    return lines


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """The whole page: what is there, its contents and a section of HTML for each heading."""
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in sections)
    body = "".join(
        f'<section id="{name}"><h2>{name}</h2><p>{CAPTIONS[name]}</p>{html or "None."}</section>'
        for name, html in sections.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{escape(title)}</title>'
        f"<style>{CSS}</style></head><body><h1>{escape(title)}</h1>"
        f"<p>{escape(lead)}</p><nav>{links}</nav>{body}<script>{JS}</script></body></html>\n"
    )


CSS = """
body { font: 16px/1.5 sans-serif; color: #1c1e21; background: #f4f5f7; margin: 2rem 4%; }
section { background: #fff; border-radius: 8px; margin: 1.2rem 0; padding: 1.2rem 1.4rem; }
h1, h2, h3 { margin: .2rem 0 .8rem; } h3 { font-size: 1rem; margin-top: 1.6rem; }
figure { margin: 0; } figure img { max-width: min(100%, 76rem); }
figcaption, p { color: #4b5159; max-width: 64rem; font-size: .92rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: left; border-bottom: 1px solid #e6e8eb; }
thead th { background: #f0f2f5; vertical-align: bottom; } td { white-space: nowrap; }
.better td { background: #e6f1fa; } .worse td { background: #fdeee2; } .missing { color: #8a9099; }
.wide { overflow-x: auto; }
pre { white-space: pre-wrap; background: #f6f8fa; padding: .8rem; font-size: .83rem; }
code { display: block; padding-left: 2rem; text-indent: -2rem; overflow-wrap: anywhere; }
.gallery th { text-align: center; } .gallery summary { font-weight: bold; margin-top: .8rem; }
.gallery td { text-align: center; vertical-align: top; padding: .3rem; font-size: .8rem; }
.gallery img { width: 128px; } .gallery .small { width: 96px; image-rendering: pixelated; }
button { margin: 0 .4rem .3rem 0; padding: .2rem .6rem; font: inherit; cursor: pointer; }
.on { background: #d6e8f7; } a, summary { color: #0b5cad; }
summary { overflow-wrap: anywhere; cursor: pointer; }
@media (max-width: 50rem) {
  body { margin: 1rem .6rem; } section { padding: .8rem; } h1 { font-size: 1.4rem; }
  figure { overflow-x: auto; } figure img { max-width: 52rem; }
}
"""

JS = """
document.querySelectorAll(".gallery").forEach(gallery => {
  const body = gallery.querySelector("tbody"), buttons = gallery.querySelectorAll("button");
  buttons.forEach(button => button.addEventListener("click", () => {
    const value = row => Number(row.dataset.keys.split(" ")[button.dataset.key]);
    const order = (a, b) =>  // images without gain come last
      isNaN(value(a)) - isNaN(value(b)) || button.dataset.sign * (value(a) - value(b));
    [...body.rows].sort(order).forEach(row => body.append(row));
    buttons.forEach(other => other.classList.toggle("on", other === button));
  }));
});
"""
