"""2,150 damaged inputs, seeded: each is read, or refused in a clear line, soon and in little RAM.

Each goes through the reader that a command uses, or through the command. `pytest -m slow -s
tests/reliability/test_fuzz.py` prints how many there were of each kind.
"""

import contextlib
import io
import json
import random
import re
import shutil
import zipfile
from collections import Counter
from functools import cache

import foreign
import numpy as np
import pytest
import torch
import yaml
from helpers import mutations
from helpers.children import Command, Nursery, Try
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import save as safetensors_bytes

from rtil.importers.sharing import share_file
from rtil.process import tensor_file
from rtil.process.command import CONFIGS
from rtil.process.digest import digest
from rtil.runs import keys

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
TINY = ("hardware=cpu", "hardware.threads=1", "scale=tiny", "data.num_train=64", "rtil=vanilla")
LAYOUTS = ("rosinality", "nvlabs", "genforce", "mganprior", "authors_pggan", "genforce_pggan")
NO_FILES = 0.03  # share of pipes, devices and folders
SECONDS, MEGABYTES = 10.0, 1024.0
EXPECTED = {"ValueError", "TypeError", "RuntimeError", "OSError", "FileNotFoundError"}
EXPECTED |= {
    "DamagedFile",
    "IsADirectoryError",
    "PermissionError",
    "FileExistsError",
    "SystemExit",
}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """Undamaged inputs, as contents: a generator, foreign files, a run."""
    folder = tmp_path_factory.mktemp("fuzz")
    nursery = Nursery(folder)
    short = ("batch=8", "total_nimg=8", "run_dir=train")
    measured = ("task=cs", "ratio=0.5", "num_images=2", "yardstick.num_train=64")
    for module, words in (
        ("rtil.train", (*TINY, *short)),
        ("rtil.invert", (*TINY, *measured, "generator=train/generator.pt", "root=runs")),
        ("rtil.report", ("root=runs", "pack=packed.jsonl", "allow_uncommitted=true")),
    ):
        ended = nursery.run(Command(module, words))
        assert ended.code == 0, ended.text
    kept = folder / "kept"
    shutil.copytree(nursery.work, kept)
    share_file(kept / "train" / "generator.pt", kept / "generator.safetensors")
    (kept / "foreign").mkdir()
    for layout in LAYOUTS:
        foreign.write(kept / "foreign", layout)
    return nursery, kept


def checkpoints(rng, kept, path):
    """Generators: their bytes, or their contents with a digest that fits."""
    source = kept / "train" / "generator.pt"
    if rng.random() < 0.4:
        path.write_bytes(mutations.of_bytes(rng, source.read_bytes()))
        return path
    content = torch.load(source, weights_only=True)
    content.pop("sha256")
    changed = mutations.of_content(rng, content)
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        changed = {**changed, "sha256": digest(changed)}
    torch.save(changed, path)
    return path


def safetensors(rng, kept, path):
    """Generators to give away: bytes, header, record or tensors, most with a digest that fits."""
    source = kept / "generator.safetensors"
    kind = rng.choice(("bytes", "header", "record", "tensors"))
    if kind == "bytes":
        path.write_bytes(mutations.of_bytes(rng, source.read_bytes()))
    elif kind == "header":
        header, tensors = mutations.header_of(source.read_bytes())
        path.write_bytes(mutations.with_header(mutations.of_content(rng, header), tensors))
        _fit_digest(path)
    else:
        content = tensor_file.unpack(source, source.stat().st_size)
        content.pop("sha256")
        table = content.pop("G_ema")
        if kind == "record":
            content = mutations.of_content(rng, content)
        else:
            table = mutations.of_content(rng, table)
        _write_safetensors(path, content, table)
    return path


