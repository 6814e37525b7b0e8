"""Experiments: the runs behind a figure, as products of choices (configs/experiment).

The `experiment` node of a configuration names `generators`, `common` settings of the inversions,
and `cells`, each with settings of its own over those of `common`; all are products
{key: value or list of alternatives}. A job is one choice of each, {key: text}, and runs as if its
choices had been typed. A cell with `switches` is inverted as it is and with the settings of each
of them on top. A run records which job of which experiment it was (`rtil.runs.record`); those of
version 0.1 belong to none until scripts/upgrade_rows.py has written it into their rows. To add an
experiment, add a yaml to configs/experiment: `python -m rtil.invert experiment=NAME` runs it.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from rtil.runs import keys
from rtil.runs.keys import AT, is_under
from rtil.runs.overrides import as_text, key_of, parsed, typed
from rtil.runs.run import Run

Job = Mapping[str, str]
Given = Mapping[str, Sequence[str]]  # {key: texts of its values} of a command line
BY_PLAN = ("experiment", "num_images")  # a command that fills a gap goes by the plan for these
FREE = (*BY_PLAN, "data")  # planned choices that a run of the experiment may have otherwise


def planned(experiment: Mapping, part: str) -> list[dict[str, str]]:
    """The jobs of a part as they are planned, without repeats.

    Args:
        experiment: the `experiment` node of a configuration, resolved.
        part: "train", or "invert", whose jobs are each cell with each generator, or where it
            names its model, with that one; or "tune", which is of what these take (`tuning_of`).
    """
    if part == "tune":
        return distinct(map(tuning_of, fair(planned(experiment, "invert"))))
    if part == "train":
        return distinct(_expanded(experiment["generators"]))
    entries = []
    for cell in experiment["cells"]:
        common = {**experiment.get("common", {}), **cell}
        for switch in ({}, *cell.get("switches", ())):
            own = {**common, **switch}
            for generator in [{}] if "model" in own else experiment["generators"]:
                # What a cell says of its generator goes before what the generator says.
                entries.append(own | {k: generator[k] for k in generator if k not in own})
    return distinct(_expanded(entries))


def _expanded(entries: Iterable[Mapping]) -> Iterator[dict[str, str]]:
    """Each choice of each product {key: value or list of alternatives}."""
    for entry in entries:
        lists = {key: each if isinstance(each, list) else [each] for key, each in entry.items()}
        lists.pop("switches", None)
        # Of each alternative once: a report of many missing jobs expands a plan for each of them.
        texts = [[*map(as_text, each)] for each in lists.values()]
        for values in product(*texts):
            yield dict(zip(lists, values))


def distinct(jobs: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Jobs without repeats."""
    return [*{tuple(job.items()): job for job in jobs}.values()]


def alternatives(jobs: Iterable[Job]) -> dict[str, set[str]]:
    """{key: its texts in any job}."""
    texts = defaultdict[str, set[str]](set)
    for job in jobs:
        for key, text in job.items():
            texts[key].add(text)
    return texts


def fair(jobs: list[dict[str, str]]) -> list[dict[str, str]]:
    """What takes a tuning: that of protocol=fair alone where it is planned."""
    return [job for job in jobs if job.get("protocol") == "fair"] or jobs


def tuning_of(job: Job, given: Iterable[str] = ()) -> dict[str, str]:
    """What `rtil.tune` runs for an inversion: at its protocol.at, else as it is.

    A measurement that is typed (`given`) is where a tuning is asked for: protocol.at gives way to
    it, unless that is typed too. A typed seed says whose tuning it is, as for an inversion.
    """
    own = {key: text for key, text in job.items() if keys.for_tuning(key) or key in given}
    for key, text in job.items():
        name = key.removeprefix(f"{AT}.")
        if name != key:
            own.pop(key, None)
            if name == "seed" or name not in given or key in given:
                own[name] = text
    return own


