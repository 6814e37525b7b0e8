"""Experiments: the jobs of `rtil.train`, `rtil.tune` and `rtil.invert` behind a figure.

An experiment holds `generators`, what training makes, and `cells`, what is inverted with each of
them under the settings of `common`; all are products {key: value or list of alternatives}. A job
is one choice of each, {key: text}, and runs as if its choices had been typed. A cell with
`switches` is inverted as it is and with the settings of each of them on top. To add an experiment,
add a yaml to configs/experiment: `python -m rtil.invert experiment=NAME` runs it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from rtil.operators import KNOBS
from rtil.runs import results

AT = "protocol.at"
NOT_TUNED = ("num_images", "split", "protocol")  # choices of an inversion that tune does not take
NOT_TOLD = ("experiment", "num_images")  # a command that fills a gap goes by the plan for these


def products(experiment: Mapping, part: str) -> list[dict[str, list[str]]]:
    """Products of the jobs of a part, their alternatives as texts.

    Args:
        experiment: the `experiment` node of a configuration, resolved.
        part: "train", or "invert", whose jobs are each cell with each generator, or where it
            names its model, with that one; or "tune", whose jobs are those but for their images,
            of protocol=fair alone where it is planned, at what its protocol.at says.
    """
    generators, cells = (
        experiment["generators"],
        [
            {**experiment.get("common", {}), **cell, **switch}
            for cell in experiment["cells"]
            for switch in [{}, *cell.get("switches", ())]
        ],
    )
    found = (
        generators
        if part == "train"
        else [
            {**cell, **{key: g[key] for key in g if key not in cell}}
            for cell in cells
            for g in ([{}] if "model" in cell else generators)
        ]
    )
    found = [
        {
            key: [as_text(v) for v in (value if isinstance(value, list) else [value])]
            for key, value in entry.items()
            if key != "switches"
        }
        for entry in found
    ]
    return tunings(to_tune(found)) if part == "tune" else found


def to_tune(entries: list[dict[str, list[str]]]) -> list[dict[str, list[str]]]:
    """Products of inversions that take a tuning."""
    return [entry for entry in entries if "fair" in entry.get("protocol", ())] or entries


def tunings(
    entries: Iterable[Mapping[str, list[str]]], given: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, list[str]]]:
    """What `rtil.tune` runs for products of inversions: at their protocol.at, else as they are.

    A measurement that is typed (`given`) is where a tuning is asked for: protocol.at gives way to
    it, unless that is typed too. A typed seed says whose tuning it is, as for an inversion.
    """
    given, found = given or {}, []
    for entry in entries:
        at = {
            name: entry[key]
            for key in entry
            for name in [key.removeprefix(f"{AT}.")]
            if name != key and (name not in KNOBS or name not in given or key in given)
        }
        own = {
            key: values
            for key, values in entry.items()
            if key not in NOT_TUNED and not key.startswith(AT)
        }
        found.append(own | at)
    return found


def where_tuned(
    given: Mapping[str, Sequence[str]], planned: Iterable[str]
) -> dict[str, Sequence[str]]:
    """A command line of `rtil.tune`: a protocol.at that the plan lacks is the tuning's own key."""
    at = {key for key in given if key.startswith(f"{AT}.")} - {*planned}
    return {key: given[key] for key in given if key not in at} | {
        key.removeprefix(f"{AT}."): given[key] for key in at
    }


def switch_of(experiment: Mapping, job: Mapping[str, str]) -> dict[str, str]:
    """What a job sets on top of its cell: {} where nothing; "rtil" only chooses the arm."""
    known = [
        {key: as_text(value) for key, value in switch.items()}
        for cell in experiment["cells"]
        for switch in cell.get("switches", ())
    ]
    found = max((s for s in known if s.items() <= job.items()), key=len, default={})
    return {key: text for key, text in found.items() if key != "rtil"}


def jobs(
    experiment: Mapping, part: str, given: Mapping[str, Sequence[str]] | None = None
) -> list[dict[str, str]]:
    """The jobs of a part, without repeats, under what the command line says besides.

    Each value typed for a planned key keeps the products that plan it (task=cs); one that none
    plans takes the place of those planned (ratio=0.3). Which products these are is settled key by
    key, so a ratio is planned or not for the task that is typed. Products without a typed key are
    left out. Every key that no product has is set in all jobs, each of its values in turn.

    Args:
        given: {key: texts of its values} of the command line.

    Raises:
        ValueError: no job is left, or more than one scale.
    """
    name, given = experiment["name"], given or {}
    if len(given.get("scale", ())) > 1:
        raise ValueError(f"experiment={name} runs at one scale at a time, not {given['scale']}.")
    found = products(experiment, "invert" if part == "tune" else part)
    found = to_tune(found) if part == "tune" else found
    planned = {key for entry in found for key in entry}
    if part == "tune":
        planned -= {*NOT_TUNED}
        given = where_tuned(given, planned)
    for key in sorted(planned & given.keys(), key=precedence):
        found = narrowed(found, key, given[key])
    rest = {
        key: texts
        for key, texts in given.items()
        if key not in planned and key.partition(".")[0] != "experiment"
    }
    found = tunings(found, given) if part == "tune" else found
    rows = [
        dict(zip({**entry, **rest}, values))
        for entry in found
        for values in product(*entry.values(), *rest.values())
    ]
    if not rows:
        what = {"invert": "inversions", "tune": "tunings"}.get(part, "training runs")
        chosen = ", ".join(f"{key}={','.join(texts)}" for key, texts in given.items())
        raise ValueError(
            f"experiment={name} has no {what}"
            + (
                f" with {chosen}."
                if products(experiment, part)
                else f": train its generators, then python -m rtil.report experiment={name}."
            )
        )
    return list({json.dumps(row): row for row in rows}.values())


