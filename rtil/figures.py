"""Tables, curves, mosaics of images and HTML of the report, from the records that it computes.

Nothing here sorts runs or computes a statistic. A new picture is one function that writes a PNG.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from PIL import Image

from rtil import checkpoint
from rtil.latents.additive import Additive
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import MultiCode
from rtil.latents.space import LatentSpace
from rtil.metrics import to_unit
from rtil.models.generator import Generator
from rtil.runtime import seeded

# Distinguishable with every common colour blindness (Okabe and Ito 2008), yellow left out.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = "osD^vPX"
GREY = "#666666"
DPI = 144
ERROR_RANGE = 0.5  # of |x_hat - x| on [0, 1] images; larger errors are drawn alike
SMALL = 128        # pixels; the page enlarges smaller images without smoothing
CAPTIONS = {
    "Settings": "",
    "Figures": "PSNR of the reported iterate, mean over n images with its 95 % interval; dashed: "
    "the linear estimate, which uses no generator. Points of one measurement stand side by side.",
    "Tables": "PSNR and SSIM are those of the iterate with the lowest measurement loss (of the "
    "last one with selection=last); no inverter sees the true image. The oracle PSNR is that of "
    "the best iterate as judged by the true image, which no user has: it is not a result. LMMSE "
    "is the linear estimate from training images: below it, a generator gains nothing. ± is the "
    "half-width of the 95 % confidence interval over n images (Student t), Δ the mean difference "
    "to the baseline over the n images that both have; blue: interval above 0, orange: below. "
    "With several seeds, each image is averaged over them first. The intervals do not cover "
    "what another training would change.",
    "Samples": "One row for each generator and member, the same seeds in all rows (paper, Fig. 9)."
    " G^k adds Gaussian maps after blocks 1 to k with the sigma of the RTIL generator's training;"
    " N mixes as many codes.",
    "Reconstructions": "The first images, not chosen, of the first seed, with their PSNR.",
    "Gallery": "The first images, of the first seed, with their PSNR (and gain over the "
    "baseline). Error maps: mean over channels of |reconstruction - original| on [0, 1] images, "
    "black at 0, light from 0.5 on.",
}


class Shown(NamedTuple):
    """An entry's pictures: label, folder, rows by image id, and those of its baseline if any."""

    label: str
    folder: Path
    rows: Mapping[str, Mapping]
    base: Mapping[str, Mapping] | None


class ImageRow(NamedTuple):
    """One row of a mosaic: images (H, W, 3) in [0, 1], None where there is none."""

    label: str
    images: Sequence[np.ndarray | None]
    captions: Sequence[str]


def table(rows: Iterable[Mapping], baseline: str) -> list[dict[str, str]]:
    """Records of `rtil.report` as rows of {heading: text}; LPIPS is left out where none has it."""

    def text(row: Mapping, key: str, digits: int = 2, sign: str = "") -> str:
        found = row.get(key)
        if not found:
            return "–"
        count = f" (n={found['n']})" if sign or found["n"] != row["n"] else ""
        half = "" if math.isnan(found["ci95"]) else f" ± {found['ci95']:.{digits}f}"
        return f"{found['mean']:{sign}.{digits}f}{half}{count}"

    lines = [{
        "measurement": row["measurement"], "arm": row["label"],
        "seeds": ", ".join(map(str, row.get("seeds", "–"))), "n": str(row.get("n", "–")),
        "PSNR [dB]": text(row, "psnr_db") if "n" in row else "missing",
        f"Δ PSNR to {baseline} [dB]": text(row, "gain_psnr_db", 2, "+"),
        "SSIM": text(row, "ssim", 3), f"Δ SSIM to {baseline}": text(row, "gain_ssim", 3, "+"),
        "LPIPS": text(row, "lpips", 3), "LMMSE PSNR [dB]": text(row, "lmmse_psnr_db"),
        "LMMSE SSIM": text(row, "lmmse_ssim", 3), "last PSNR [dB]": text(row, "last_psnr_db"),
        "oracle PSNR [dB]": text(row, "oracle_psnr_db"),
    } for row in rows]
    if all(line["LPIPS"] == "–" for line in lines):
        lines = [{key: text for key, text in line.items() if key != "LPIPS"} for line in lines]
    return lines


