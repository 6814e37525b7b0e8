"""What is compared: runs sorted into rows, each an arm at a measurement, and their estimates.

An arm is an rtil=... under one choice of settings; its runs differ in their seed only. Numbers
come from `rtil.reporting.statistics`, what an experiment planned from `rtil.reporting.study`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from rtil.metrics.intervals import Mean
from rtil.reporting.statistics import estimates_of
from rtil.runs.commands import commands
from rtil.runs.keys import FILES, differing_keys, is_under, tells_apart
from rtil.runs.overrides import as_text
from rtil.runs.run import Run
from rtil.runs.truth import ORACLES, looks_at_truth

Settings = Mapping[str, str]
ToldApart = Callable[[Sequence[Run]], Sequence[Settings]]  # of the runs of a series
Known = TypeVar("Known")
Item = TypeVar("Item")
Shared = TypeVar("Shared", bound=Hashable)
NAMED = "task.physics._target_"
SERIES = ("task", "inverter", "data", "scale", "model")


@dataclass(frozen=True, order=True)
class Measurement:
    """What is the same for arms that are compared; value is that of the task's knob."""

    task: str
    inverter: str
    data: str
    scale: str
    model: str
    knob: str
    noise_std: float
    value: float

    @property
    def series(self) -> dict[str, str]:
        """What one figure shares."""
        return {key: getattr(self, key) for key in SERIES}

    @property
    def heading(self) -> str:
        """As "task=cs, inverter=ilo"."""
        return typed(self.series)

    @property
    def noise(self) -> str:
        """As ", noise 0.01", or ""."""
        shown = self.noise_std and self.knob != "noise_std"
        return f", noise {self.noise_std:g}" if shown else ""

    @property
    def text(self) -> str:
        """As "ratio 0.05, noise 0.01"."""
        return f"{self.knob} {self.value:g}{self.noise}"


@dataclass(frozen=True)
class Row:
    """One arm at one measurement, with a run a seed; without runs it is missing.

    Attributes:
        settings: that tell the arm apart from others of its name.
        fill: commands that give what is missing, the arm or images that are planned.
        job, planned: its job in an experiment, and how many images are planned.
        sets: size of the sets of images that an experiment's PSNR is averaged over besides.
        panel, line, x: its place in the experiment's figure.
    """

    measurement: Measurement
    arm: str
    settings: Settings
    runs: Sequence[Run] = ()
    baseline: Row | None = None
    fill: Sequence[str] = ()
    job: Mapping[str, str] = field(default_factory=dict)
    planned: int = 0
    sets: int = 0
    panel: str = ""
    line: str = ""
    x: Any = None

    @property
    def label(self) -> str:
        return label_of(self.arm, self.settings)

    @property
    def oracle(self) -> str:
        """What a choice by the true image is called; "" where it did not choose."""
        return ORACLES.get(self.settings.get("selection", ""), "")

    @property
    def protocol(self) -> str:
        return self.runs[0].protocol

    @property
    def missing(self) -> bool:
        return not self.runs

    @property
    def gap(self) -> str:
        """What is missing of a plan."""
        if not self.planned or not self.fill:
            return ""
        return "Missing" if self.missing else "Fewer images than planned"

    @cached_property
    def commands(self) -> Sequence[str]:
        """Give what is missing, the arm or its linear estimate, which every linear task has."""
        if self.missing:
            return self.fill
        if self.estimates["lmmse_psnr_db"] or not self.runs[0].config["task.linear"]:
            return ()
        if is_imported(self.runs[0]):  # LMMSE is made of training images
            return ()
        lines = [commands(run, self.arm, self.settings)[-1] for run in self.runs]
        return unique(f"{line} yardstick.use=true" for line in lines)

    @cached_property
    def estimates(self) -> Mapping[str, Mean | None]:
        """By metric, as `rtil.reporting.statistics.estimates_of` says."""
        return estimates_of(self.runs, self.base, self.sets)

    @property
    def base(self) -> Sequence[Run]:
        """The baseline's runs."""
        return self.baseline.runs if self.baseline else ()

    @property
    def psnr(self) -> Mean | None:
        return self.estimates["psnr_db"]

    @property
    def gain(self) -> Mean | None:
        return self.estimates["gain_psnr_db"]

    @property
    def n(self) -> int:
        """Images of all seeds."""
        return self.psnr.n if self.psnr else 0

    @property
    def fewest(self) -> int:
        """Images of the seed that has the fewest."""
        return min((len(run.rows) for run in self.runs), default=0)

    @cached_property
    def differs(self) -> Sequence[str]:
        """Settings in which its runs differ from the baseline's of their seeds."""

        def is_setting(key: str) -> bool:
            # A family is the arm's own.
            return tells_apart(key) and not is_under(key, ["rtil"])

        # Runs of other seeds are not compared, so what they have otherwise does not matter.
        theirs = {run.seed: run.config for run in self.base}
        lines: list[str] = []
        for run in self.runs:
            if run.seed in theirs:
                lines += differing_keys(theirs[run.seed], run.config, is_setting)
        return unique(lines)

    @property
    def unpaired(self) -> str:
        """Which seeds or images a difference to the baseline leaves out, or ""."""
        if not self.base:
            return ""
        mine = {run.seed: run.rows.keys() for run in self.runs}
        theirs = {run.seed: run.rows.keys() for run in self.base}
        alone = {
            "its": mine.keys() - theirs.keys(),
            "the baseline's": theirs.keys() - mine.keys(),
        }
        texts = [f"{whose} seeds {listed(own)}" for whose, own in alone.items() if own]
        seeds = [seed for seed in mine if seed in theirs]
        shared = [mine[seed] & theirs[seed] for seed in seeds]
        if any(images != shared[0] for images in shared):
            counts = ", ".join(str(len(images)) for images in shared)
            common = f"(seeds {listed(seeds)} have {counts} in common)"
            texts.append(f"some images in some seeds {common}")
        return " and ".join(texts)