def _write_safetensors(path, content, table):
    """A file of a record and a table, with its digest, as far as they can be written so."""
    whole = {**content, "G_ema": table} if isinstance(content, dict) else content
    with contextlib.suppress(TypeError, ValueError, RecursionError):
        content = {**content, "sha256": digest(whole)}
    text = yaml.dump(content, Dumper=tensor_file.DUMPER)
    entries = table.items() if isinstance(table, dict) else ()
    tensors = {f"G_ema.{name}": x for name, x in entries if isinstance(x, torch.Tensor)}
    # What shows more than it stores would be written out, 4 GB of it.
    stored = {name: x.contiguous() for name, x in tensors.items() if x.numel() < 1 << 24}
    path.write_bytes(safetensors_bytes(stored, {tensor_file.RECORD: text}))


def _fit_digest(path):
    """Puts the digest of what a file holds into its record, where it can be read."""
    data = path.read_bytes()
    try:
        content = tensor_file.unpack(path, len(data))
        said = content.pop("sha256")
        path.write_bytes(data.replace(said.encode(), digest(content).encode()))
    except (AttributeError, KeyError, TypeError, ValueError):
        pass


def pickles(rng, kept, path):
    """Files of other projects: their bytes, or their contents."""
    layout = rng.choice(LAYOUTS)
    source = kept / "foreign" / f"{layout}.pt"
    if layout == "nvlabs" or rng.random() < 0.5:
        path.write_bytes(mutations.of_bytes(rng, source.read_bytes()))
        return path
    content = torch.load(source, weights_only=False)
    torch.save(mutations.of_content(rng, content), path)
    return path


def picture(rng):
    """A small picture in some format."""
    kind, mode = rng.choice(("png", "jpeg", "bmp", "webp", "tiff")), rng.choice(["L", "RGB"])
    side = rng.choice((1, 7, 24))
    pixels = np.frombuffer(rng.randbytes(3 * side * side), np.uint8).reshape(side, side, 3)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return {"jpeg": "jpg"}.get(kind, kind), stream.getvalue()


def pictures(rng, kept, path):
    """Pictures: their bytes, or a header that says what is not there."""
    suffix, data = picture(rng)
    path = path.with_suffix(f".{suffix}")
    if suffix == "png" and rng.random() < 0.3:
        sides = rng.choice(((1, 20_000), (13_000, 13_000), (2**31 - 1, 2**31 - 1), (0, 5)))
        data = data[:16] + b"".join(side.to_bytes(4, "big") for side in sides) + data[24:]
    path.write_bytes(data if rng.random() < 0.1 else mutations.of_bytes(rng, data))
    return path