def precedence(key: str) -> tuple:
    """Where a key is in the order of narrowing, which that of typing does not change: groups of
    configs, what is inverted before how, then single settings, then where they are tuned."""
    groups = results.GROUPS
    return groups.index(key) if key in groups else len(groups), key.startswith(AT), key


def narrowed(
    entries: Iterable[Mapping[str, list[str]]], key: str, texts: Sequence[str]
) -> list[dict[str, list[str]]]:
    """Products that a typed key leaves, with what they then vary; see `jobs`."""
    having = [entry for entry in entries if key in entry]
    planned = [parsed(text) for entry in having for text in entry[key]]
    wanted, new = [parsed(text) for text in texts], [t for t in texts if parsed(t) not in planned]
    found = [
        {**entry, key: [t for t in entry[key] if parsed(t) in wanted] + new} for entry in having
    ]
    return [entry for entry in found if entry[key]]


def overrides(experiment: Mapping, job: Mapping[str, str]) -> list[str]:
    """A job as the words that would be typed, and the experiment that it was run for."""
    return [
        *(f"{key}={value}" for key, value in job.items()),
        f"+experiment.name={experiment['name']}",
    ]


def narrowing(experiment: Mapping, part: str, job: Mapping[str, str]) -> list[str]:
    """The words that single out a planned job: those of keys that the plan varies."""
    entries, texts = products(experiment, part), {}
    for entry in entries:
        for key, values in entry.items():
            texts.setdefault(key, set()).update(values)
    keys = {key for key in job if len(texts.get(key, ())) > 1}
    if len(jobs(experiment, part, {key: [job[key]] for key in keys})) > 1:
        keys |= {key for key in job if 0 < sum(key in entry for entry in entries) < len(entries)}
    keys |= {key.partition(".")[0] for key in keys} & job.keys()  # whose settings Hydra checks
    return [shlex.quote(f"{key}={job[key]}") for key in job if key in keys]


def command(
    experiment: Mapping, part: str, given: Iterable[str] = (), job: Mapping[str, str] | None = None
) -> str:
    """The command that runs a part, or one job of it.

    Args:
        given: overrides of an earlier command for the same experiment, repeated where the job
            does not decide them.
    """
    chosen = narrowing(experiment, part, job) if job else []
    decided = {*(shlex.split(word)[0].partition("=")[0] for word in chosen), *NOT_TOLD}
    kept = [shlex.quote(word) for word in given if word.partition("=")[0] not in decided]
    return " ".join([f"python -m rtil.{part}", f"experiment={experiment['name']}", *kept, *chosen])


def for_training(words: Iterable[str]) -> list[str]:
    """Those of an inversion's overrides that training takes."""
    return [
        word
        for word in words
        if word.lstrip("+~").partition("=")[0].partition(".")[0] in results.FOR_TRAINING
    ]


def check_trained(
    experiment: Mapping, composed: Iterable[tuple[Mapping, list[str]]], given: Iterable[str]
) -> None:
    """Checks that the generators of all jobs are there before the first one runs.

    Args:
        composed: (resolved configuration, overrides) of each inversion.
        given: overrides of the command line.

    Raises:
        FileNotFoundError: some are not trained; holds the commands that train them.
    """
    wanted: dict[Path, str] = {}
    for config, words in composed:
        if not config.get("generator"):
            path = results.trained_generator(config, words)
            wanted.setdefault(path, results.training_command(config, words))
    missing = {path: line for path, line in wanted.items() if not trained(path.parent)}
    if missing:
        raise FileNotFoundError(
            f"experiment={experiment['name']}: {len(missing)} of {len(wanted)} generators are not "
            "trained to their end:"
            + "".join(f"\n    {path}" for path in missing)
            + "\nThese commands train them:"
            + "".join(f"\n    {x}" for x in missing.values())
            + f"\nand so does\n    {command(experiment, 'train', for_training(given))}\n"
            "Rows on disk stay; rtil=... chooses the arms that are trained already."
        )


def trained(run_dir: Path) -> bool:
    """Whether a training run is at its end: one that was stopped leaves a generator too."""
    if not (run_dir / "generator.pt").exists() or not (run_dir / "config.yaml").exists():
        return False
    total = yaml.safe_load((run_dir / "config.yaml").read_text())["total_nimg"]
    rows = results.read_rows(run_dir / "log.jsonl")
    return bool(rows) and rows[-1]["nimg"] >= total


@lru_cache(maxsize=1024)  # a report of many missing jobs compares each text with each
def parsed(text: str) -> object:
    """What a setting's text on a command line stands for: 1e-05 is a number too, which YAML's
    own rule takes for a string."""
    return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))["value"]


def as_text(value: object) -> str:
    """A setting as Hydra reads it on a command line."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