def typed(settings: Settings) -> str:
    """As "task=cs, inverter=ilo"."""
    return ", ".join(words_of(settings))


def words_of(settings: Settings) -> list[str]:
    """As ["task=cs", "selection=authors (oracle)"]: a choice by the true image says so."""
    words = []
    for key, text in settings.items():
        unsaid = key == "selection" and looks_at_truth(text) and text != "oracle"
        words.append(f"{key}={text} (oracle)" if unsaid else f"{key}={text}")
    return words


def label_of(arm: str, settings: Settings) -> str:
    """As "ilo, selection=last"."""
    return ", ".join([arm, typed(settings)]) if settings else arm


def unique(texts: Iterable[str]) -> tuple[str, ...]:
    """Each once, in the order they come."""
    return tuple(dict.fromkeys(texts))


def listed(values: Iterable) -> str:
    """Sorted, with commas."""
    order = sorted(values, key=lambda value: (isinstance(value, str), value))
    return ", ".join(map(str, order))


def measurement_of(run: Run) -> Measurement:
    config: Mapping[str, Any] = run.config
    series = {key: str(config[f"{key}.name"]) for key in SERIES}
    # Every folder of images has the same name, and other images.
    if series["data"] == "folder" and config.get("data.path"):
        series["data"] = f"folder-{Path(str(config['data.path'])).stem}"
    # And every operator that a command names, which is another one.
    if config.get(NAMED):
        series["task"] += f"-{str(config[NAMED]).rpartition('.')[2]}"
    knob = str(config["task.knob"])
    noise, value = (float(config.get(key) or 0.0) for key in ("noise_std", knob))
    return Measurement(**series, knob=knob, noise_std=noise, value=value)


def arm_of(run: Run) -> str:
    return str(run.config["rtil.name"])


def is_imported(run: Run) -> bool:
    """Whether its generator is of a file that does not say what it was trained with."""
    # Runs of version 0.1 say nothing of it.
    return bool(run.config.get("generator")) and run.config.get("nimg", 0) is None


def digest_of(run: Run) -> str:
    """The generator's, as in labels."""
    return str(run.config.get("generator_sha256"))[:8]


def grouped(items: Iterable[Item], key: Callable[[Item], Shared]) -> dict[Shared, list[Item]]:
    """Items by what they share, in the order they come."""
    groups = defaultdict[Shared, list[Item]](list)
    for item in items:
        groups[key(item)].append(item)
    return groups


def rows_of(runs: Iterable[Run], baseline: str, told_apart: ToldApart) -> list[Row]:
    """Sorts runs into rows, each paired with the baseline's."""
    arms = defaultdict[tuple, list[Run]](list)
    for series in grouped(runs, lambda run: measurement_of(run).heading).values():
        for run, settings in zip(series, told_apart(series)):
            at, arm = measurement_of(run), arm_of(run)
            # In the order of rows: the baseline is the first of a measurement.
            arms[at, arm != baseline, arm, tuple(settings.items())].append(run)
    rows: list[Row] = []
    for key in sorted(arms):
        at, _, arm, told = key
        rows += [Row(at, arm, *each) for each in arms_of(dict(told), arms[key])]
    return [replace(row, baseline=reference(row, rows, baseline)) for row in rows]


def with_missing(rows: Sequence[Row], baseline: str) -> list[Row]:
    """Rows and those that their measurement lacks.

    It lacks the baseline, every arm run elsewhere in its series, and where a series has the
    baseline alone, the family that the inverter was proposed with.
    """
    missing: list[Row] = []
    for series in grouped(rows, lambda row: row.measurement.heading).values():
        names = {row.arm for row in series}
        family = series[0].runs[0].config["inverter.family"]
        # Without a generator every arm's result is the same; an imported one has no twin.
        if family is not None and not all(is_imported(row.runs[0]) for row in series):
            names |= {baseline} if names != {baseline} else {str(family)}
        for at, ran in grouped(series, lambda row: row.measurement).items():
            lacking = names - {row.arm for row in ran}
            for arm in sorted(lacking, key=lambda arm: (arm != baseline, arm)):
                # The commands run it as each of the others.
                lines: list[str] = []
                for row in ran:
                    for run in row.runs:
                        lines += commands(run, arm, row.settings)
                missing.append(Row(at, arm, {}, fill=unique(lines)))
    return sorted([*rows, *missing], key=lambda row: (row.measurement, row.missing))


