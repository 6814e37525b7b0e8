"""What a user gives to `python -m rtil.invert`: measurements and masks in files.

`survey` reads every file once, before a generator is loaded, and changes nothing;
`rtil.inversion.user_files` inverts them. File formats are in `rtil.inversion.measurement_file`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rtil.data.limits import Limits
from rtil.data.listing import SUFFIXES, in_words
from rtil.inversion import measurement_file as measurement
from rtil.inversion.selection import rules
from rtil.operators.task import takes
from rtil.process.digest import brief
from rtil.runs.keys import KEYS, flatten, is_under
from rtil.runs.overrides import as_text

log = logging.getLogger("rtil.inversion.survey")
ENDINGS = (*SUFFIXES, ".npz")
MAX_NAMED = 5  # files named in a message
NEEDS_INPUT = tuple(row.name for row in KEYS if row.needs == "input")
NOT_WITH_INPUT = tuple(row.name for row in KEYS if row.needs == "held-out images")
RESULT, DRAWN = "-reconstruction", "-generated"  # follow the file's name in those of its results


@dataclass(frozen=True)
class Asked:
    """What a command says of files: keys of configs/invert.yaml of the same names.

    task: of configs/task. selection: name of a rule.
    settings: all of them, resolved and flat, which a saved measurement is compared with.
    typed: keys that the user gave. limits: of files, from the `data` group.
    """

    input: str | None
    mask: str | None
    output: str | None
    fit: str | None
    keep_observed: bool | None
    task: Mapping
    selection: str
    settings: Mapping[str, object]
    typed: frozenset[str]
    limits: Limits

    @property
    def knob(self) -> str:
        """The setting that the task is swept over: of a mask that is drawn, its share."""
        return str(self.task["knob"])

    @property
    def drawn(self) -> str:
        """The knob and its value, where they draw a mask."""
        return f"{self.knob}={self.settings[self.knob]}"

    @property
    def takes_mask(self) -> bool:
        """Whether a mask can say what the task observes, instead of its knob and seed."""
        return takes(self.task, "mask")


class Item(NamedTuple):
    """One measurement: its file, the mask's, and what was found in them.

    name: of the results. stream: what the inversion's random draws are seeded with.
    shape: (height, width) of a picture, all sides of a saved measurement.
    masked: whether a file says which pixels are observed, instead of `ratio` and `seed`.
    colour: whether a picture would lose something as a grey one.
    image_shape: (C, H, W) of what was measured, where a saved measurement says so.
    sha256: of the files. limits: that they were read within, and are again.
    """

    name: str
    stream: str
    path: Path
    mask: Path | None
    shape: tuple[int, ...]
    masked: bool
    colour: bool
    image_shape: tuple[int, ...] | None
    sha256: dict[str, str | None]
    limits: Limits

    @property
    def saved(self) -> bool:
        """Whether it is a saved measurement and no picture."""
        return self.path.suffix.lower() == ".npz"


def survey(asked: Asked) -> list[Item]:
    """Reads what `input` and `mask` name, so that no mistake in it waits for a generator.

    Returns:
        The measurements; none without `input`.

    Raises:
        FileNotFoundError: nothing at a path. ValueError: files or settings that cannot be used.
    """
    if asked.mask and not asked.takes_mask:
        raise ValueError(
            f"invert: mask={asked.mask} belongs to task=inpainting, not task={asked.task['name']}."
        )
    if asked.input is None:
        check_without_input(asked)
        return []
    check_with_input(asked)
    # Every file is read whole now: a folder is not found damaged after an hour.
    path = existing("input", asked.input)
    paths = pictures(path, asked.mask) if path.is_dir() else [path]
    masks = find_masks(asked.mask, path, paths)
    return [examine(asked, p, mask) for p, mask in zip(paths, masks)]


def observed_share(asked: Asked) -> float | None:
    """The share of pixels that a mask for held-out images observes, in place of the knob.

    None without such a mask.

    Raises:
        FileNotFoundError: nothing at its path. ValueError: unreadable, or another share typed.
    """
    if asked.input is not None or not asked.mask:
        return None
    path = existing("mask", asked.mask)
    observed = measurement.read_mask(path, asked.limits)
    say_transparency("mask", path, asked.limits)
    share = int(observed.sum()) / observed.numel()
    if asked.knob in asked.typed and asked.settings[asked.knob] != share:
        raise ValueError(
            f"invert: {asked.drawn} asks for a mask that is drawn, and "
            f"mask={asked.mask} observes {share}. Leave one of them out."
        )
    return share


def pictures(folder: Path, mask: str | None) -> list[Path]:
    """The measurements of a folder, without subfolders, its mask and results that lie in it.

    Raises:
        ValueError: there are none, or two of one name.
    """
    files = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    stems = {p.stem for p in files}
    inputs: dict[str, Path] = {}
    others: Counter[str] = Counter()
    mask_file = Path(mask).expanduser().resolve() if mask else None
    for path in files:
        is_result = any(
            path.stem.removesuffix(end) in stems
            for end in (RESULT, DRAWN)
            if path.stem.endswith(end)
        )
        is_mask = path.resolve() == mask_file
        if is_result or is_mask:
            continue
        if path.suffix.lower() not in ENDINGS:
            others["subfolders" if path.is_dir() else path.suffix.lower() or "no ending"] += 1
            continue
        # Results have the ending .png whatever the input's, on some systems in any case.
        other = inputs.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise ValueError(
                f"invert: {other.name} and {path.name} of input={folder} would share "
                "one result; give them different names."
            )
    if not inputs:
        raise ValueError(
            f"invert: input={folder} holds no file that ends in {' '.join(ENDINGS)}; "
            "subfolders are not read."
        )
    if others:
        log.info("input=%s: %d files; left out: %s.", folder, len(inputs), in_words(others))
    return [*inputs.values()]


def check_without_input(asked: Asked) -> None:
    """Raises ValueError for settings that say what becomes of a file."""
    for key in NEEDS_INPUT:
        value = asked.settings.get(key)
        if value is not None:
            raise ValueError(
                f"invert: {key}={value} says what becomes of a file of yours; it needs input=FILE."
            )


def check_with_input(asked: Asked) -> None:
    """Raises ValueError for settings that do not go with `input`."""
    for key in NOT_WITH_INPUT:
        if any(is_under(name, (key,)) for name in asked.typed):
            raise ValueError(
                f"invert: {key} is for held-out images and has no effect on input={asked.input}; "
                "remove it. output=DIR says where results go."
            )
    if rules()[asked.selection].by_truth:
        raise ValueError(
            f"invert: selection={asked.selection} picks iterates by the true image, and "
            f"input={asked.input} has none; add selection=best."
        )
    if asked.fit not in (None, *measurement.FITS):
        allowed = ", ".join(measurement.FITS)
        raise ValueError(f"invert: fit={asked.fit} must be one of {allowed}.")
    if not asked.takes_mask:
        check_whole(asked)
    if asked.keep_observed not in (None, True, False):
        raise ValueError(f"invert: keep_observed={asked.keep_observed} must be true or false.")
    if asked.mask and asked.knob in asked.typed:
        raise ValueError(
            f"invert: {asked.drawn} asks for a mask that is drawn, and "
            f"mask={asked.mask} is given. Leave one of them out."
        )
    if asked.output and Path(asked.output).exists() and not Path(asked.output).is_dir():
        raise ValueError(f"invert: output={asked.output} is a file; it must be a directory.")


def check_whole(asked: Asked) -> None:
    """Raises ValueError for settings of a task with masks, where the task has none."""
    if asked.fit not in (None, "error"):
        raise ValueError(
            f"invert: fit={asked.fit} would scale what task={asked.task['name']} measured, and "
            "with it change the measurement; only task=inpainting takes pictures of other sizes."
        )
    if asked.keep_observed is not None:
        raise ValueError(
            "invert: keep_observed belongs to task=inpainting: no other task "
            "observes pixels of the image."
        )


def existing(key: str, value: str) -> Path:
    """The path that a key names. Raises FileNotFoundError where there is nothing."""
    path = Path(value).expanduser()
    if not value or not path.exists():
        raise FileNotFoundError(f"invert: {key}={value}: nothing at {path.absolute()}.")
    return path


def find_masks(mask: str | None, path: Path, paths: Sequence[Path]) -> list[Path | None]:
    """The mask of each file: one for all, or those of a folder with the same names.

    Raises:
        FileNotFoundError: some are missing. ValueError: a folder of masks for a single picture.
    """
    if not mask:
        return [None] * len(paths)
    root = existing("mask", mask)
    if not root.is_dir():
        return [root] * len(paths)
    if not path.is_dir():
        raise ValueError(
            f"invert: mask={mask} is a folder and input={path} a file: name its mask."
        )
    masks = {p.stem: p for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES}
    missing = [p.name for p in paths if p.stem not in masks]
    if missing:
        more = ", ..." if len(missing) > MAX_NAMED else ""
        raise FileNotFoundError(
            f"invert: mask={mask} has no mask for {len(missing)} of {len(paths)} pictures: "
            f"{', '.join(missing[:MAX_NAMED])}{more}. A mask is named as its picture is."
        )
    return [masks[p.stem] for p in paths]


def examine(asked: Asked, path: Path, mask: Path | None) -> Item:
    """Reads one measurement and its mask whole.

    Raises:
        ValueError: unreadable, of a kind that the task does not take, or measured otherwise.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"invert: {path} ends in none of {' '.join(ENDINGS)}. A vector of measurements "
            "is saved by numpy.savez(FILE, y=y)."
        )
    if path.suffix.lower() == ".npz":
        return examine_saved(asked, path, mask)
    return examine_picture(asked, path, mask)