def switch_of(experiment: Mapping, job: Job) -> dict[str, str]:
    """What a job sets on top of its cell: {} where nothing; "rtil" only chooses the arm."""
    fitting: list[dict[str, str]] = [{}]
    for cell in experiment["cells"]:
        for switch in cell.get("switches", ()):
            texts = {key: as_text(each) for key, each in switch.items()}
            fitting += [texts] if texts.items() <= job.items() else []
    return {key: each for key, each in max(fitting, key=len).items() if key != "rtil"}


def jobs(experiment: Mapping, part: str, given: Given | None = None) -> list[dict[str, str]]:
    """The planned jobs of a part under what the command line says besides.

    Each value typed for a planned key keeps the jobs that plan it (task=cs); one that none plans
    takes the place of those planned (ratio=0.3). Which jobs these are is settled key by key, so a
    ratio is planned or not for the task that is typed. Jobs without a typed key are left out.
    Every key that no job has is set in all of them, each of its values in turn.

    Raises:
        ValueError: no job is left, or more than one scale.
    """
    name, given = experiment["name"], given or {}
    if len(given.get("scale", ())) > 1:
        raise ValueError(f"experiment={name} runs at one scale at a time, not {given['scale']}.")
    if part == "tune":
        inversions = fair(jobs(experiment, "invert", given))
        return distinct(tuning_of(job, given) for job in inversions)
    chosen = planned(experiment, part)
    own = {key for job in chosen for key in job}
    for key in sorted(own & given.keys(), key=precedence):
        chosen = narrowed(chosen, key, given[key])
    own |= {key for key in given if is_under(key, ("experiment",))}
    rest = {key: [*texts] for key, texts in given.items() if key not in own}
    chosen = distinct(job | more for job in chosen for more in _expanded([rest]))
    if not chosen:
        what = "inversions" if part == "invert" else "training runs"
        words = ", ".join(f"{key}={','.join(texts)}" for key, texts in given.items())
        why = f": train its generators, then python -m rtil.report experiment={name}."
        if own:
            why = f" with {words}."
        raise ValueError(f"experiment={name} has no {what}{why}")
    return chosen


def precedence(key: str) -> tuple:
    """Groups come first, what is inverted before how, then settings, then where they are tuned."""
    groups = keys.GROUPS
    return groups.index(key) if key in groups else len(groups), key.startswith(AT), key


def narrowed(
    jobs: Iterable[dict[str, str]], key: str, texts: Sequence[str]
) -> list[dict[str, str]]:
    """Jobs that a typed key leaves, and those that it makes; see `jobs`."""
    having = [job for job in jobs if key in job]
    known = [parsed(text) for text in {job[key]: None for job in having}]
    wanted = [parsed(text) for text in texts]
    left = [job for job in having if parsed(job[key]) in wanted]
    for text in texts:
        if parsed(text) not in known:
            left += [{**job, key: text} for job in having]
    return distinct(left)


def overrides(experiment: Mapping, job: Job) -> list[str]:
    """A job as overrides, with the record of it that the run keeps."""
    record = json.dumps(dict(job), separators=(",", ":")).replace("\\", "\\\\").replace("'", "\\'")
    words = [f"{key}={each}" for key, each in job.items()]
    return [*words, f"+experiment.name={experiment['name']}", f"+experiment.job='{record}'"]


# Runs