def differences_among(runs: Sequence[Run], named: Iterable[str] = ()) -> list[Settings]:
    """What tells each run of a series apart: the settings in `named`, and what is found in runs.

    That is every setting in which runs of an arm differ at one measurement under one protocol,
    the protocol where there is another than the paper's, and a selection by the true image always.
    """
    own, shared = defaultdict[str, set[str]](set), {*named}
    first: dict[tuple, Run] = {}
    tunings: dict[tuple, set] = {}
    for run in runs:
        # A protocol chooses many settings at once, and is told by its name.
        group = measurement_of(run), arm_of(run), run.protocol
        other = first.setdefault(group, run)
        lines = differing_keys(other.asked, run.asked, tells_apart)
        keys = {line.partition(": ")[0] for line in lines}
        # A training that was inverted with two tunings is told by where it was tuned.
        at = {
            (key, as_text(value))
            for key, value in run.config.items()
            if is_under(key, ["protocol.tuned.at"])
        }
        keys |= {key for key, _ in at ^ tunings.setdefault((*group, run.seed), at)}
        # A choice of its own family tells an arm apart, any other choice tells all arms apart.
        own[arm_of(run)] |= keys
        shared |= {key for key in keys if not is_under(key, ["rtil"])}
        # The paper's protocol is the default, which is told only beside another.
        shared |= {"protocol"} if run.protocol != "paper" else set()
    labels: list[Settings] = []
    for run in runs:
        asked = {**run.asked, "protocol": run.protocol}
        oracle = {"selection"} if looks_at_truth(asked.get("selection")) else set()
        keys = (own[arm_of(run)] | shared | oracle) & asked.keys()
        labels.append({key: as_text(asked[key]) for key in sorted(keys)})
    return labels


def arms_of(settings: Settings, runs: Iterable[Run]) -> list[tuple[Settings, Sequence[Run]]]:
    """Runs of the same settings as one arm; those that share even their seed are on their own.

    Of runs of one generator and seed that with the most images stands for them all. Where a seed
    has several generators, each of its runs is an arm.
    """
    order = sorted(runs, key=lambda r: (r.study, r.config["seed"], -len(r.rows), str(r.path)))
    trainings = grouped(order, lambda run: (run.seed, digest_of(run))).values()
    first = [same[0] for same in trainings]
    alone = [run for same in trainings for run in same[1:]]
    arms: list[tuple[Settings, Sequence[Run]]] = [(settings, first)]
    # One generator a seed: the seeds are trainings of one arm.
    if len({run.seed for run in first}) < len(first):
        arms, alone = [], order
    counts = Counter(map(digest_of, order))
    for run in alone:
        own = {**settings, "generator_sha256": digest_of(run)}
        if counts[digest_of(run)] > 1:
            own["run_dir"] = str(run.path)
        arms.append((own, [run]))
    return arms


def reference(row: Row, rows: Iterable[Row], baseline: str) -> Row | None:
    """The baseline's row that a row is paired with: with its settings, or the only one.

    It is of the same images, protocol and network (settings under `model`), and what an oracle
    selected is compared with nothing but what the same oracle selected.
    """

    def common(one: Row) -> tuple:
        # What differs in these is no effect of the arm.
        run, settings = one.runs[0], one.settings.items()
        network = {key: text for key, text in settings if is_under(key, ["model"])}
        return one.oracle, run.protocol, run.config.get("split", "test"), network

    alike = []
    for other in rows:
        if other.arm == baseline != row.arm and other.measurement == row.measurement:
            # Earlier runs do not say their files: these are no others.
            files = {run.config.get(FILES) for run in (*other.runs[:1], row.runs[0])} - {None}
            if other.runs and common(other) == common(row) and len(files) < 2:
                alike.append((other.settings, other))
    return counterpart(row.settings, alike)


def counterpart(settings: Settings, others: Sequence[tuple[Settings, Known]]) -> Known | None:
    """That of equal settings, or the only."""
    # A family's own settings are not the baseline's.
    keys = {key for own, _ in others for key in own if not is_under(key, ["rtil"])}
    wanted = {key: settings.get(key) for key in keys}
    exact = [one for own, one in others if {key: own.get(key) for key in keys} == wanted]
    # Among several none is the right one.
    only = exact if len(exact) == 1 else [one for _, one in others]
    return only[0] if len(only) == 1 else None