def digests(path: Path, mask: Path | None, limits: Limits) -> dict[str, str | None]:
    """SHA-256 of a measurement and its mask, under their keys in records.

    Raises:
        ValueError: one cannot be read; names it.
    """
    found: dict[str, str | None] = {}
    for key, file in {"input": path, "mask": mask}.items():
        try:
            digest = hashlib.sha256(limits.read(file)).hexdigest() if file else None
        except (OSError, ValueError) as error:
            raise ValueError(f"invert: {key}: {file} cannot be read ({error}).") from error
        found[f"{key}_sha256"] = digest
    return found


def say_transparency(key: str, path: Path, limits: Limits) -> None:
    """Says how the transparency of a picture is read, where it has any."""
    if measurement.is_transparent(path, limits):
        meaning = "white" if key == "input" else "white, observed: only dark pixels are missing"
        log.warning("%s: transparent pixels of %s are read as %s.", key, path, meaning)


def examine_saved(asked: Asked, path: Path, mask: Path | None) -> Item:
    """A saved measurement. Raises ValueError as `examine` does."""
    sha256 = digests(path, mask, asked.limits)
    saved = measurement.load(path, asked.limits)
    if saved.as_pixels and asked.task["measures"] == "vector":
        raise ValueError(
            f"invert: {path}: y is stored as whole numbers, and task={asked.task['name']} measures"
            " vectors of real ones, in the units of what it measures of an image in [-1, 1]. Save "
            "those by y.astype(numpy.float32)."
        )
    if mask and saved.mask is not None:
        raise ValueError(f"invert: {path} holds its own mask; leave out mask={mask}.")
    check_measured(asked, path, saved.settings)
    say_unit_range(path, saved)
    stream = str(saved.settings.get("id", path.stem))
    image_shape = saved.settings.get("image_shape")
    return Item(
        path.stem,
        stream,
        path,
        mask,
        tuple(saved.y.shape),
        mask is not None or saved.mask is not None,
        False,
        tuple(image_shape) if isinstance(image_shape, list) else None,
        sha256,
        asked.limits,
    )


