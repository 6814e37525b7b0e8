"""From a foreign file to generator.pt and back: read, recognise, convert, check, write.

The check draws the same latents twice, in float64: with rtil's network on the converted weights,
and from the foreign tensors by their layout's own definition (rtil.importers.plain). A file is
only written where the two agree.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from rtil import checkpoint
from rtil.importers import authors, genforce, nvlabs, rosinality, unpickle
from rtil.importers.layout import Foreign, Spec
from rtil.importers.setup import Choices, configuration
from rtil.models.generator import Generator
from rtil.models.stylegan2 import StyleGAN2Generator
from rtil.process.brief import brief
from rtil.process.command import check_writable
from rtil.process.instantiate import instantiate
from rtil.process.rng import seeded

LAYOUTS = {
    "authors": authors.find,
    "rosinality": rosinality.find,
    "nvlabs": nvlabs.find,
    "genforce": genforce.find,
}
TOLERANCE = 1e-4  # largest relative difference of the check
UNSAID = Choices()
CHECK_CODES = 2  # latents it draws
MEAN_STYLES = 10_000  # styles behind an export's latent_avg


def recognise(path: str | Path, layout: str = "auto") -> Foreign:
    """Reads a file without running its code and finds the generator in it.

    Args:
        path: the foreign file.
        layout: one of LAYOUTS, or auto to try them all.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it would run code, is damaged, or holds no generator that rtil can hold.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ValueError(f"import: layout={layout} must be auto, {', '.join(LAYOUTS)}.")
    content = unpickle.read(path)
    for name, find in LAYOUTS.items():
        found = find(content) if layout in ("auto", name) else None
        if found is not None:
            return found
    inside = brief([*content]) if isinstance(content, dict) else brief(content)
    if isinstance(content, dict) and content.get("format") == checkpoint.EXPORT:
        inside = "a generator of rtil already: use it as it is"
    raise ValueError(
        f"{path} holds no generator in the layout of "
        f"{layout if layout != 'auto' else ', '.join(LAYOUTS)}; it holds {inside}."
    )


def build(weights: dict[str, Tensor], config: dict) -> Generator:
    """Our generator with these weights; also checks that its latent family fits.

    Raises:
        ValueError: the family does not fit the generator.
    """
    G = instantiate(config["model"]["generator"])
    checkpoint.load_weights(G, weights, "the converted file")
    for space in instantiate(config["rtil"]["family"]).spaces:
        space.check(G)
    return G.eval().requires_grad_(False)


@torch.no_grad()
def difference(foreign: Foreign, G: Generator) -> tuple[float, tuple[float, float]]:
    """Largest relative difference of the images drawn from both, and the images' range.

    The difference is the largest over pixels, divided by the largest magnitude, over CHECK_CODES
    latents and, of a growing generator, every size. G is in float64 afterwards.
    """
    G, rng, worst = G.double(), seeded("cpu", 0, "import"), 0.0
    low, high = torch.inf, -torch.inf
    for _ in range(CHECK_CODES):
        z = torch.randn(foreign.spec.z_dim, generator=rng, dtype=torch.float64)
        images = foreign.images(z)
        for stage, theirs in enumerate(reversed(images)):
            G.num_blocks = G.max_blocks - stage
            ours = G(z[None])
            error = ((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30)).item()
            worst = error if not error <= worst else worst  # a NaN stays
        G.num_blocks = G.max_blocks
        low, high = min(low, images[-1].min().item()), max(high, images[-1].max().item())
    return worst, (low, high)


def verify(foreign: Foreign, G: Generator) -> tuple[float, tuple[float, float]]:
    """`difference`, where it is small enough.

    Raises:
        ValueError: the images differ.
    """
    worst, span = difference(foreign, G)
    if not worst <= TOLERANCE:
        raise ValueError(
            f"import: self check failed: images of the imported generator differ from those of "
            f"the file's own definition by {worst:.2e} of their largest value; the limit is "
            f"{TOLERANCE:g}. Nothing was written."
        )
    return worst, span


