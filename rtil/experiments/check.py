"""Whether an experiment can start: its generators and tunings are there before the first job.

Both checks take the resolved configuration of each inversion, and the overrides of the command
line beside the experiment (`given`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rtil.experiments.plan import command, for_training, for_tuning
from rtil.runs import tuning
from rtil.runs.identity import EXPORTED, find_generator, read_config, training_command
from rtil.runs.rows import read

Config = Mapping


def check_trained(experiment: Mapping, composed: Iterable[Config], given: Iterable[str]) -> None:
    """Checks that the generators of all jobs are there and trained to their end.

    Raises:
        FileNotFoundError: some are not; holds the commands that train them.
        ValueError: several generators fit a job.
    """
    wanted = {training_command(each): each for each in composed if not each.get("generator")}
    missing = [line for line, config in wanted.items() if not _is_there(config)]
    if missing:
        raise FileNotFoundError(
            f"experiment={experiment['name']}: {len(missing)} of {len(wanted)} generators are not "
            "trained to their end. These commands train them:"
            + "".join(f"\n    {line}" for line in missing)
            + f"\nand so does\n    {command(experiment, 'train', for_training(given))}\n"
            "Rows on disk stay; rtil=... chooses the arms that are trained already."
        )


def _is_there(config: Config) -> bool:
    try:
        return trained(find_generator(config).parent)
    except FileNotFoundError:
        return False


def trained(run_dir: Path) -> bool:
    """Whether a training run is at its end: one that was stopped leaves a generator too."""
    if not (run_dir / EXPORTED).exists() or not (run_dir / "config.yaml").exists():
        return False
    rows = read(run_dir / "log.jsonl")
    return bool(rows) and rows[-1]["nimg"] >= read_config(run_dir)["total_nimg"]


def check_tuned(experiment: Mapping, composed: Iterable[Config], given: Sequence[str]) -> None:
    """Raises FileNotFoundError, with the command, where tunings of protocol=fair are lacking."""
    wanted: dict[str, Config] = {}
    for config in composed:
        protocol = config["protocol"]
        taken = "tuned" in protocol and not config.get("tuned") and not config.get("generator")
        if taken and protocol["tuned"] is None:
            asked = {**config, **tuning.at(config)}
            wanted.setdefault(str(sorted(tuning.settings(asked, ()).items())), config)
    missing = [config for config in wanted.values() if not tuning.search(config)[0]]
    if missing:
        line = command(experiment, "tune", for_tuning(map(tuning.at, missing), given))
        raise FileNotFoundError(
            f"experiment={experiment['name']}: protocol=fair lacks {len(missing)} of "
            f"{len(wanted)} tunings. This command chooses them on validation images:\n    {line}\n"
            "protocol=paper or protocol=authors runs what needs none, where it is planned."
        )
