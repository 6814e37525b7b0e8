"""Tables, curves, mosaics of images and HTML of the report: no sorting of runs, no statistics.

To add a picture, write a function that writes a PNG and call it in `rtil.report.report`.
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

from rtil.latents.additive import Additive
from rtil.latents.family import Family
from rtil.latents.mixture import Mixture
from rtil.latents.multicode import MultiCode
from rtil.latents.space import LatentSpace
from rtil.metrics import to_unit
from rtil.models.generator import Generator
from rtil.runtime import seeded

# Distinguishable with every common colour blindness (Okabe and Ito 2008), yellow left out.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS, GREY, DPI = "osD^vPX", "#666666", 144
AXES = {"ratio": "measurements m/n [%]", "factor": "down-sampling factor per side",
        "blur_std": "std of the blur [pixels]", "noise_std": "std of the noise [of [0, 1] images]"}
ERROR_RANGE = 0.5  # of |x_hat - x| on [0, 1] images; larger errors are drawn alike
SMALL = 128        # pixels; the page enlarges smaller images without smoothing
READING = (
    "PSNR and SSIM (psnr_db, ssim) are those of the iterate with the lowest measurement loss, or "
    "with selection=last of the last one; no inverter sees the true image. Oracle PSNR is that of "
    "the best iterate as judged by the true image, which no user has: it is not a result. LMMSE "
    "is the linear estimate from training images, a yardstick without generator. ± is the "
    "half-width of the 95 % confidence interval over n images (Student t), Δ the mean difference "
    "to the baseline over the n images that both have. With several seeds each image is averaged "
    "over them first. The intervals do not cover what another training would change.")
CAPTIONS = {
    "Settings": "Every run: its folder, images and configuration.",
    "Figures": "PSNR of the reported iterate, mean over n images with its 95 % interval; dashed: "
    "the linear estimate, which uses no generator. Points of one measurement stand side by side.",
    "Tables": READING + " Rows in blue gain, rows in orange lose: their interval excludes 0.",
    "Samples": "One row for each generator (of the first seed) and member, the same seeds in all "
    "(paper, Fig. 9). G^k: Gaussian maps of the RTIL family's σ after blocks 1 to k; N: codes.",
    "Reconstructions": "The first images, not chosen, of the first seed, with their PSNR.",
    "Gallery": "The first images, of the first seed, with PSNR (gain over the baseline). Error: "
    "|reconstruction - original|, mean over channels, black at 0, light from 0.5 of white on.",
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
    empty = "LPIPS" if all(line["LPIPS"] == "–" for line in lines) else None
    return [{key: t for key, t in line.items() if key != empty} for line in lines]


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
    lacking, differing = [], {}
    for row in rows:
        where, commands = f"{row['label']} at {row['measurement']}", "\n".join(row["commands"])
        if commands:
            lacking.append((
                f"LMMSE of {where} is missing. Delete {', '.join(row['runs'])}, then run:"
                if "n" in row else f"Missing: {where}. These commands fill it:", commands))
        if row.get("differs"):
            text = "; ".join(row["differs"]).replace(" there,", " in the baseline,")
            differing.setdefault((row["label"], text), []).append(row["measurement"])
    return lacking + [
        (f"Settings of {label} differ from its baseline's at {'; '.join(where)}: {text}.", "")
        for (label, text), where in differing.items()
    ]


def curves(name: str, rows: Sequence[Mapping], path: Path) -> None:
    """Draws PSNR against the knob, a line for each entry and noise level of a series' records."""
    rows = [row for row in rows if "n" in row]
    knob, unit = rows[0]["knob"], 100 if rows[0]["knob"] == "ratio" else 1
    ticks = sorted({row["value"] * unit for row in rows})
    fig = Figure(figsize=(8.4, 5.2), dpi=DPI, layout="constrained")
    ax = fig.subplots()
    span = 1.35**2 * ticks[-1] / ticks[0] if knob != "noise_std" else 1.0
    if span > 1:
        ax.set(xscale="log", xlim=(ticks[0] / 1.35, ticks[-1] * 1.35))
    lines: dict[str, dict[float, tuple]] = {}
    for key, other in (("psnr_db", None), ("lmmse_psnr_db", "LMMSE, no generator")):
        for row in rows:
            if row[key]:  # the estimate without generator is every arm's: the first one's is drawn
                noise = "".join(row["measurement"].partition(",")[1:])
                line = lines.setdefault((other or row["label"]) + noise, {})
                line.setdefault(row["value"] * unit, (row[key]["mean"], row[key]["ci95"]))
    for i, (label, line) in enumerate(lines.items()):
        look = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        shift = 0.008 * (i - len(lines) / 2 + 1)  # sideways, to keep error bars at one x apart
        if label.startswith("LMMSE"):
            look, shift = {"color": GREY, "marker": ".", "linestyle": "--"}, 0.0
        x, (means, halves) = np.array([*line]), np.array([*line.values()]).T
        ax.errorbar(x * span**shift, means, halves, label=label, capsize=4, linewidth=1.8, **look)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.tick_params(labelsize=12)
    ax.set_xlabel(AXES[knob], fontsize=13)
    ax.set_ylabel("PSNR [dB], mean and 95 % interval", fontsize=13)
    ax.grid(True, color="#dddddd", linewidth=0.8)
    ax.legend(fontsize=11)
    counts = sorted({extreme(row["n"] for row in rows) for extreme in (min, max)})
    ax.set_title(f"{name}; n = {' to '.join(map(str, counts))} images", fontsize=13)
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
    generators: Mapping[str, tuple[Generator, Family]], num_images: int, notes: list[str]
) -> list[ImageRow]:
    """Samples of every generator from every member, on the same seeds (paper, Fig. 9).

    generators is {label: (G, its family)}; a member that cannot drive one is noted, not drawn.
    """
    rows = []
    spaces = members(family for _, family in generators.values())
    for label, (G, _) in generators.items():
        for space in spaces:
            try:
                space.check(G)
            except ValueError as error:
                notes.append(f"No samples of {label} from {space.names[0]}: {error}")
                continue
            latents = space.sample(G, num_images, seeded("cpu", 0, "report samples"))
            images = to_unit(space.synthesize(G, latents)).expand(-1, 3, -1, -1)
            sigma = isinstance(space, Additive) and space.depth and f", σ = {space.sigma:g}"
            name = f"{label}  ${space.names[0]}${sigma or ''}"
            rows.append(ImageRow(name, [*images.permute(0, 2, 3, 1).numpy()], [""] * num_images))
    return rows


