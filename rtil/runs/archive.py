"""Inversions as rows small enough to be committed: a JSON line each, and reports made from them.

`python -m rtil.report root=runs pack=results/NAME.jsonl` writes them, `results=results/NAME.jsonl`
reads them. A line holds the flattened configuration, what provenance.json says of the inversion
and of its generator's training, per image the columns that are numbers, and of protocol=fair the
scores of the search. Runs of one file are much alike, so only its first configuration is whole: a
line after it has `changes` to that, and `lacks`, the keys that it does without. Pictures stay with
the runs. A file lives in another place than its runs, so no path of this machine goes into it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

from rtil.process.bounds import check_regular
from rtil.process.files import write_text
from rtil.runs import keys, overrides, record, schema
from rtil.runs.identity import digest as digest_of
from rtil.runs.identity import values as values_of
from rtil.runs.run import Run, generator_file, is_number, parts_uncommitted, sound
from rtil.runs.search import budget, search_of

WHOLE, SHORT = 1, 2  # formats of version 0.1: every line with its whole configuration, or not
FORMAT = 3  # as SHORT, with the experiments that a run was run for
# An absolute path as a word of a text.
ABSOLUTE = re.compile(r"""(?:(?<=[\s"'=\[({,])|^)~?(?:/[^\s"'\])},=/]+)+/?""")
# By the last words of a column.
DECIMALS = {"psnr_db": 3, "ssim": 4, "ssim_valid": 4, "lpips": 4, "seconds": 3}
DIGITS = 4  # significant ones, of every other column
Line = dict


def write(runs: Sequence[Run], root: Path, file: Path) -> str:
    """Packs runs below root into a file; its lines of other runs stay.

    A run is known by its folder below root and by its generator, so that equally named trainings
    of several machines do not replace each other. A line of the same computation under another
    folder's name, as before the folder was renamed, is replaced too.

    Returns:
        What was done, in a sentence or two.

    Raises:
        ValueError: file is no .jsonl, or holds something else.
    """
    if file.suffix != ".jsonl" or file.is_dir():
        raise ValueError(f"report: pack={file} names no .jsonl file, such as results/NAME.jsonl.")
    old = {identity(line): line for _, line in lines_of(file)} if file.exists() else {}
    new = {identity(line): line for line in (packed(run, root) for run in runs)}
    # A search is not lost with its file, where it was packed while that was there.
    for key, line in new.items():
        before = old.get(key, {"config": None})
        if "tuning" in before and before["config"] == line["config"]:
            line.setdefault("tuning", before["tuning"])
    again = {computation(line) for line in new.values()} - {None}
    old = {key: line for key, line in old.items() if computation(line) not in again}
    kept = old.keys() - new.keys()
    lines = shortened([line for _, line in sorted((old | new).items())])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    text = f"Packed {len(new)} inversions into {file}; {len(kept)} lines of other runs stay."
    folders = {folder for folder, _ in new}
    if stale := sum(folder in folders for folder, _ in kept):
        text += (
            f" {stale} of them are of the same folder with another generator: delete those "
            "lines if that one was replaced."
        )
    lost = [
        line["run"] for line in new.values() if budget(line["config"]) and "tuning" not in line
    ]
    if lost:
        text += (
            f" {len(lost)} have tuned settings and no search, whose file below tuned/ is gone or "
            f"newer: tables of searches lack them. The first is {lost[0]}."
        )
    return text


def check_committed(runs: Iterable[Run]) -> None:
    """Refuses runs whose sources no commit holds: nobody can run them again.

    Raises:
        ValueError: names each such run and which of its parts.
    """
    lines = [f"{run.path} ({' and '.join(run.uncommitted)})" for run in runs if run.uncommitted]
    if lines:
        raise ValueError(
            "report: pack= got runs of sources that no commit holds:\n    "
            + "\n    ".join(lines)
            + "\nCommit and run them anew. With allow_uncommitted=true they are packed, and the "
            "tables of documents mark them."
        )


def read(place: Path | Sequence[Path]) -> tuple[list[Run], list[str]]:
    """The runs of a packed file, of all in a folder, or of several such, and notes for the report.

    Their paths are relative to the root that they were below; where two generators have the same
    folder, its digest goes before it. Of lines of one run in several files, that with more images
    counts. A file with other generators of folders that an earlier one has is a study of its own:
    its seeds are other trainings, paired among themselves.

    Raises:
        FileNotFoundError: there is nothing. ValueError: a file holds something else.
    """
    places = [place] if isinstance(place, Path) else place
    lines: dict[tuple[str, str], Line] = {}
    studies: dict[tuple[str, str], str] = {}
    generators: dict[str, set[str]] = {}
    notes = [
        f"Made from packed rows ({told(places)}), without pictures and samples; each PSNR is "
        "rounded to 0.001 dB, each SSIM to 0.0001, and of paths the file name is left."
    ]
    old = []
    for file in files_of(places):
        numbered = lines_of(file)
        old += [str(file)] if any("experiments" not in line for _, line in numbered) else []
        own = generators_of(line for _, line in numbered)
        study = ""
        if any(own[key] - generators[key] for key in own.keys() & generators.keys()):
            study = file.stem
            notes.append(
                f"{file} holds other trainings of seeds that an earlier file has: here "
                f"they are seeds of their own, {study}:SEED."
            )
        for key, digests in own.items():
            generators.setdefault(key, set()).update(digests)
        for number, line in numbered:
            studies.setdefault(identity(line), study)
            other = lines.setdefault(identity(line), line)
            if other != line:
                notes.append(
                    f"{file}, line {number}: {line['run']} is there twice and differs; "
                    "the one with more images counts. Pack it again into both files."
                )
                lines[identity(line)] = max(other, line, key=lambda x: len(x["ids"]))
    if old:
        notes.append(
            "Rows of version 0.1 are of no experiment; python scripts/upgrade_rows.py "
            f"{shlex.join(old)} adds theirs."
        )
    folders = [folder for folder, _ in lines]
    runs = []
    for (folder, digest), line in sorted(lines.items()):
        path = Path(folder) if folders.count(folder) == 1 else Path(digest[:8] or "none") / folder
        try:
            run, more = sound(replace(unpacked(line, path), study=studies[folder, digest]))
            runs.append(run)
        except ValueError as error:
            more = [f"Left out: {path} ({error})."]
        notes += more
    if not runs:
        raise FileNotFoundError(
            f"report: no packed inversion in results={told(places)}. This makes one from runs:\n"
            f"    python -m rtil.report root=runs pack={packable(places[0])}"
            + "".join(f"\n{note}" for note in notes[1:])
        )
    return runs, notes


def files_of(places: Sequence[Path]) -> list[Path]:
    """The files that `read` is given, or those in the folder; one alone may not be there yet."""
    files = []
    for each in places:
        files += sorted(each.glob("*.jsonl")) if each.is_dir() else [each]
    gone = [file for file in files if not file.exists()]
    if len(places) > 1 and gone:
        raise FileNotFoundError(f"report: nothing at {gone[0]}, one of results={told(places)}.")
    return [file for file in files if file not in gone]


def generators_of(lines: Iterable[Line]) -> dict[str, set[str]]:
    """{folder of a training: digests of the generators that its inversions were made with}."""
    digests: dict[str, set[str]] = {}
    for folder, digest in map(identity, lines):
        if digest:
            digests.setdefault(Path(folder).parent.as_posix(), set()).add(digest)
    return digests


def told(places: Sequence[Path]) -> str:
    """What results= is given for these files, as Hydra reads it."""
    text = ",".join(map(str, places))
    return text if len(places) == 1 else f"[{text}]"


def packable(place: Path) -> Path:
    """A file that pack= can write: the place itself, or one in it."""
    return place if place.suffix == ".jsonl" else place / "rows.jsonl"


def computation(line: Line) -> tuple[str, str] | None:
    """What a line's run computed: its generator and the digest of its values; None if unknown."""
    generator = line["config"].get("generator_sha256")
    return (generator, digest_of(values_of(line["config"], "invert"))) if generator else None


def identity(line: Line) -> tuple[str, str]:
    """Folder of a line's run below its root, and digest of the generator ("" without one)."""
    return str(line["run"]), str(line["config"].get("generator_sha256") or "")


def lines_of(file: Path) -> list[tuple[int, Line]]:
    """(number from 1, line) of a packed file. Raises ValueError where one is no packed run."""
    lines: list[tuple[int, Line]] = []
    first = None
    # Of what is no text, each line says so below, with its number.
    check_regular(file)
    content = file.read_text(encoding="utf-8", errors="replace")
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = schema.parsed(text, schema.PACKED, "it", "")
            if line["packed"] not in (WHOLE, SHORT, FORMAT):
                raise ValueError(f"format {line['packed']}, this version reads {FORMAT}")
            if "config" in line:
                first = line["config"]
            else:
                line = whole(line, first)
            line["packed"] = max(line["packed"], SHORT)
            for key, column in line["columns"].items():
                if len(column) != len(line["ids"]):
                    raise ValueError(f"{len(column)} values of {key}, {len(line['ids'])} ids")
            unpacked(line, Path(line["run"]))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"report: {file}, line {number}: no packed inversion ({type(error).__name__}: "
                f"{error}). Such files are made by python -m rtil.report root=... pack={file}"
            ) from error
        lines.append((number, line))
    return lines


def shortened(lines: Sequence[Line]) -> list[Line]:
    """Lines of a file as they are written: each after the first with what differs from it."""
    if not lines:
        return []
    first = lines[0]["config"]
    short = [lines[0]]
    for line in lines[1:]:
        config = line["config"]
        changes = {}
        for key in dict.fromkeys([*first, *config]):
            if key in config and not (key in first and same(first[key], config[key])):
                changes[key] = config[key]
        rest = {key: value for key, value in line.items() if key != "config"}
        lacks = [key for key in first if key not in config]
        short.append(rest | {"changes": changes, "lacks": lacks})
    return short


def same(one: object, other: object) -> bool:
    """Whether two settings are written alike: 1, 1.0 and true are not."""
    return json.dumps(one) == json.dumps(other)


def whole(line: Line, first: Mapping | None) -> Line:
    """A line that was written shortened, after one with this configuration."""
    if first is None:
        raise ValueError("changes to the configuration of a line before it, and there is none")
    config = {key: value for key, value in first.items() if key not in line["lacks"]}
    rest = {key: value for key, value in line.items() if key not in ("changes", "lacks")}
    return rest | {"config": config | line["changes"]}


def unpacked(line: Line, path: Path) -> Run:
    """A line as a run at this path."""
    rows = {}
    for i, name in enumerate(line["ids"]):
        rows[name] = {"id": name, **{key: column[i] for key, column in line["columns"].items()}}
    recorded, trained = (
        [entry["command"] for entry in line[key]] for key in ("provenance", "training")
    )
    return Run(
        path,
        keys.complete(line["config"]),
        rows,
        recorded,
        trained,
        experiments=line.get("experiments"),
        tuning=line.get("tuning"),
        uncommitted=parts_uncommitted(line["training"], line["provenance"]),
    )


def packed(run: Run, root: Path) -> Line:
    """A run below root as a line."""
    folder = run.path.relative_to(root).as_posix()
    config = {key: portable(value, root, key) for key, value in run.config.items()}
    if "run_dir" in config:
        config["run_dir"] = f"{config.get('root', root.name)}/{folder}"
    ids = sorted(run.rows)
    line: Line = {
        "packed": FORMAT,
        "run": folder,
        "config": config,
        "provenance": history(run.path, root),
        "training": history(generator_file(run, root).parent, root),
        "ids": ids,
        "columns": columns([run.rows[name] for name in ids]),
    }
    if run.experiments is not None:
        line["experiments"] = [
            {"name": each["name"], "job": portable_job(each["job"], root)}
            for each in run.experiments
        ]
    search = search_of(run)
    return line | ({"tuning": asdict(search)} if search else {})


def columns(rows: Sequence[Mapping]) -> dict[str, list]:
    """{name: a value for each row, or None} of what is a number; others are left out."""
    found = {}
    for key in sorted({key for row in rows for key in row} - {"id"}):
        values = [row.get(key) for row in rows]
        numbers = [
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
            for value in values
        ]
        if all(numbers) and any(map(is_number, values)):
            found[key] = [
                rounded(key, value) if value is not None and is_number(value) else None
                for value in values
            ]
    return found


def rounded(key: str, value: float) -> float:
    """A number of a column with the decimals that it is kept with."""
    if isinstance(value, int):
        return value
    for end, decimals in DECIMALS.items():
        if key.endswith(end):
            return round(value, decimals)
    return float(f"{value:.{DIGITS}g}")


def history(run_dir: Path, root: Path) -> list[Line]:
    """What provenance.json says, a record for each command that worked on a run, last first."""
    entries = []
    for entry in record.history(run_dir):
        program, *words = entry["command"]
        command = [file_name(program), *(portable_word(word, root) for word in words)]
        rest = {key: portable(value, root) for key, value in entry.items()}
        entries.append(rest | {"command": command})
    return entries


def portable_word(word: str, root: Path) -> str:
    """A word of a command line without directories of this machine."""
    prefixed, equals, text = word.partition("=")
    if not equals:
        return str(portable(word, root))
    return f"{prefixed}={portable_text(overrides.key_of(word), text, root)}"


def portable_job(job: Mapping[str, str], root: Path) -> dict[str, str]:
    """An experiment's job likewise."""
    return {key: portable_text(key, text, root) for key, text in job.items()}


def portable_text(key: str, text: str, root: Path) -> str:
    """The text of an override; commas divide what a sweep goes through."""
    if keys.row(key).path == "file":
        return ",".join(map(file_name, text.split(",")))
    return str(portable(text, root, key))


def portable(value: object, root: Path, key: str = "") -> object:
    """A setting without directories of this machine.

    Of files, and of absolute paths, the name is left; the root itself, and what is below it, stays
    relative as it was given.
    """
    if isinstance(value, list):
        return [portable(entry, root, key) for entry in value]
    if not isinstance(value, str):
        return value
    if keys.row(key).path == "file":
        return file_name(value)
    if keys.row(key).path == "directory":
        path, base = Path(value), root.resolve()
        if not path.is_absolute() and ".." not in path.parts:
            return value
        if path.resolve().is_relative_to(base):
            start = root.name if root.is_absolute() or ".." in root.parts else root
            return (PurePosixPath(start) / path.resolve().relative_to(base)).as_posix()
        return file_name(value)
    if value[:1] in ("/", "~"):
        return file_name(value)
    return ABSOLUTE.sub(lambda match: file_name(match[0]), value)


def file_name(path: str) -> str:
    """The last part of a path."""
    return PurePosixPath(path.replace("\\", "/")).name or path