def table_text(name: str, rows: Sequence[Mapping], baseline: str) -> str:
    """`table` and its `remarks` as a section of Markdown."""
    lines = table(rows, baseline)
    widths = {key: max(len(key), *(len(line[key]) for line in lines)) for key in lines[0]}
    rule = {key: "-" * width for key, width in widths.items()}
    text = f"\n## {name}\n\n"
    for line in (dict(zip(widths, widths)), rule, *lines):
        text += "| " + " | ".join(line[key].ljust(widths[key]) for key in widths) + " |\n"
    for remark, commands in remarks(rows):
        text += f"\n{remark}\n" + (f"\n```\n{commands}\n```\n" if commands else "")
    return text


def remarks(rows: Iterable[Mapping]) -> list[tuple[str, str]]:
    """What the table of these records lacks or must be read with: (text, commands)."""
    found = []
    for row in rows:
        where, commands = f"{row['label']} at {row['measurement']}", "\n".join(row["commands"])
        if commands:
            lacks = "No LMMSE for" if "n" in row else "Missing:"
            found.append((f"{lacks} {where}; these commands fill it:", commands))
        if row.get("differs"):
            text = "; ".join(row["differs"]).replace(" there,", f" in {row['baseline']},")
            found.append((f"Settings of {where} differ from its baseline's: {text}.", ""))
    return found


