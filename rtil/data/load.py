"""Image data from a yaml of configs/data: which class, which files, which images of them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from rtil.data.base import ImageData
from rtil.data.files import ImageFiles
from rtil.data.folder import ImageFolder, split_indices


def load_data(
    data: Mapping[str, Any],
    resolution: int,
    split: str,
    channels: int | None = None,
    min_images: int = 1,
) -> ImageData:
    """Build one split of the data set that a yaml of `configs/data/` describes.

    Args:
        data: the yaml, resolved, as a plain mapping.
        resolution: image side in pixels.
        split: "train", "val", "test", or for images in files "all".
        channels: 1 or 3 overrides the yaml's.
        min_images: how many the caller needs.

    Raises:
        FileNotFoundError, ValueError: see `files_of`, `ImageFolder` and `Glyphs`; an unknown
            source, too few images.
    """
    where = f"data={data['name']}"
    channels = data["channels"] if channels is None else channels
    if data["source"] == "glyphs":
        from rtil.data.glyphs import Glyphs  # it imports the contract from here

        length = data.get(f"num_{split}") or 0
        grey_or_given = 1 if channels == "auto" else channels
        images: ImageData = Glyphs(resolution, split, length, data["seed"], grey_or_given)
    elif data["source"] == "folder":
        path, counts = files_of(data, split)
        options = {key: data[key] for key in ("split_seed", "cache_gb")}
        images = ImageFolder(path, resolution, split, channels, **counts, **options)
    else:
        raise ValueError(f"{where}: source={data['source']!r}; allowed are glyphs, folder")
    if len(images) < min_images:
        raise ValueError(
            f"{where}: the {split} split has {len(images)} images and {min_images} are needed; "
            "add images, or change data.num_train, data.num_val, data.num_test"
        )
    return images


def files_of(data: Mapping[str, Any], split: str) -> tuple[Path, dict[str, int | None]]:
    """Where the files of a split are, and how many are cut from them.

    Returns:
        The folder or zip; num_train, num_val and num_test.

    Raises:
        FileNotFoundError: nothing at data["path"]; says how to make it if the yaml has an origin.
        ValueError: no path, or one that two of the splits are taken from.
    """
    where = f"data={data['name']}"
    if data["path"] in (None, "", "???"):  # the last is OmegaConf's mandatory value
        raise ValueError(f"{where}: path is not set; give data.path=DIR or data.path=FILE.zip")
    path = Path(data["path"]).expanduser()
    if data.get("origin") and not path.exists():
        raise FileNotFoundError(
            f"{where}: no {path.name} in {path.parent.absolute()}. Get {data['origin']}, then "
            f"run\n    python scripts/prepare_data.py FOLDER {path} --resolution 256\n"
            "or name the folder that holds it in the environment variable RTIL_DATA, "
            "or the file in data.path"
        )
    check_apart(data)
    counts = {f"num_{key}": data[f"num_{key}"] for key in ("train", "val", "test")}
    apart = {key: data.get(f"{key}_path") for key in ("val", "test")}
    if apart.get(split):
        only = f"num_{split}"
        return Path(apart[split]).expanduser(), {**dict.fromkeys(counts, 0), only: counts[only]}
    # `path` keeps nothing back for splits that have their own.
    return path, counts | {f"num_{key}": 0 for key, other in apart.items() if other}


def check_apart(data: Mapping[str, Any]) -> None:
    """Raises ValueError where splits with files of their own share them with another split."""
    named = {
        key: Path(data[key]).expanduser().resolve()
        for key in ("path", "val_path", "test_path")
        if data.get(key)
    }
    for (key, one), (other, two) in combinations(named.items(), 2):
        inner, outer = (one, two) if one.is_relative_to(two) else (two, one)
        # A zip in a folder of images is none of them, a folder in it is read with it.
        if one == two or (inner.is_relative_to(outer) and inner.is_dir()):
            raise ValueError(
                f"data={data['name']}: {key}={data[key]} and {other}={data[other]} hold the same "
                f"images ({inner}), and training, validation and test images have to be others. "
                f"Give each files of its own, or leave data.{other} out: validation and test "
                "images are then cut from data.path and kept from training."
            )


def split_files(data: Mapping[str, Any], split: str) -> tuple[ImageFiles, list[int]] | None:
    """The files of a split, by their numbers in its order, without reading them.

    None where no files make the images. Raises what `load_data` does for its files.
    """
    if data.get("source") != "folder":
        return None
    path, counts = files_of(data, split)
    files = ImageFiles(path)
    order = {key: counts[f"num_{key}"] for key in ("test", "val", "train")}
    return files, split_indices(len(files), split, order, data["split_seed"])
