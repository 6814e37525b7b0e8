"""What a user gives to `python -m rtil.invert`: measurements and masks in files.

`survey` reads every file once, before a generator is loaded; `rtil.inversion.user_files` inverts
them. File formats are in `rtil.inversion.measurement_file`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from omegaconf import DictConfig, OmegaConf

from rtil.data.files import SUFFIXES
from rtil.inversion import measurement_file as measurement
from rtil.operators import VECTORS
from rtil.runs.keys import KEYS, flatten
from rtil.runs.overrides import as_text, typed

ENDINGS = (*SUFFIXES, ".npz")
MAX_NAMED = 5  # files named in a message
NEEDS_INPUT = tuple(row.name for row in KEYS if row.needs == "input")
NOT_WITH_INPUT = tuple(row.name for row in KEYS if row.needs == "held-out images")
RESULT, DRAWN = "-reconstruction", "-generated"  # follow the file's name in those of its results


class Item(NamedTuple):
    """One measurement: its file, the mask's, and what was found in them.

    name: of the results. stream: what the inversion's random draws are seeded with.
    shape: (height, width) of a picture, all sides of a saved measurement.
    masked: whether a file says which pixels are observed, instead of `ratio` and `seed`.
    colour: whether a picture would lose something as a grey one.
    image_shape: (C, H, W) of what was measured, where a saved measurement says so.
    sha256: of the files.
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

    @property
    def saved(self) -> bool:
        """Whether it is a saved measurement and no picture."""
        return self.path.suffix.lower() == ".npz"


def survey(cfg: DictConfig, overrides: Iterable[str]) -> list[Item]:
    """Reads what `input` and `mask` name, so that no mistake in it waits for a generator.

    A mask without `input` is one for held-out images: its share of observed pixels becomes
    `ratio`.

    Args:
        cfg: composed from invert.yaml.
        overrides: "key=value" texts given by the user.

    Returns:
        The measurements; none without `input`.

    Raises:
        FileNotFoundError: nothing at a path. ValueError: files or settings that cannot be used.
    """
    given = [*typed(overrides)]
    for key in ("input", "mask", "output"):
        cfg[key] = None if cfg[key] is None else str(cfg[key])  # a folder may be named 2024
    if cfg.mask and cfg.task.name != "inpainting":
        raise ValueError(
            f"invert: mask={cfg.mask} belongs to task=inpainting, not task={cfg.task.name}."
        )
    if cfg.input is None:
        for key in NEEDS_INPUT:
            if cfg[key] is not None:
                raise ValueError(
                    f"invert: {key}={cfg[key]} says what becomes of a file of yours; "
                    "it needs input=FILE."
                )
        if cfg.mask:
            observed = measurement.read_mask(existing("mask", cfg.mask))
            share = int(observed.sum()) / observed.numel()
            if "ratio" in given and cfg.ratio != share:
                raise ValueError(
                    f"invert: ratio={cfg.ratio} asks for a mask that is drawn, and "
                    f"mask={cfg.mask} observes {share}. Leave one of them out."
                )
            cfg.ratio = share
        return []
    check_settings(cfg, given)
    path = existing("input", cfg.input)
    paths = pictures(path, cfg.mask) if path.is_dir() else [path]
    masks = find_masks(cfg.mask, path, paths)
    return [examine(cfg, p, mask) for p, mask in zip(paths, masks)]


def pictures(folder: Path, mask: str | None) -> list[Path]:
    """The measurements of a folder, without subfolders, its mask and results that lie in it.

    Raises:
        ValueError: there are none, or two of one name.
    """
    there = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    stems, found = {p.stem for p in there}, {}
    for path in there:
        is_result = any(
            path.stem.removesuffix(end) in stems
            for end in (RESULT, DRAWN)
            if path.stem.endswith(end)
        )
        is_mask = mask and path.resolve() == Path(mask).expanduser().resolve()
        if path.suffix.lower() not in ENDINGS or is_result or is_mask:
            continue
        other = found.setdefault(path.stem.casefold(), path)
        if other is not path:
            raise ValueError(
                f"invert: {other.name} and {path.name} of input={folder} would share "
                "one result; give them different names."
            )
    if not found:
        raise ValueError(
            f"invert: input={folder} holds no file that ends in {' '.join(ENDINGS)}; "
            "subfolders are not read."
        )
    return [*found.values()]