def import_file(
    source: str | Path,
    out: str | Path | None,
    layout: str = "auto",
    choices: Choices = UNSAID,
    force: bool = False,
) -> list[str]:
    """Writes the generator of a foreign file as generator.pt, once it passed the check.

    Args:
        source: the foreign file.
        out: the file to write; None only reports.
        layout: one of LAYOUTS or auto.
        choices: how it was trained; `Choices.complete` fills in what is not said.
        force: replaces an existing file.

    Returns:
        The report, by lines.

    Raises:
        FileNotFoundError: no such file.
        ValueError: out exists; the file would run code, is damaged or does not fit; the check
            failed. What was at out stays.
    """
    if out is not None:
        refuse_existing(out, force)
    source, foreign = Path(source), recognise(source, layout)
    size, said = foreign.spec, choices
    choices = choices.complete(source.stem, size.resolution)
    guesses = [*foreign.guesses, *said.guessed(choices)]
    weights = foreign.weights()
    config = configuration(size, choices)
    G = build(weights, config)
    worst, span = verify(foreign, G)
    lines = describe(source, foreign, G, worst, span)
    lines += [f"guessed: {guess} (the file does not say)" for guess in guesses]
    lines.append(f"taken as: rtil={choices.rtil} scale={choices.scale} data={choices.data}")
    if out is not None:
        origin = {
            "file": source.name,
            "layout": foreign.layout,
            "part": foreign.part,
            "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
            "check": worst,
            "guessed": guesses,
        }
        checkpoint.save(
            {
                "format": checkpoint.EXPORT,
                "G_ema": weights,
                "config": config,
                "nimg": 0,
                "step": 0,
                "origin": origin,
            },
            Path(out),
        )
        method = "" if size.model == "stylegan2" else " inverter=mgan"
        lines += [
            f"wrote {out}; next:",
            f"  python -m rtil.invert generator={out} data=...{method} task=cs ratio=0.1",
        ]
    return lines


def describe(
    source: Path, foreign: Foreign, G: Generator, worst: float, span: tuple[float, float]
) -> list[str]:
    """What was found, by lines."""
    size, count = foreign.spec, sum(p.numel() for p in G.parameters())
    mapping = f", {size.num_mapping} mapping layers with multiplier {size.mapping_lr:g}"
    form = " ".join(f"{key}={value}" for key, value in size.form.items())
    lines = [
        f"{source}: {type(G).__name__} in the layout of {foreign.layout} ({foreign.part})",
        f"size: {size.resolution}x{size.resolution} pixels, {size.image_channels} colour "
        f"channels, z0 of {size.z_dim}{mapping if size.num_mapping else ''}, {count} parameters",
        "channels: " + " ".join(f"{side}:{width}" for side, width in size.channels.items()),
        *([f"form: {form}"] if form else ()),
        f"colour range: [-1, 1] by its layout; the check's images span [{span[0]:.2f}, "
        f"{span[1]:.2f}]",
        f"check: largest relative difference {worst:.1e} over {CHECK_CODES} latents "
        f"(limit {TOLERANCE:g})",
    ]
    if span[0] > -0.05:
        lines.append("WARNING: no pixel is below 0, as if it drew in [0, 1]: rtil reads [-1, 1].")
    return lines + [f"note: {note}" for note in foreign.notes]


def export_file(source: str | Path, out: str | Path, force: bool = False) -> list[str]:
    """Writes rtil's StyleGAN2 in rosinality's layout (g_ema, latent_avg), and checks it.

    Args:
        source: generator.pt or checkpoint-*.pt.
        out: the file to write.
        force: replaces an existing file.

    Returns:
        The report, by lines.

    Raises:
        FileNotFoundError, ValueError: no such file; out exists; another generator than a
            StyleGAN2 in colour, or one that normalises its maps; the check failed.
    """
    refuse_existing(out, force)
    G, config = checkpoint.load_generator(source)
    if not isinstance(G, StyleGAN2Generator):
        raise ValueError(
            f"export: {source} holds a {type(G).__name__}; rosinality's layout "
            "holds a StyleGAN2Generator."
        )
    if G.normalise:
        raise ValueError(
            f"export: {source} was trained with model.generator.normalise=true, "
            "which no other layout knows."
        )
    node = config["model"]["generator"]
    size = Spec(
        "stylegan2",
        dict(G.table),
        G.image_channels,
        G.z_dim,
        node["num_mapping"],
        node["mapping_lr"],
    )
    state = rosinality.export(G, size)
    mean = G.mean_w(MEAN_STYLES, seeded("cpu", 0, "mean style"))
    content: dict[str, object] = {"g_ema": state, "latent_avg": mean}
    foreign = rosinality.find(content)
    assert foreign is not None, "what rosinality.export wrote has its layout"
    worst, _ = verify(foreign, G)
    checkpoint.save(content, Path(out))
    lines = [
        f"wrote {out}: g_ema and latent_avg in rosinality's layout",
        f"check: largest relative difference {worst:.1e} over {CHECK_CODES} latents",
    ]
    for multiplier in (1, 2):
        if size.channels == {side: _rosinality_width(side, multiplier) for side in size.channels}:
            return [*lines, f"load it with channel_multiplier={multiplier}"]
    return [*lines, f"note: its class has another channel table; give it {size.channels}"]


def _rosinality_width(side: int, multiplier: int) -> int:
    """Channels that its class gives maps of a side."""
    return 512 if side <= 32 else min(512, 32 * 512 * multiplier // side)


def refuse_existing(out: str | Path, force: bool) -> None:
    """Raises ValueError where out cannot be written."""
    if Path(out).exists() and not force:
        raise ValueError(f"{out} exists; --force replaces it.")
    folder = Path(out).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{out}: there is no folder {folder}. Make it, or name another.")
    check_writable(folder, f"--out {out}")