def say_unit_range(path: Path, saved: measurement.Saved) -> None:
    """Warns of an image of a user's own that looks as one of the [0, 1] range."""
    y = saved.y
    if y.ndim == 3 and not saved.settings and not saved.as_pixels and 0 <= y.min() < y.max() <= 1:
        log.warning(
            "%s: no number of y is below 0. Images are in [-1, 1]; of one in [0, 1] save 2 y - 1.",
            path,
        )


def examine_picture(asked: Asked, path: Path, mask: Path | None) -> Item:
    """A picture. Raises ValueError as `examine` does."""
    where, name = f"invert: {path}", asked.task["name"]
    sha256 = digests(path, mask, asked.limits)
    if asked.task["measures"] == "vector":
        raise ValueError(
            f"{where} is a picture, and task={name} measures vectors: give a .npz, "
            "as save_measurements=true or numpy.savez(FILE, y=y) make it."
        )
    if asked.takes_mask and not mask:
        raise ValueError(
            f"{where}: task={name} needs to know which pixels are damaged: "
            "mask=FILE, a picture of the same size, dark where they are."
        )
    image = measurement.read_picture(path, asked.limits)
    say_transparency("input", path, asked.limits)
    if mask:
        observed = measurement.read_mask(mask, asked.limits)
        say_transparency("mask", mask, asked.limits)
        if observed.shape != (image.height, image.width):
            height, width = observed.shape
            raise ValueError(
                f"{where} has {image.width}x{image.height} pixels and its mask "
                f"{mask} {width}x{height}; both must have the same size."
            )
    return Item(
        path.stem,
        path.stem,
        path,
        mask,
        (image.height, image.width),
        mask is not None,
        measurement.is_colour(image),
        None,
        sha256,
        asked.limits,
    )


def check_measured(asked: Asked, path: Path, settings: Mapping) -> None:
    """Raises ValueError where a saved measurement was not made under the settings given."""
    measured = flatten(
        {key: value for key, value in settings.items() if key not in ("id", "image_shape")}
    )
    here = asked.settings
    # What the file does not say is not compared: a vector alone has no settings.
    differs = {key: value for key, value in measured.items() if here.get(key) != value}
    if not differs:
        return
    lines = []
    for key, value in differs.items():
        lines.append(f"{brief(key)[1:-1]}: {brief(value)} there, {here.get(key)!r} here")
    words = [f"{key.removesuffix('.name')}={as_text(value)}" for key, value in differs.items()]
    if "seed" in differs and not here.get("generator"):
        words.append("and generator=FILE (seed also chooses the generator)")
    raise ValueError(
        f"invert: {path} was measured under other settings:\n  "
        + "\n  ".join(lines)
        + f"\nAdd {' '.join(words)}."
    )