def curves(rows: Sequence[Mapping], path: Path) -> None:
    """Draws PSNR against the knob, a line for each entry and noise level of a series' records."""
    rows = [row for row in rows if "n" in row]
    knob, unit = rows[0]["knob"], 100 if rows[0]["knob"] == "ratio" else 1
    ticks = sorted({row["value"] * unit for row in rows})
    fig = Figure(figsize=(8.4, 5.2), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    if knob == "ratio":
        ax.set_xscale("log")
        span = (ticks[0] / 1.35, ticks[-1] * 1.35)
    else:
        pad = 0.08 * (ticks[-1] - ticks[0]) or 0.2 * abs(ticks[0]) or 1.0
        span = (ticks[0] - pad, ticks[-1] + pad)

    lines: dict[str, dict[float, tuple]] = {}
    for key, name in (("psnr_db", None), ("lmmse_psnr_db", "LMMSE, no generator")):
        for row in rows:
            if row[key]:  # the estimate without generator is every arm's: the first one's is drawn
                noise = row["measurement"].partition(",")[2]
                line = lines.setdefault((name or row["label"]) + noise, {})
                line.setdefault(row["value"] * unit, (row[key]["mean"], row[key]["ci95"]))
    for i, (label, line) in enumerate(lines.items()):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        shift = 0.008 * (i - len(lines) / 2 + 1)  # sideways, to keep error bars at one x apart
        if label.startswith("LMMSE"):
            look, shift = {"color": GREY, "marker": ".", "linestyle": "--"}, 0.0
        x, (means, halves) = np.array([*line]), np.array([*line.values()]).T
        x = x * (span[1] / span[0]) ** shift if knob == "ratio" else x + shift * np.ptp(span)
        ax.errorbar(x, means, halves, label=label, capsize=4, linewidth=1.8, **look)
    ax.set_xlim(*span)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize=12)
    ax.set_xlabel({"ratio": "measurements m/n [%]", "factor": "down-sampling factor per side"}.get(
        knob, "standard deviation of the noise [of the [0, 1] image]"), fontsize=13)
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=13)
    ax.grid(True, color="#dddddd", linewidth=0.8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(fontsize=11)
    counts = [row["n"] for row in rows]
    count = " to ".join(map(str, sorted({min(counts), max(counts)})))
    name = ", ".join(rows[0][key] for key in ("task", "inverter", "data", "scale", "model"))
    ax.set_title(f"{name}; n = {count} images", fontsize=13)
    fig.savefig(path)


def mosaic(rows: Sequence[ImageRow], path: Path, side: float = 1.05) -> None:
    """Draws equally long rows of images, side inches each, with labels and captions."""
    heads = [0.2 if any(row.captions) else 0.04 for row in rows]  # above a row, in sides
    width, height = len(rows[0].images), sum(heads) + len(rows)
    left = 0.3 + 0.088 * max(len(row.label.replace("$", "")) for row in rows)  # inches
    size = (left + side * width + 0.1, side * height + 0.2)
    fig = Figure(figsize=size, dpi=DPI)
    w, h = side * width / size[0], side * height / size[1]
    ax = fig.add_axes((left / size[0], 0.1 / size[1], w, h))
    y = 0.0
    for row, head in zip(rows, heads):
        y += head
        ax.text(-0.08, y + 0.48, row.label, ha="right", va="center", fontsize=11)
        for column, (image, caption) in enumerate(zip(row.images, row.captions)):
            ax.text(column + 0.49, y - 0.02, caption, ha="center", va="bottom", fontsize=9.5)
            if image is None:
                ax.text(column + 0.49, y + 0.48, "none", ha="center", va="center", color=GREY)
                continue
            h, w = (0.98 * n / max(image.shape[:2]) for n in image.shape[:2])
            x0, y0 = column + (0.98 - w) / 2, y + (0.98 - h) / 2
            ax.imshow(image, interpolation="nearest", extent=(x0, x0 + w, y0 + h, y0))
        y += 1
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.set_axis_off()
    fig.savefig(path)


@torch.no_grad()
def sample_rows(
    generators: Mapping[str, tuple[Generator, dict]], num_images: int, notes: list[str]
) -> list[ImageRow]:
    """Samples of every generator from every member, on the same seeds (paper, Fig. 9).

    Args:
        generators: {label: (G, configuration of its training)}.
        num_images: samples of each member.
        notes: gets a line for each member that cannot drive a generator.
    """
    rows = []
    spaces = members(config["rtil"]["family"] for _, config in generators.values())
    for label, (G, _) in generators.items():
        for space in spaces:
            try:
                space.check(G)
            except ValueError as error:
                notes.append(f"No samples of {label} from {space.names[0]}: {error}")
                continue
            latents = space.sample(G, num_images, seeded("cpu", 0, "report samples"))
            images = to_unit(space.synthesize(G, latents)).permute(0, 2, 3, 1)
            images = [*images.expand(-1, -1, -1, 3).numpy()]
            rows.append(ImageRow(f"{label}  ${space.names[0]}$", images, [""] * num_images))
    return rows


def members(families: Iterable[Mapping]) -> list[LatentSpace]:
    """G^0 .. G^K of the additive families with their sigma, and N of the multi-code ones.

    N = 1 is the plain generator too, so G^0 alone adds nothing beside it.
    """
    additive, codes = {Additive(0)}, set()
    for family in families:
        for space in checkpoint.build(family).spaces:
            for m in space.members if isinstance(space, Mixture) else (space,):
                if isinstance(m, MultiCode):
                    codes.add(m)
                else:
                    additive |= {Additive(k, m.sigma, m.relative) for k in range(1, m.depth + 1)}
    if len(additive) == 1 and any(m.num_codes == 1 for m in codes):
        additive = set()
    return [*sorted(additive, key=lambda m: (m.relative, m.sigma * (m.depth > 0), m.depth)),
            *sorted(codes, key=lambda m: (m.block, m.num_codes))]


def image_rows(shown: Sequence[Shown], names: Sequence[str]) -> list[ImageRow]:
    """Original, measurement, LMMSE and each entry's reconstruction, with the PSNR of each."""
    parts = [("original", shown, "-original", ""), ("measurement", shown, "-measurement", ""),
             ("LMMSE", shown, "-lmmse", "lmmse_psnr_db"),
             *((s.label, [s], "", "psnr_db") for s in shown)]
    rows = []
    for label, where, suffix, key in parts:
        images = [picture(where, name, suffix) for name in names]
        if any(image is not None for image in images):
            rows.append(ImageRow(label, images, [decibel(where, name, key) for name in names]))
    return rows


def picture(shown: Sequence[Shown], name: str, suffix: str) -> np.ndarray | None:
    """The first of the files <name><suffix>.png that can be read, (H, W, 3) in [0, 1]."""
    for s in shown:
        try:
            with Image.open(s.folder / f"{name}{suffix}.png") as file:
                return np.asarray(file.convert("RGB"), dtype=np.float32) / 255
        except OSError:  # not written, or cut off while writing
            continue
    return None


def decibel(shown: Sequence[Shown], name: str, key: str) -> str:
    """The first value that an entry has for an image, as text."""
    values = [s.rows[name].get(key) for s in shown if name in s.rows]
    return next((f"{value:.2f} dB" for value in values if value is not None), "")


def error_map(x_hat: np.ndarray | None, x: np.ndarray | None) -> np.ndarray | None:
    """|x_hat - x|, mean over channels, as a heat map from 0 to ERROR_RANGE (H, W, 3)."""
    if x is None or x_hat is None or x_hat.shape != x.shape:
        return None
    error = np.abs(x_hat - x).mean(2)
    return matplotlib.colormaps["inferno"](np.minimum(error / ERROR_RANGE, 1))[..., :3]


def gallery(title: str, shown: Sequence[Shown], names: Sequence[str]) -> str:
    """A table of images, sortable by the PSNR gain of each entry over its baseline."""
    texts = ["as listed", *(f"gain of {s.label}, {end} first"
                            for s in shown if s.base for end in ("best", "worst"))]
    buttons = "".join(
        f'<button data-key="{(i + 1) // 2}" data-sign="{1 - i % 2 * 2}">{escape(text)}</button>'
        for i, text in enumerate(texts))
    body = ""
    for number, name in enumerate(names):
        original, keys = picture(shown, name, "-original"), [float(number)]
        cells = [cell(original), cell(picture(shown, name, "-measurement")),
                 cell(picture(shown, name, "-lmmse"), decibel(shown, name, "lmmse_psnr_db"))]
        for s in shown:
            text, image = decibel([s], name, "psnr_db"), picture([s], name, "")
            if s.base:
                both = name in s.rows and name in s.base
                gain = s.rows[name]["psnr_db"] - s.base[name]["psnr_db"] if both else math.nan
                text += f" ({gain:+.2f})" if both else ""
                keys.append(gain)
            cells += [cell(image, text), cell(error_map(image, original))]
        data = " ".join(f"{key:.6g}" for key in keys)
        body += f'<tr data-keys="{data}"><th>{escape(name)}</th>{"".join(cells)}</tr>'
    labels = [text for s in shown for text in (s.label, f"|error| of {s.label}")]
    return (f'<h3>{escape(title)}</h3><div class="gallery"><p>{buttons}</p>'
            + grid_html(["image", "original", "measurement", "LMMSE", *labels], body) + "</div>")


def cell(image: np.ndarray | None, caption: str = "") -> str:
    """A cell of the gallery: an image in [0, 1] and the text under it."""
    if image is None:
        return f"<td>none<br>{caption}</td>"
    buffer, look = io.BytesIO(), "small" if image.shape[1] < SMALL else ""
    Image.fromarray((image * 255).round().astype(np.uint8)).save(buffer, "PNG")
    return f'<td><img class="{look}" src="{uri(buffer.getvalue())}" alt=""><br>{caption}</td>'


def uri(png: bytes) -> str:
    """A PNG file as the address of itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def grid_html(head: Iterable[str], body: str) -> str:
    """A table with these headings that scrolls sideways where it is too wide."""
    head = "".join(f"<th>{escape(text)}</th>" for text in head)
    head = f"<thead><tr>{head}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def table_html(name: str, rows: Sequence[Mapping], baseline: str) -> str:
    """`table` and its `remarks`; a row's colour says on which side of 0 its interval lies."""
    lines, body = table(rows, baseline), ""
    for row, line in zip(rows, lines):
        gain, look = row.get("gain_psnr_db"), "" if "n" in row else "missing"
        if gain and abs(gain["mean"]) > gain["ci95"]:
            look = "better" if gain["mean"] > 0 else "worse"
        cells = "".join(f"<td>{escape(text)}</td>" for text in line.values())
        body += f'<tr class="{look}">{cells}</tr>'
    notes = (f"<p>{escape(text)}</p>" + (f"<pre>{escape(commands)}</pre>" if commands else "")
             for text, commands in remarks(rows))
    return f"<h3>{escape(name)}</h3>" + grid_html(lines[0], body) + "".join(notes)


def figure(path: Path, caption: str) -> str:
    """A PNG file inside the page, with its caption."""
    image = f'<img src="{uri(path.read_bytes())}" alt="{escape(path.stem)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def settings(runs: Iterable, notes: Iterable[str]) -> str:
    """Remarks, and the folder, size, generator and settings of every run."""
    text = "<ul>" + "".join(f"<li>{escape(note)}</li>" for note in notes) + "</ul>"
    for run in runs:
        lines = [f"{key}: {value}" for key, value in run.config.items() if key != "data.origin"]
        lines = escape("\n".join(lines))
        summary = f"{escape(str(run.path))}, {len(run.rows)} images"
        text += f"<details><summary>{summary}</summary><pre>{lines}</pre></details>"
    return text


def page(title: str, sections: Mapping[str, str]) -> str:
    """The whole page: a table of contents and one section of HTML for each heading."""
    links = " · ".join(f'<a href="#{name}">{name}</a>' for name in sections)
    body = "".join(
        f'<section id="{name}"><h2>{name}</h2><p>{CAPTIONS[name]}</p>{html or "None."}</section>'
        for name, html in sections.items())
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}'
            f"</title><style>{CSS}</style></head><body><h1>{escape(title)}</h1><nav>{links}</nav>"
            f"{body}<script>{JS}</script></body></html>\n")


