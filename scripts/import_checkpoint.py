#!/usr/bin/env python
"""Turn another project's generator into one of rtil, or one of rtil into a file for others.

For example: python scripts/import_checkpoint.py rtil_ilo.pt --out generator.pt
             python scripts/import_checkpoint.py stylegan2.pkl --report
             python scripts/import_checkpoint.py weights.pt --out generator.pt \\
                 model.module._target_=package.Class 'model.cuts=[up1,up2]'
             python scripts/import_checkpoint.py --export rosinality generator.pt --out file.pt
             python scripts/import_checkpoint.py --export safetensors generator.pt \\
                 --out shared/generator.safetensors --dtype float16
"""

import argparse
import sys

from rtil.importers.conversion import LAYOUTS, export_file, import_file
from rtil.importers.module import import_module
from rtil.importers.setup import Choices
from rtil.importers.sharing import DTYPES, Form, share_file


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="the file to read; no code in it is run")
    parser.add_argument(
        "words", nargs="*", help="of model=wrapped: a module of your own, its cuts"
    )
    parser.add_argument("--out", help="the file to write")
    parser.add_argument("--layout", choices=("auto", *LAYOUTS), default="auto")
    parser.add_argument("--report", action="store_true", help="say what it holds, write nothing")
    parser.add_argument(
        "--export",
        choices=("rosinality", "safetensors"),
        help="the other way round; safetensors: of any generator, with a card beside it",
    )
    parser.add_argument("--dtype", choices=DTYPES, help="of what safetensors hold")
    parser.add_argument("--discriminator", action="store_true", help="safetensors hold it too")
    parser.add_argument(
        "--modules", nargs="+", default=[], help="classes of your own that the file may name"
    )
    parser.add_argument("--rtil", help="how it was trained, of configs/rtil; default: by name")
    parser.add_argument("--scale", help="inversion settings, of configs/scale; default: by size")
    parser.add_argument("--data", help="what it was trained on, of configs/data")
    parser.add_argument("--force", action="store_true", help="replace the file if it exists")
    a = parser.parse_intermixed_args()
    if bool(a.out) == a.report:
        parser.error("give --out FILE, or --report alone")
    if a.words and (a.export or a.layout != "auto"):
        parser.error("words of a module go with neither --export nor --layout")
    if a.export and a.report:
        parser.error("--report is for files to import")
    if a.export != "safetensors" and (a.dtype or a.discriminator or a.modules):
        parser.error("--dtype, --discriminator and --modules are for --export safetensors")
    return a


def main() -> None:
    a = parse_arguments()
    try:
        if a.export == "safetensors":
            form = Form(a.dtype or DTYPES[0], a.discriminator, a.modules)
            lines = share_file(a.file, a.out, form, a.force)
        elif a.export:
            lines = export_file(a.file, a.out, a.force)
        elif a.words:
            choices = Choices(a.rtil, a.scale, a.data)
            lines = import_module(a.file, a.out, a.words, choices, a.force)
        else:
            choices = Choices(a.rtil, a.scale, a.data)
            lines = import_file(a.file, a.out, a.layout, choices, a.force)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(f"import_checkpoint: {error}")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