def members(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[Run]:
    """The runs of an experiment at a scale, each with the planned job that it was run for.

    A run that serves several jobs, as where a switch is what an arm has anyway, is there once for
    each, with that in `Run.job`. Arms that were run for the experiment without being planned
    belong to it.
    """
    own, found = planned(experiment, part), {}
    for run, recorded in recorded_jobs(runs, experiment, scale):
        job = _fitting(recorded, own)
        if job:
            found[run.path, json.dumps(job)] = replace(run, job=job)
    return [*found.values()]


def recorded_jobs(
    runs: Iterable[Run], experiment: Mapping, scale: str
) -> Iterator[tuple[Run, Job]]:
    """Runs at a scale with each job of an experiment that they recorded."""
    for run in runs:
        for entry in run.experiments or ():
            if run.config.get("scale.name") == scale and entry["name"] == experiment["name"]:
                yield run, entry["job"]


def _fitting(recorded: Job, planned: Sequence[Job]) -> Job | None:
    """The planned job that a recorded one is: the longest whose choices it has."""

    def has(job: Job, free: tuple[str, ...]) -> bool:
        return all(
            key in recorded and parsed(recorded[key]) == parsed(each)
            for key, each in job.items()
            if key not in free
        )

    fitting = [job for job in planned if has(job, FREE)]
    if not fitting and "rtil" in recorded:
        arm = recorded["rtil"]
        fitting = [{**job, "rtil": arm} for job in planned if has(job, (*FREE, "rtil"))]
    return max(fitting, key=len, default=None)


def besides(
    runs: Iterable[Run], experiment: Mapping, scale: str, part: str = "invert"
) -> list[str]:
    """What most runs of an experiment were given beside its plan, such as data.path, as words."""
    texts = alternatives(planned(experiment, part))
    left_out = {*texts, *BY_PLAN, "scale", "root"} - {"data"}
    typed_words: dict[Path, tuple[str, ...]] = {}
    for run, job in recorded_jobs(runs, experiment, scale):
        more = {key: text for key, text in job.items() if key not in left_out}
        if more.get("data") in texts.get("data", ()):
            del more["data"]  # as planned, and not typed
        typed_words.setdefault(run.path, tuple(f"{key}={text}" for key, text in more.items()))
    counts = Counter(typed_words.values()).most_common(1)
    return [*counts[0][0]] if counts else []


# Commands


def singled_out(experiment: Mapping, part: str, job: Job) -> list[str]:
    """The words that single out a planned job: those of keys that the plan varies."""
    own = planned(experiment, part)
    texts = alternatives(own)
    varied = {key for key in job if len(texts.get(key, ())) > 1}
    if len(jobs(experiment, part, {key: [job[key]] for key in varied})) > 1:
        varied |= {key for key in job if 0 < sum(key in other for other in own) < len(own)}
    varied |= {key.partition(".")[0] for key in varied} & job.keys()  # Hydra checks its settings
    return [shlex.quote(f"{key}={job[key]}") for key in job if key in varied]


def command(
    experiment: Mapping, part: str, given: Iterable[str] = (), job: Job | None = None
) -> str:
    """The command that runs a part, or one job of it, with what was given where that is open."""
    chosen = singled_out(experiment, part, job) if job else []
    decided = {*(key_of(shlex.split(word)[0]) for word in chosen), *BY_PLAN}
    kept = [shlex.quote(word) for word in given if word.partition("=")[0] not in decided]
    return " ".join([f"python -m rtil.{part}", f"experiment={experiment['name']}", *kept, *chosen])


def commands(experiment: Mapping, given: Sequence[str], job: Job | None = None) -> list[str]:
    """The commands that train, tune where it takes a tuning, and invert a job, or all jobs."""
    lines = [command(experiment, "train", for_training(given), job)]
    takes = [job] if job else jobs(experiment, "invert")
    if any(each.get("protocol") == "fair" for each in takes):
        chosen = tuning_of(job) if job else None
        lines.append(command(experiment, "tune", for_tuning((), given), chosen))
    return [*lines, command(experiment, "invert", given, job)]


def for_training(given: Iterable[str]) -> list[str]:
    """Those of an inversion's overrides that training takes."""
    return [word for word in given if keys.for_training(key_of(word))]


def for_tuning(places: Iterable[Mapping], given: Iterable[str]) -> list[str]:
    """Words of an experiment's inversions as those of the tunings that they lack, at `places`.

    A ratio typed to `rtil.tune` is where it tunes; of these inversions that is protocol.at.
    """
    taken = []
    for word in given:
        if keys.for_tuning(key_of(word)) or is_under(key_of(word), (AT,)):
            taken.append(word)
    given_texts, places = typed(taken), list(places)
    for name in given_texts.keys() - {"seed"}:
        values = {as_text(at[name]): None for at in places if name in at}
        if values and f"{AT}.{name}" not in given_texts:
            taken.append(f"{AT}.{name}={','.join(values)}")
    return taken