CSS = """
body { font: 16px/1.5 sans-serif; color: #1c1e21; background: #f4f5f7; margin: 2rem 4%; }
section { background: #fff; border: 1px solid #e1e4e8; border-radius: 8px; margin: 1.2rem 0;
  padding: 1.2rem 1.4rem; } h1, h2, h3 { line-height: 1.2; margin: .2rem 0 .8rem; }
h3 { font-size: 1rem; margin-top: 1.6rem; } a, summary { color: #0b5cad; cursor: pointer; }
figure { margin: .8rem 0 1.6rem; } figure img { max-width: 100%; } .wide { overflow-x: auto; }
figcaption, p, li { color: #4b5159; max-width: 64rem; font-size: .92rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem .6rem; text-align: left; border-bottom: 1px solid #e6e8eb; }
thead th { background: #f0f2f5; vertical-align: bottom; } td { white-space: nowrap; }
.better td { background: #e6f1fa; } .worse td { background: #fdeee2; } .missing { color: #8a9099; }
pre { background: #f6f8fa; padding: .7rem .9rem; overflow-x: auto; font-size: .83rem; }
.gallery td { text-align: center; vertical-align: top; padding: .3rem; font-size: .8rem; }
.gallery img { width: 128px; } .gallery .small { width: 96px; image-rendering: pixelated; }
button { margin: 0 .4rem .3rem 0; cursor: pointer; } .on { background: #d6e8f7; }
"""

JS = """
document.querySelectorAll(".gallery").forEach(gallery => {
  const body = gallery.querySelector("tbody"), buttons = gallery.querySelectorAll("button");
  buttons.forEach(button => button.addEventListener("click", () => {
    const value = row => Number(row.dataset.keys.split(" ")[button.dataset.key]);
    const order = (a, b) => isNaN(value(a)) - isNaN(value(b))
      || button.dataset.sign * (value(a) - value(b));
    [...body.rows].sort(order).forEach(row => body.append(row));
    buttons.forEach(other => other.classList.toggle("on", other === button));
  }));
});
"""