@cache
def bomb(name, head=b""):
    """A zip of 1.5 MB with an entry that unpacks to 1.5 GB of zeros."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as entry:
        entry.write(head)
        for _ in range(1500):
            entry.write(bytes(1_000_000))
    return stream.getvalue()


def npy_head(count):
    """The header of an array of so many bytes."""
    stream = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(stream, described)
    return stream.getvalue()


def zips(rng, kept, path):
    """Archives of pictures: bytes, names, and entries that unpack to much."""
    path = path.with_suffix(".zip")
    if rng.random() < 0.05:
        path.write_bytes(bomb("bomb.png"))
        return path
    with zipfile.ZipFile(
        path, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    ) as file:
        for number in range(rng.randint(0, 3)):
            suffix, data = picture(rng)
            name = rng.choice((f"{number}.{suffix}", f"../{number}.{suffix}", f"{'d/' * 90}a.png"))
            file.writestr(name, mutations.of_bytes(rng, data) if rng.random() < 0.5 else data)
    if rng.random() < 0.6:
        path.write_bytes(mutations.of_bytes(rng, path.read_bytes()))
    return path


def measurements(rng, kept, path):
    """Saved measurements: bytes, types, sizes, settings."""
    path = path.with_suffix(".npz")
    if rng.random() < 0.05:
        path.write_bytes(bomb("y.npy", npy_head(1_500_000_000)))
        return path
    values = {
        "y": rng.choice((
            np.ones(128, np.float32),
            np.ones((4, 4), np.complex64),
            np.array(["text"]),
            np.array([{"a": 1}], dtype=object),
            np.zeros(0),
            np.array(np.nan),
            np.full(128, 1e300),
        )),
        "settings": rng.choice(("{}", "[]", "{", '{"task": 5}', "[" * 5_000, '{"seed": 1e999}')),
        "mask": rng.choice((np.ones((16, 16), bool), np.ones(3), np.zeros((16, 16), bool))),
    }  # fmt: skip
    chosen = rng.sample(list(values), rng.randint(0, 3))
    stream = io.BytesIO()
    rng.choice((np.savez, np.savez_compressed))(stream, **{key: values[key] for key in chosen})
    data = stream.getvalue()
    path.write_bytes(mutations.of_bytes(rng, data) if rng.random() < 0.5 else data)
    return path


def run_of(kept):
    (config,) = (kept / "runs" / "invert").rglob("config.yaml")
    return config.parent


def yamls(rng, kept, path):
    """A run whose config.yaml or provenance.json is damaged."""
    shutil.copytree(run_of(kept), path, ignore=shutil.ignore_patterns("images"))
    file = path / rng.choice(("config.yaml", "config.yaml", "provenance.json"))
    text = file.read_text()
    if rng.random() < 0.4:
        changed = mutations.of_content(rng, yaml.safe_load(text))
        plain = yaml.safe_dump if file.suffix == ".yaml" else json.dumps
        try:
            file.write_text(plain(changed))
            return path
        except (yaml.YAMLError, RecursionError, TypeError):
            pass
    file.write_bytes(mutations.of_text(rng, text))
    return path


def rows(rng, kept, path):
    """A run whose rows are damaged."""
    shutil.copytree(run_of(kept), path, ignore=shutil.ignore_patterns("images"))
    _damage_lines(rng, path / "results.jsonl")
    return path


def packed_rows(rng, kept, path):
    """Packed rows that are damaged."""
    path = path.with_suffix(".jsonl")
    shutil.copy(kept / "packed.jsonl", path)
    _damage_lines(rng, path)
    return path


def _damage_lines(rng, file):
    text = file.read_text()
    if rng.random() < 0.6:
        lines = [json.loads(line) for line in text.splitlines()]
        changed = mutations.of_content(rng, lines)
        try:
            made = changed if isinstance(changed, list) else [changed]
            file.write_text("".join(json.dumps(line) + "\n" for line in made))
            return
        except (RecursionError, TypeError):
            pass
    file.write_bytes(mutations.of_text(rng, text))


READERS = {
    "checkpoints": (300, checkpoints, "rtil.checkpoint:load_generator"),
    "safetensors": (150, safetensors, "rtil.checkpoint:load_generator"),
    "pickles": (300, pickles, "helpers.readers:imported"),
    "pictures": (300, pictures, "helpers.readers:seen"),
    "zips": (200, zips, "helpers.readers:packed"),
    "npz": (200, measurements, "helpers.readers:measured"),
    "yaml": (200, yamls, "helpers.readers:run"),
    "rows": (150, rows, "helpers.readers:run"),
    "packed rows": (100, packed_rows, "helpers.readers:rows_packed"),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_damaged_file_is_read_or_refused_by_name(given, kind):
    nursery, kept = given
    count, make, function = READERS[kind]
    rng = random.Random(kind)
    nursery.clear()
    tries = []
    for number in range(count):
        # A name alone says that a file is one of safetensors.
        suffix = tensor_file.SUFFIX if make is safetensors else ""
        path = nursery.work / f"input{number}{suffix}"
        if rng.random() < NO_FILES and kind not in ("yaml", "rows"):
            mutations.no_file(rng, path)
        else:
            path = make(rng, kept, path)
        tries.append(Try(function, (str(path),), path.name))
    judge(kind, tries, nursery.attempt(tries))


LONG = "x" * 300
VALUES = (
    "abc", "null", "nan", "inf", "-inf", "-1", "0", "1.5", "1e400", "1e26", "[]", "{}", "[1,[2]]",
    "[a,b]", "{a:1}", "true", "maybe", "''", "' '", "a/b", "~/x", "é", "日本", "'#'", "[null]",
    LONG, "'a\tb'",
)  # fmt: skip
ENTRIES = {
    "rtil.train": (*TINY, "batch=8", "total_nimg=8"),
    "rtil.invert": (
        *TINY,
        "generator=given/train/generator.pt",
        "task=cs",
        "ratio=0.5",
        "num_images=1",
        "yardstick.num_train=64",
    ),
    "rtil.tune": (
        *TINY,
        "generator=given/train/generator.pt",
        "task=cs",
        "ratio=0.5",
        "num_images=1",
        "trials=1",
    ),
    "rtil.report": ("root=given/runs", "out=report"),
    "rtil.theory": ("steps=2", "num_train=[50]", "num_signals=2", "ratios=[0.5]"),
}
OVERRIDES = 250
SLOW_KEYS = re.compile(r"hydra|defaults|experiment")


def test_any_value_of_any_key_runs_or_is_refused_by_key(given):
    nursery, kept = given
    rng = random.Random("overrides")
    nursery.clear()
    (nursery.work / "given").symlink_to(kept)
    tries = []
    for _ in range(OVERRIDES):
        module, words = rng.choice([*ENTRIES.items()])
        key = rng.choice(keys_of(module, words))
        word = f"{key}={rng.choice(VALUES)}"
        tries.append(Try("helpers.readers:command", (module, *words, word), key))
    judge("overrides", tries, nursery.attempt(tries))


def keys_of(module, words):
    """Every key of a command's configuration that holds a value."""
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        tree = OmegaConf.to_container(compose(module.removeprefix("rtil."), list(words)))
    return sorted(key for key in keys.flatten(tree) if not SLOW_KEYS.search(key))


