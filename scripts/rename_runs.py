"""Renames the runs of version 0.1 below a root: `python scripts/rename_runs.py ROOT [--write]`.

That version named directories after what was typed; now they are named after what is computed
(`rtil.runs.identity`). Without --write it prints old -> new and moves nothing. With it,
directories are moved, `run_dir` and `generator` in their configurations follow, and
provenance.json keeps the old name, by which reports know the experiment of such a run. Tunings
are found by their content and stay where they are; so do runs with a directory of their own
choosing (run_dir=...).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml

from rtil.process.files import write_text
from rtil.runs import identity, record

Moves = dict[Path, Path]


def plan(root: Path) -> tuple[Moves, Moves, list[str]]:
    """{old: new} of trainings and of inversions, and what stays with the reason.

    An inversion's new place is below the new name of its training.
    """
    trainings: Moves = {}
    stays = []
    for path in sorted((root / "train").glob("*/config.yaml")):
        old = path.parent
        config = {**identity.read_config(old), "root": str(root)}
        if record.experiments(old) is None:
            trainings[old] = identity.named_train_dir(config)
    inversions: Moves = {}
    for path in sorted((root / "invert").glob("*/*/config.yaml")):
        old = path.parent
        if record.experiments(old) is not None:
            continue
        config = identity.read_config(old)
        lacks = [key for key in ("generator", "generator_sha256") if not config.get(key)]
        if lacks:
            stays.append(f"{old}: its configuration has no {' and no '.join(lacks)}.")
            continue
        training = root / "train" / old.parent.name
        used = {**config, "root": str(root)}
        trained: Mapping = config
        if training in trainings:
            used["generator"] = str(training / identity.EXPORTED)
        place = identity.invert_dir("invert", used, trained)
        parent = trainings.get(training, root / "invert" / place.parent.name).name
        inversions[old] = root / "invert" / parent / place.name
    for path in sorted(root.glob("tuned/**/tuned.yaml")):
        stays.append(f"{path.parent}: a tuning, found by what its file says.")
    return trainings, inversions, stays


def collisions(moves: Moves) -> list[str]:
    """New names that two runs would share, or that are taken by a run that stays."""
    counts = Counter(moves.values())
    lines = []
    for new, number in sorted(counts.items()):
        olds = [str(old) for old, other in moves.items() if other == new]
        if number > 1:
            lines.append(f"{new} would be of {number} runs: {', '.join(olds)}")
        elif new.exists() and new not in moves:
            lines.append(f"{new} is there already; {olds[0]} is the same computation")
    return lines


def move(old: Path, new: Path, trainings: Moves, root: Path) -> None:
    """Moves a run and mends what it says of its own place and of its generator's."""
    named = record.named(old) if old.parent.parent == root / "invert" else old.name
    if old != new:
        new.parent.mkdir(parents=True, exist_ok=True)
        old.rename(new)
    config = identity.read_config(new)
    config["run_dir"] = str(new)
    generator = Path(str(config.get("generator") or ""))
    for before, after in trainings.items():
        if generator.parent.name == before.name and generator.parent.parent.name == "train":
            config["generator"] = str(after / generator.name)
    write_text(new / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    path = new / record.FILE
    content = json.loads(path.read_text()) if path.exists() else {"command": [""]}
    write_text(path, json.dumps({**content, "named": named}, indent=1))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--write", action="store_true", help="move them")
    given = parser.parse_args()
    trainings, inversions, stays = plan(given.root)
    moves = trainings | inversions
    taken = collisions(moves)
    for old, new in moves.items():
        print(f"{old}\n  -> {new}")
    for line in stays:
        print(f"stays: {line}")
    if taken:
        parser.exit(
            1, "error: nothing was moved.\n" + "\n".join(taken) + "\nDelete all but one.\n"
        )
    if not given.write:
        print(f"{len(moves)} runs; --write moves them.")
        return
    for old, new in inversions.items():
        move(old, new, trainings, given.root)
    for old, new in trainings.items():
        move(old, new, trainings, given.root)
    for folder in {old.parent for old in inversions}:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
    print(f"Moved {len(moves)} runs.")


if __name__ == "__main__":
    main()