def check_settings(cfg: DictConfig, given: Sequence[str]) -> None:
    """Raises ValueError for settings that do not go with `input`."""
    for key in NOT_WITH_INPUT:
        if any(name == key or name.startswith(f"{key}.") for name in given):
            raise ValueError(
                f"invert: {key} is for held-out images and has no effect on input={cfg.input}; "
                "remove it. output=DIR says where results go."
            )
    if cfg.selection == "oracle":
        raise ValueError(
            f"invert: selection=oracle picks iterates by the true image, and input={cfg.input} "
            "has none; add selection=best."
        )
    if cfg.fit not in (None, *measurement.FITS):
        allowed = ", ".join(measurement.FITS)
        raise ValueError(f"invert: fit={cfg.fit} must be one of {allowed}.")
    if cfg.task.name != "inpainting":
        if cfg.fit not in (None, "error"):
            raise ValueError(
                f"invert: fit={cfg.fit} would scale what task={cfg.task.name} measured, and with "
                "it change the measurement; only task=inpainting takes pictures of other sizes."
            )
        if cfg.keep_observed is not None:
            raise ValueError(
                "invert: keep_observed belongs to task=inpainting: no other task "
                "observes pixels of the image."
            )
    if cfg.keep_observed not in (None, True, False):
        raise ValueError(f"invert: keep_observed={cfg.keep_observed} must be true or false.")
    if cfg.mask and "ratio" in given:
        raise ValueError(
            f"invert: ratio={cfg.ratio} asks for a mask that is drawn, and "
            f"mask={cfg.mask} is given. Leave one of them out."
        )
    if cfg.output and Path(cfg.output).exists() and not Path(cfg.output).is_dir():
        raise ValueError(f"invert: output={cfg.output} is a file; it must be a directory.")


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
    there = {p.stem: p for p in sorted(root.iterdir()) if p.suffix.lower() in SUFFIXES}
    missing = [p.name for p in paths if p.stem not in there]
    if missing:
        more = ", ..." if len(missing) > MAX_NAMED else ""
        raise FileNotFoundError(
            f"invert: mask={mask} has no mask for {len(missing)} of {len(paths)} pictures: "
            f"{', '.join(missing[:MAX_NAMED])}{more}. A mask is named as its picture is."
        )
    return [there[p.stem] for p in paths]


def examine(cfg: DictConfig, path: Path, mask: Path | None) -> Item:
    """Reads one measurement and its mask whole.

    Raises:
        ValueError: unreadable, of a kind that the task does not take, or measured otherwise.
    """
    where, task = f"invert: {path}", cfg.task.name
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"{where} ends in none of {' '.join(ENDINGS)}. A vector of measurements "
            "is saved by numpy.savez(FILE, y=y)."
        )
    digests = {
        f"{key}_sha256": hashlib.sha256(p.read_bytes()).hexdigest() if p else None
        for key, p in (("input", path), ("mask", mask))
    }
    if path.suffix.lower() == ".npz":
        saved = measurement.load(path)
        if mask and saved.mask is not None:
            raise ValueError(f"{where} holds its own mask; leave out mask={mask}.")
        check_measured(cfg, path, saved.settings)
        stream, shape = saved.settings.get("id", path.stem), saved.settings.get("image_shape")
        masked = mask is not None or saved.mask is not None
        return Item(
            path.stem,
            str(stream),
            path,
            mask,
            tuple(saved.y.shape),
            masked,
            False,
            tuple(shape) if isinstance(shape, list) else None,
            digests,
        )
    if task in VECTORS:
        raise ValueError(
            f"{where} is a picture, and task={task} measures vectors: give a .npz, "
            "as save_measurements=true or numpy.savez(FILE, y=y) make it."
        )
    if task == "inpainting" and not mask:
        raise ValueError(
            f"{where}: task=inpainting needs to know which pixels are damaged: "
            "mask=FILE, a picture of the same size, dark where they are."
        )
    image = measurement.read_picture(path)
    if mask:
        observed = measurement.read_mask(mask)
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
        digests,
    )


def check_measured(cfg: DictConfig, path: Path, settings: Mapping) -> None:
    """Raises ValueError where a saved measurement was not made under the settings given."""
    there = flatten({k: v for k, v in settings.items() if k not in ("id", "image_shape")})
    here = flatten(OmegaConf.to_container(cfg, resolve=True))
    differs = {key: value for key, value in there.items() if here.get(key) != value}
    if differs:
        lines = [
            f"{key}: {value!r} there, {here.get(key)!r} here" for key, value in differs.items()
        ]
        words = [f"{key.removesuffix('.name')}={as_text(value)}" for key, value in differs.items()]
        if "seed" in differs and not cfg.generator:
            words.append("and generator=FILE (seed also chooses the generator)")
        raise ValueError(
            f"invert: {path} was measured under other settings:\n  "
            + "\n  ".join(lines)
            + f"\nAdd {' '.join(words)}."
        )
