"""Sorts inversions on disk into cells: which runs are compared, and the commands that are missing.

A cell is one task, knob, inverter, data, scale and model; it has one entry for each arm (rtil=...)
and each choice of settings, whose runs differ in their seed only. Statistics live in
`rtil.reporting.table`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rtil.operators import KNOBS
from rtil.runs import commands as filling
from rtil.runs import keys as settings_table
from rtil.runs.overrides import as_text
from rtil.runs.run import Run
from rtil.runs.search import budget

WITHOUT_GENERATOR = ("adjoint", "lmmse", "tv")  # inverters whose result is the same for every arm


class Case(NamedTuple):
    """What the runs of a cell share; value is that of the task's knob."""

    task: str
    inverter: str
    data: str
    scale: str
    model: str
    knob: str
    noise_std: float
    value: float

    @property
    def series(self) -> tuple[str, ...]:
        """What the cells of one figure share."""
        return self[:5]

    @property
    def heading(self) -> str:
        """Its series as it is typed, e.g. "task=cs, inverter=ilo, data=glyphs"."""
        return ", ".join(f"{key}={value}" for key, value in zip(self._fields, self.series))

    @property
    def measurement(self) -> str:
        """For example "ratio 0.05, noise 0.01"."""
        noise = self.noise_std if self.knob != "noise_std" else 0.0
        return f"{self.knob} {self.value:g}" + (f", noise {noise:g}" if noise else "")


class Entry(NamedTuple):
    """One arm of a cell under one choice of settings (those that tell it apart): a run a seed."""

    arm: str
    settings: dict[str, str]
    runs: tuple[Run, ...]

    @property
    def label(self) -> str:
        return ", ".join([self.arm, *(f"{k}={v}" for k, v in self.settings.items())])

    @property
    def oracle(self) -> bool:
        """Whether its iterates were chosen by the true image; its settings, and label, say so."""
        return self.runs[0].config.get("selection") == "oracle"


class Cell(NamedTuple):
    """A case, its entries (baseline first) and the arms that were not run."""

    case: Case
    entries: list[Entry]
    missing: list[str]


def case_of(run: Run) -> Case:
    """The cell that a run belongs to."""
    config, data = run.config, str(run.config["data.name"])
    if data == "folder" and config.get("data.path"):
        data = f"folder-{Path(str(config['data.path'])).stem}"
    knob = next((key for key in KNOBS if key in config), "noise_std")
    noise = float(config.get("noise_std") or 0.0)
    task, inverter, scale, model = (
        str(config[f"{group}.name"]) for group in ("task", "inverter", "scale", "model")
    )
    return Case(task, inverter, data, scale, model, knob, noise, float(config.get(knob) or 0.0))


def arrange(runs: Iterable[Run], baseline: str, told: Iterable[str] = ()) -> list[Cell]:
    """Sorts runs into cells and entries, and names the arms that a cell lacks.

    It lacks the baseline, every arm run elsewhere in its series, and where a series has the
    baseline alone, the family that the inverter was proposed with. Entries are told apart by the
    settings in which they differ under one protocol, by the protocol where there is another than
    the paper's, by where they were tuned if a training was inverted with two tunings, and by those
    in `told`; selection=oracle is told always.
    """
    series: dict[tuple, list[Run]] = {}
    for run in runs:
        series.setdefault(case_of(run).series, []).append(run)
    cells = []
    for group in series.values():
        places: dict[tuple[Case, str], list[Run]] = {}
        for run in group:
            places.setdefault((case_of(run), run.config["rtil.name"]), []).append(run)
        arms = {arm for _, arm in places}
        inverter = group[0].config["inverter.name"]
        if inverter not in WITHOUT_GENERATOR:
            partner = "mgan" if inverter == "mgan" else "ilo"
            arms |= {baseline} if arms != {baseline} else {partner}
        order = sorted(arms, key=lambda arm: (arm != baseline, arm))
        keys = {a: distinguishing([r for (_, b), r in places.items() if a == b]) for a in order}
        shared = {key for found in keys.values() for key in found if not key.startswith("rtil.")}
        shared |= {"protocol"} if any(run.protocol != "paper" for run in group) else set()
        shared |= tunings(places.values())
        for case in dict.fromkeys(case for case, _ in places):
            entries = [
                e
                for arm in order
                for e in entries_of(arm, places.get((case, arm), ()), {*keys[arm], *shared, *told})
            ]
            missing = [arm for arm in order if (case, arm) not in places]
            cells.append(Cell(case, entries, missing))
    return sorted(cells, key=lambda cell: cell.case)


