#!/usr/bin/env python
"""Pack a folder or zip of images into a zip of resized, centre-cropped PNGs for `data.path`.

For example: python scripts/prepare_data.py PHOTOS photos256.zip --resolution 256
"""

import argparse
import logging
import sys
import warnings

from rtil.data.files import WORKERS
from rtil.data.limits import DEFAULT, Limits
from rtil.data.pack import Packing, pack
from rtil.runs.kinds import check
from rtil.runs.units import NAMES


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Pack images into a zip of resized square PNGs.")
    parser.add_argument("source", help="folder (with its subfolders) or .zip of images")
    parser.add_argument("out", help="the .zip to write")
    parser.add_argument("--resolution", type=int, required=True, help="image side in pixels")
    parser.add_argument("--channels", choices=("auto", "1", "3"), default="auto")
    parser.add_argument("--limit", type=int, help="take the first N files in sorted order")
    parser.add_argument("--workers", type=int, default=WORKERS, help="threads")
    most, of_file = DEFAULT.megapixels, DEFAULT.file_mb
    parser.add_argument("--max-megapixels", type=float, default=most, help="of a picture")
    parser.add_argument("--max-file-mb", type=float, default=of_file, help="of a file, unpacked")
    parser.add_argument("--force", action="store_true", help="replace OUT.zip if it exists")
    return parser.parse_args()


def main() -> None:
    a = parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
    try:
        for name in ("max_megapixels", "max_file_mb"):
            option = f"--{name.replace('_', '-')}"
            check(getattr(a, name), NAMES[name], option, "Leave it out, or raise it.")
        limits = Limits(a.max_megapixels, a.max_file_mb)
        packing = Packing(a.resolution, a.channels, a.limit, a.workers, limits)
        count = pack(a.source, a.out, packing, a.force)
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"prepare_data: {error}")
    print(f"{a.out}: {count} images of {a.resolution}x{a.resolution} pixels")


if __name__ == "__main__":
    main()
