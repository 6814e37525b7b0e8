"""What a user gives to `python -m rtil.invert`: measurements and masks in files.

`survey` reads every file once, before a generator is loaded, and changes nothing;
`rtil.inversion.user_files` inverts them. What is read of one is in `rtil.inversion.item`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rtil.data.listing import SUFFIXES, in_words
from rtil.inversion import measurement_file as measurement
from rtil.inversion.asked import Asked, check_with_input, check_without_input
from rtil.inversion.item import ENDINGS, Item, examine, say_transparency

log = logging.getLogger("rtil.inversion.survey")
MAX_NAMED = 5  # files named in a message
# What follows the file's name in those of its results.
RESULT, DRAWN, STD = "-reconstruction", "-generated", "-std"


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
            for end in (RESULT, DRAWN, STD)
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