def members(families: Iterable[Family]) -> list[LatentSpace]:
    """G^0 .. G^K of the additive families with their sigma, and N of the multi-code ones.

    N = 1 is the plain generator too, so G^0 alone adds nothing beside it.
    """
    additive, codes = {Additive(0)}, set()
    for family in families:
        for space in family.spaces:
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
    values = (s.rows.get(name, {}).get(key) for s in shown)
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
        body += f'<tr data-keys="{" ".join(f"{key:.6g}" for key in keys)}">'
        body += f"<th>{escape(name)}</th>{''.join(cells)}</tr>"
    labels = [text for s in shown for text in (s.label, f"|error| of {s.label}")]
    html = grid_html(["image", "original", "measurement", "LMMSE", *labels], body)
    return f'<h3>{escape(title)}</h3><div class="gallery"><p>{buttons}</p>{html}</div>'


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
        html += paragraphs([text]) + (f"<pre>{escape(commands)}</pre>" if commands else "")
    return html


def figure(path: Path, caption: str) -> str:
    """A PNG file inside the page, with its caption."""
    image = f'<img src="{uri(path.read_bytes())}" alt="{escape(path.stem)}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def paragraphs(lines: Iterable[str]) -> str:
    """Remarks."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def settings(runs: Iterable) -> str:
    """The folder, size and configuration of every run."""
    text = ""
    for run in runs:
        lines = [f"{key}: {value}" for key, value in run.config.items() if key != "data.origin"]
        text += (f"<details><summary>{escape(str(run.path))}, {len(run.rows)} images</summary>"
                 f"<pre>{escape(chr(10).join(lines))}</pre></details>")
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
section { background: #fff; border-radius: 8px; margin: 1.2rem 0; padding: 1.2rem 1.4rem; }
h1, h2, h3 { margin: .2rem 0 .8rem; } h3 { font-size: 1rem; margin-top: 1.6rem; }
figure { margin: 0 0 1.6rem; } figure img { max-width: min(100%, 60rem); }
figcaption, p { color: #4b5159; max-width: 64rem; font-size: .92rem; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid #e6e8eb; }
thead th { background: #f0f2f5; vertical-align: bottom; } td { white-space: nowrap; }
.better td { background: #e6f1fa; } .worse td { background: #fdeee2; } .missing { color: #8a9099; }
.wide, pre { overflow-x: auto; } pre { background: #f6f8fa; padding: .8rem; font-size: .83rem; }
.gallery td { text-align: center; vertical-align: top; padding: .3rem; font-size: .8rem; }
.gallery img { width: 128px; } .gallery .small { width: 96px; image-rendering: pixelated; }
button { margin: 0 .4rem .3rem 0; } .on { background: #d6e8f7; } a, summary { color: #0b5cad; }
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
