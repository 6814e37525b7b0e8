"""Renames the runs of version 0.1 below a root: `python scripts/rename_runs.py ROOT [--write]`.

That version named directories after what was typed; now they are named after what is computed
(`rtil.runs.identity`). Without --write it prints old -> new and moves nothing. With it,
directories are moved, `run_dir` and `generator` in their configurations follow, and
provenance.json gets the experiments that a run belongs to (scripts/upgrade_rows.py), which its
old name still tells. Runs that are one computation stay, and are listed: delete all but one, and
run it again. A training stays with them. Tunings are found by their content and stay where they
are; so do runs with a directory of their own choosing (run_dir=...).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml
from upgrade_rows import Recorded, experiments_of

from rtil.process.command import entry
from rtil.process.files import write_text
from rtil.runs import identity, record
from rtil.runs.run import inversions, trainings

Moves = dict[Path, Path]
Reasons = dict[Path, str]


def plan(root: Path) -> tuple[Moves, Moves, Reasons]:
    """{old: new} of trainings and of inversions, and {what stays: why}.

    A training stays with an inversion that stays: such a one says where its generator is.
    """
    trained, stays = without_collisions(trainings_of(root))
    _, stuck = without_collisions(inversions_of(root, trained))
    for training in {root / "train" / old.parent.name for old in stuck} & trained.keys():
        del trained[training]
        stays[training] = "an inversion with it stays."
    inverted, stuck = without_collisions(inversions_of(root, trained))
    for path in sorted((root / "invert").glob("*/*/config.yaml")):
        lacks = lacking(identity.read_config(path.parent))
        if lacks:
            stays[path.parent] = f"its configuration has no {' and no '.join(lacks)}."
    for path in sorted(root.glob("tuned/**/tuned.yaml")):
        stays[path.parent] = "a tuning, found by what its file says."
    return trained, inverted, stays | stuck


def trainings_of(root: Path) -> Moves:
    """{old: new} of the trainings of version 0.1."""
    moves = {}
    for path in sorted((root / "train").glob("*/config.yaml")):
        config = {**identity.read_config(path.parent), "root": str(root)}
        stem = identity.training_stem(config)
        if not identity.is_named(path.parent) and path.parent.name.startswith(stem):
            moves[path.parent] = identity.named_train_dir(config)
    return moves


def inversions_of(root: Path, trained: Moves) -> Moves:
    """{old: new} of the inversions of version 0.1, and of those with a training that moves.

    The new place is below the new name of the training.
    """
    moves = {}
    for path in sorted((root / "invert").glob("*/*/config.yaml")):
        old, training = path.parent, root / "train" / path.parent.parent.name
        config = {**identity.read_config(old), "root": str(root)}
        renamed = identity.is_named(old) and training not in trained
        if renamed or lacking(config):
            continue
        if training in trained:
            config["generator"] = str(training / identity.EXPORTED)
        place = identity.named_invert_dir("invert", config, config)
        parent = trained.get(training, place.parent).name
        moves[old] = root / "invert" / parent / place.name
    return moves


def lacking(config: Mapping) -> list[str]:
    """What an inversion has to say to be named, and does not."""
    return [key for key in ("generator", "generator_sha256") if not config.get(key)]


def without_collisions(moves: Moves) -> tuple[Moves, Reasons]:
    """The moves to names that are free and of one run, and why each other run stays."""
    counts = Counter(moves.values())
    free: Moves = {}
    stays: Reasons = {}
    for old, new in moves.items():
        if counts[new] > 1:
            stays[old] = f"{new} would be of {counts[new]} runs; delete all but one."
        elif new.exists() and new != old:
            stays[old] = f"{new} is there already, and is the same computation."
        else:
            free[old] = new
    return free, stays


def recorded_at(root: Path) -> dict[Path, Recorded]:
    """{directory: the experiments of a run of version 0.1}, by its old name."""
    trained, inverted = trainings(root)[0], inversions(root)[0]
    recorded: dict[Path, Recorded] = {}
    for part, runs in (("train", trained), ("invert", inverted)):
        recorded |= experiments_of([run for run in runs if run.experiments is None], part)
    return recorded


def move(old: Path, new: Path, trained: Moves, experiments: Recorded) -> None:
    """Moves a run and mends what it says of itself and of its generator's place."""
    if old != new:
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    config = identity.read_config(new)
    config["run_dir"] = str(new)
    generator = Path(str(config.get("generator") or ""))
    for before, after in trained.items():
        if generator.parent.name == before.name and generator.parent.parent.name == "train":
            config["generator"] = str(after / generator.name)
    write_text(new / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    path = new / record.FILE
    content = json.loads(path.read_text()) if path.exists() else {"command": [""]}
    write_text(path, json.dumps({**content, "experiments": experiments}, indent=1))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--write", action="store_true", help="move them")
    given = parser.parse_args()
    trained, inverted, stays = plan(given.root)
    moves = inverted | trained
    for old, new in moves.items():
        print(f"{old}\n  -> {new}")
    for old, reason in stays.items():
        print(f"stays: {old}: {reason}")
    if not given.write:
        print(f"{len(moves)} runs; --write moves them.")
        return
    recorded = recorded_at(given.root)
    for old, new in moves.items():
        move(old, new, trained, record.experiments(old) or recorded.get(old, []))
    for folder in {old.parent for old in inverted}:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    print(f"Moved {len(moves)} runs.")


if __name__ == "__main__":
    entry(main)