def judge(kind, tries, outcomes):
    """Counts outcomes, prints them, and fails with what is not as promised, by its kind."""
    wrong = {}
    counts = Counter()
    for tried, outcome in zip(tries, outcomes, strict=True):
        problem = problem_of(tried, outcome)
        counts["wrong" if problem else "read" if outcome.error is None else "refused"] += 1
        if problem:
            wrong.setdefault(problem, []).append(tried)
    seconds = max(outcome.seconds for outcome in outcomes)
    peak = max(outcome.peak_mb for outcome in outcomes)
    print(
        f"\n{kind}: {len(tries)} inputs, {counts['read']} read, {counts['refused']} refused, "
        f"{counts['wrong']} wrong; at most {seconds:.1f} s and {peak:.0f} MB"
    )
    lines = [f"{len(those)} x {problem}: {those[0].words}" for problem, those in wrong.items()]
    assert not wrong, "\n".join(lines)


def problem_of(tried, outcome):
    """What is wrong with an outcome, without what differs from input to input; or ""."""
    if outcome.seconds > SECONDS:
        return f"takes over {SECONDS:.0f} s"
    if outcome.peak_mb > MEGABYTES:
        return f"takes over {MEGABYTES:.0f} MB"
    if outcome.error is None:
        return ""
    text = outcome.error.replace(tried.named, "NAME")
    brief = re.sub(r"\d+", "N", text)[:160]
    if outcome.kind not in EXPECTED or "Traceback" in text:
        return f"{outcome.kind}: {brief}"
    # An import of one file may name the entries of it that do not fit, and the system names a
    # path that is too long itself.
    parts = tried.named.split(".")
    names = ("NAME", parts[0], f"{parts[-1]}=", "generator in the layout of", LONG[:50])
    if not any(name in text for name in names):
        return f"without its name, {outcome.kind}: {brief}"
    if len(text) > 2000 or re.search(r"[\x00-\x08\x0b-\x1f]", text):
        return f"no clear line, {outcome.kind}: {brief}"
    return ""