def distinguishing(places: Iterable[Sequence[Run]]) -> set[str]:
    """Settings in which runs of one arm and protocol differ within some cell."""
    first: dict[tuple[int, str], Run] = {}
    return {
        line.partition(": ")[0]
        for number, runs in enumerate(places)
        for run in runs
        for other in [first.setdefault((number, run.protocol), run)]
        for line in settings_table.differing_keys(
            other.asked, run.asked, settings_table.tells_apart
        )
    }


def tunings(places: Iterable[Sequence[Run]]) -> set[str]:
    """Keys that say where settings were tuned, if runs of one arm and seed differ in them."""
    found: set[str] = set()
    for runs in places:
        first: dict[tuple, dict] = {}
        for run in runs:
            at = {
                key: value
                for key, value in run.config.items()
                if key.startswith("protocol.tuned.at.")
            }
            other = first.setdefault((run.protocol, run.seed), at)
            found |= {key for key in {*at, *other} if at.get(key) != other.get(key)}
    return found


def entries_of(arm: str, runs: Sequence[Run], keys: Iterable[str]) -> list[Entry]:
    """Groups runs by those settings; runs that share even their seed are told apart as well.

    Of runs of one generator and seed that with the most images stands for them all, the others
    are entries of their own. Where a seed has several generators, each of its arm's runs is one.
    """
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        oracle = {"selection"} if run.config.get("selection") == "oracle" else set()
        found = {**run.asked, "protocol": run.protocol}
        settings = {key: as_text(found[key]) for key in sorted({*keys, *oracle} & found.keys())}
        groups.setdefault(tuple(settings.items()), []).append(run)
    entries = []
    for settings, group in sorted(groups.items()):
        group = sorted(group, key=lambda r: (r.study, r.config["seed"], -len(r.rows), str(r.path)))
        first: dict[tuple, Run] = {}
        again = [run for run in group if first.setdefault(training(run), run) is not run]
        if len({run.seed for run in first.values()}) == len(first):
            entries.append(Entry(arm, dict(settings), tuple(first.values())))
        else:
            again = group
        counts = Counter(training(run)[1][:8] for run in group)
        for run in again:
            digest = training(run)[1][:8]
            extra = {"run_dir": str(run.path)} if counts[digest] > 1 else {}
            told = {**dict(settings), "generator_sha256": digest, **extra}
            entries.append(Entry(arm, told, (run,)))
    return entries


def training(run: Run) -> tuple[int | str, str]:
    """Seed of a run and digest of its generator."""
    return run.seed, str(run.config.get("generator_sha256"))


def commands(run: Run, entry: Entry) -> list[str]:
    """The commands that give entry.arm under the choices of a run."""
    return filling.commands(run, entry.arm, entry.settings)


def place(config: Mapping) -> str:
    """The measurement that the settings of a run were tuned at, "" where nothing was tuned; config
    flattened. Runs to be compared have the same."""
    if budget(config) is None:
        return ""
    known = {key: config.get(f"protocol.tuned.at.{key}", config.get(key)) for key in KNOBS}
    return ", ".join(
        f"{key} {float(value):g}" for key, value in known.items() if value is not None
    )


def told(config: Mapping) -> str:
    """On what the settings of a run rest, in a sentence; config flattened."""
    name = config.get("protocol.name", "paper")
    if name != "fair":
        return {
            "paper": "protocol=paper: settings of the paper's appendix and the published code, "
            "each arm with its own; the paper tuned them for compressed sensing and does "
            "not say on which images. None was chosen here.",
            "authors": "protocol=authors: settings of the published code, each arm with its own; "
            "none was chosen here.",
        }.get(name, f"protocol={name}.")
    tuned = {
        key.removeprefix("protocol.tuned."): value
        for key, value in config.items()
        if key.startswith("protocol.tuned.")
    }
    chosen = ", ".join(f"{key}={config.get(key)}" for key in tuned.get("keys", ()))
    half = tuned.get("validation.ci95")
    first = tuned.get("validation.first_round.n")
    at = [
        f"{key.removeprefix('at.')}={value}"
        for key, value in tuned.items()
        if key.startswith("at.")
    ]
    return (
        f"protocol=fair: trial {tuned.get('trial')} (from 0) of {tuned.get('trials')} (space "
        f"{tuned.get('space')}), chosen by the mean {tuned.get('validation.metric')} of "
        f"{tuned.get('validation.n')} validation images: {tuned.get('validation.mean'):.2f}"
        + (f" ± {half:.2f}" if half is not None else "")
        + (
            f", {tuned['validation.first_round.finalists']} of the trials by {first} of them "
            "before"
            if first is not None
            else ""
        )
        + (f", tuned at {', '.join(at)}" if at else "")
        + f", with {chosen}."
    )
