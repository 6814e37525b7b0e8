"""What stands between a marker's ends in a document: tables and sentences made of rows.

A view is a function of a `Selection` that returns Markdown. A further one is a function here and a
line in VIEWS; how markers are found and documents written is `rtil.reporting.documents`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from rtil.metrics.intervals import Mean
from rtil.reporting.arrange import Row, label_of
from rtil.reporting.claims import AHEAD, BEHIND, VERDICTS, Comparison, Families, comparisons
from rtil.reporting.compare import by_setting, ranked
from rtil.reporting.sections import NONE, Table
from rtil.reporting.statistics import gains as pairs_of
from rtil.reporting.statistics import over_images, written
from rtil.reporting.tables import term, tuned_at
from rtil.runs.keys import is_under
from rtil.runs.overrides import as_text

Line = Mapping[str, str]  # {heading: text}
PLACED = ("protocol", "protocol.tuned.at")  # settings that a column of their own says
LEFT_OUT = ("null", "false")  # values of what a run does without
NAMES = ("generator_sha256", "run_dir")  # settings that have no usual value
# Options of what a view shows, not of which rows.
SHOWN: Mapping[str, Sequence[str]] = {
    "gains": ("others", "summary"),
    "means": ("over", "metric"),
    "gain": ("over",),
    "forest": ("file",),
}
OPTIONS = {option for options in SHOWN.values() for option in options}
NOTHING = "no row is selected"
# What a choice changes, with its decimals, where rows have it.
CHANGED = {
    "psnr_db": ("Δ PSNR [dB]", 2),
    "ssim_valid": ("Δ SSIM", 3),
    "st_lpips": ("Δ ST-LPIPS", 3),
    "gradient_energy": ("Δ sharpness", 2),
}


@dataclass(frozen=True)
class Selection:
    """The rows that a marker asks for.

    Args:
        place: files and baseline, as in a command.
        rows: every row of the files.
        baseline: arm that gains are over.
        options: {key: values} that the marker gives besides.
    """

    place: str
    rows: Sequence[Row]
    baseline: str
    options: Mapping[str, Sequence[str]]

    @property
    def chosen(self) -> list[Row]:
        """The rows of these arms, tasks, protocols, values of the knob and settings.

        Raises:
            ValueError: there is none.
        """
        rows = [row for row in self.rows if not row.missing and self._wants(row)]
        if not rows:
            raise ValueError(NOTHING)
        return rows

    def _wants(self, row: Row) -> bool:
        facts = {
            "arms": row.arm,
            "tasks": row.measurement.task,
            "protocols": row.protocol,
            "at": f"{row.measurement.value:g}",
            "noise": f"{row.measurement.noise_std:g}",
        }
        wanted = {key: texts for key, texts in self.options.items() if key not in OPTIONS}
        # Any other key is a setting, which need not tell the row apart from others.
        config = row.runs[0].config
        return all(
            facts.get(key, as_text(config.get(key))) in texts for key, texts in wanted.items()
        )

    @property
    def compared(self) -> list[Comparison]:
        """Those of the chosen rows that have a gain."""
        return comparisons(self.place, [row for row in self.chosen if row.arm != self.baseline])


def named(rows: Sequence[Row]) -> dict[int, str]:
    """{id of a row: its label} without settings in their usual value.

    That is null or false where a row has it, for a part left out, else what most rows have.
    """
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for key, text in row.settings.items():
            values[key][text] += 1
    usual = {
        key: max(texts, key=lambda text: (text in LEFT_OUT, texts[text]))
        for key, texts in values.items()
    }
    labels = {}
    for row in rows:
        told = {
            key: text
            for key, text in row.settings.items()
            if (usual[key] != text or key in NAMES) and not is_under(key, PLACED)
        }
        labels[id(row)] = label_of(row.arm, told)
    return labels


def where(row: Row) -> str:
    """As "cs 0.1, noise 0.05"."""
    return f"{row.measurement.task} {row.measurement.value:g}{row.measurement.noise}"


def protocol_of(row: Row) -> str:
    """As "fair, tuned at 0.25" where that is another measurement; what chose, if an oracle did.

    Rows that lack a part of the paper's data term are not called after the paper.
    """
    own = f"{row.measurement.knob} {row.measurement.value:g}"
    others = sorted({tuned_at(run.config) for run in row.runs} - {"", own})
    text = term(row) or f"`{row.protocol}`"
    if others:
        text += ", tuned at " + ", ".join(other.partition(" ")[2] for other in others)
    return f"{text}, {row.oracle}" if row.oracle else text


def uncommitted(rows: Iterable[Row | None]) -> str:
    """Which parts of the rows ran on sources that no commit holds."""
    parts = {part for row in rows if row for run in row.runs for part in run.uncommitted}
    return ", ".join(sorted(parts, reverse=True)) or NONE


def verdict(comparison: Comparison, all_shown: Families) -> str:
    """Bold where it survives correction."""
    text = comparison.verdict
    if comparison.family == "images":
        text += ", these images"
    return f"**{text}**" if all_shown.survives(comparison) else text


def gains(selection: Selection, all_shown: Families) -> str:
    """A line for each row that is compared: both arms, the gain, and what may be said of it."""
    rows = [row for row in selection.chosen if row.arm != selection.baseline and row.gain]
    if not rows:
        raise ValueError(NOTHING)
    labels = named(rows)
    lines = []
    for row in sorted(ranked(rows), key=lambda row: row.measurement):
        comparison, base = Comparison(selection.place, row), row.baseline
        assert base is not None  # a row has a gain
        others = comparison.over_others if "others" in selection.options else None
        lines.append(
            {
                "measured": where(row),
                "protocol": protocol_of(row),
                "arm": labels[id(row)],
                f"{selection.baseline} [dB]": written(base.psnr),
                "arm [dB]": written(row.psnr),
                "LMMSE [dB]": written(row.estimates["lmmse_psnr_db"]),
                "Δ over images [dB] (n)": counted(row.gain),
                "Δ over trainings [dB] (n)": counted(comparison.over_trainings),
                "Δ over trainings that did not choose [dB] (n)": counted(others),
                "verdict": "no result" if row.oracle else verdict(comparison, all_shown),
                "uncommitted": uncommitted([row, base]),
            }
        )
    one_arm = len({*labels.values()}) == 1
    return table(of_one_arm(lines) if one_arm else lines)


def over_linear(row: Row) -> Mean | None:
    """PSNR of a row less that of the linear estimate, in pairs over images."""
    behind = row.estimates["lmmse_gain_psnr_db"]
    return None if behind is None else replace(behind, mean=-behind.mean)


def counted(gain: Mean | None, digits: int = 2) -> str:
    """As "+0.31 ± 0.22 (10)"."""
    if gain is None:
        return NONE
    return f"{signed(gain, digits)} ({gain.n})"


def signed(value: Mean | float, digits: int = 2) -> str:
    """As "+0.31 ± 0.22" or "+0.31"; no "-0.00", for adding 0 takes the sign of a zero."""
    if isinstance(value, Mean):
        return written(replace(value, mean=round(value.mean, digits) + 0.0), digits, "+")
    return f"{round(value, digits) + 0.0:+.{digits}f}"


def of_one_arm(lines: Sequence[Line]) -> list[Line]:
    """Lines of one arm alone, which is named in a heading instead of in each line."""
    made: list[Line] = []
    for line in lines:
        named_arm = {"arm [dB]": f"{line['arm']} [dB]"}
        kept = {key: text for key, text in line.items() if key != "arm"}
        made.append({named_arm.get(key, key): text for key, text in kept.items()})
    return made


def table(lines: Sequence[Line]) -> str:
    """A Markdown table without empty columns."""
    shown = Table("", lines, sparse=True)
    texts = [shown.headings, ["---"] * len(shown.headings), *shown.lines]
    # A bar within a cell would begin the next one.
    cells = [[text.replace("|", r"\|") for text in line] for line in texts]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def means(selection: Selection, all_shown: Families) -> str:
    """PSNR of every estimate at each measurement, a column for each inverter and arm.

    An arm under other settings than the usual ones of its inverter has a column of its own. With
    over=lmmse the numbers are paired differences to the linear estimate of the same images, with
    metric=COLUMN another score.

    Raises:
        ValueError: no row is selected, several are of one cell, or it shows no such score.
    """
    rows, over = selection.chosen, "lmmse" in selection.options.get("over", ())
    metric = ",".join(selection.options.get("metric", ("psnr_db",)))
    if metric not in CHANGED or (over and metric != "psnr_db"):
        raise ValueError(
            f"metric={metric} must be one of {', '.join(CHANGED)}, and beside over=lmmse psnr_db"
        )
    name, digits = CHANGED[metric]
    if over:
        rows = [row for row in rows if row.measurement.inverter != "lmmse"]
    labels: dict[int, str] = {}
    for inverter in {row.measurement.inverter for row in rows}:
        labels |= named([row for row in rows if row.measurement.inverter == inverter])
    lines: dict[str, dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: row.measurement.value):
        # Without a generator every arm's result is the same.
        trained = row.runs[0].config["inverter.family"] is not None
        told = labels[id(row)].removeprefix(row.arm).removeprefix(", ")
        parts = (row.measurement.inverter, row.arm if trained else "", told)
        column = ", ".join(filter(None, parts))
        line = lines.setdefault(where(row), {})
        if trained and column in line:
            raise ValueError(
                f"two rows are of {where(row)}, {column}: name protocols= or a setting"
            )
        score = row.estimates.get(metric)
        line[column] = counted(over_linear(row)) if over else written(score, digits)
    columns = sorted({column for line in lines.values() for column in line})
    heading = "measured" if metric == "psnr_db" else name.removeprefix("Δ ")
    full = [
        {heading: text} | {column: line.get(column, NONE) for column in columns}
        for text, line in sorted(lines.items())
    ]
    return table(full)


def changes(selection: Selection, all_shown: Families) -> str:
    """What each choice changes alone: paired differences to the same arm with the usual ones."""
    rows = selection.chosen
    labels = named(rows)
    usual = {(row.measurement, row.arm): row for row in rows if labels[id(row)] == row.arm}
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        base = usual.get((row.measurement, row.arm))
        if base is None or base is row:
            continue
        told = labels[id(row)].removeprefix(f"{row.arm}, ")
        line = lines.setdefault(f"{where(row)}, {told}", {})
        for metric, (name, digits) in CHANGED.items():
            gain = over_images(pairs_of(row.runs, base.runs, metric))
            line[f"{row.arm}: {name} (n)"] = counted(gain, digits)
    if not lines:
        raise ValueError(NOTHING)
    columns = sorted({column for line in lines.values() for column in line}, key=placed)
    full = [
        {"choice": told} | {column: line.get(column, NONE) for column in columns}
        for told, line in lines.items()
    ]
    return table(full)


def placed(column: str) -> tuple[str, int]:
    """An arm's columns stand together, in the order of CHANGED."""
    arm, _, name = column.rpartition(": ")
    names = [f"{title} (n)" for title, _ in CHANGED.values()]
    return arm, names.index(name)


def searches(selection: Selection, all_shown: Families) -> str:
    """What each arm reaches at the settings that a tuning drew at random."""
    lines: list[Line] = []
    for made in by_setting(selection.chosen, selection.baseline):
        series = dict(part.split("=") for part in made.title.split(", ")[1:])
        for texts in made.lines:
            line = dict(zip(made.headings, texts))
            lines.append({"searched": f"{series['task']}, {line.pop('tuned at')}"} | line)
    if not lines:
        raise ValueError(NOTHING)
    return table(lines)


def gain(selection: Selection, all_shown: Families) -> str:
    """One gain, for a sentence."""
    found = selection.compared
    if len(found) != 1:
        labels = ", ".join(f"{where(one.row)} {one.row.label}" for one in found)
        raise ValueError(f"one comparison has to be selected, and there are {labels or 'none'}")
    [comparison] = found
    if "images" in selection.options.get("over", ()):
        assert comparison.row.gain is not None
        return signed(comparison.row.gain)
    return signed(comparison.gain)


def tally(shown: Sequence[Comparison], all_shown: Families) -> str:
    """As "ahead 3 (**1**), level 2; -0.03 to +1.08", those that survive in brackets.

    What trainings and what images of one training say is not added up.
    """
    texts = []
    for family in ("trainings", "images"):
        own = [one for one in shown if one.family == family]
        if not own:
            continue
        counts = Counter(one.verdict for one in own)
        survivors = Counter(one.verdict for one in own if all_shown.survives(one))
        parts = []
        for word in VERDICTS:
            if counts[word]:
                kept = f" (**{survivors[word]}**)" if word in (AHEAD, BEHIND) else ""
                parts.append(f"{word} {counts[word]}{kept}")
        ends = dict.fromkeys(side(one.gain.mean for one in own) for side in (min, max))
        what = ", these images" if family == "images" else ""
        texts.append(f"{', '.join(parts)}{what}; {' to '.join(signed(end) for end in ends)}")
    return " / ".join(texts) or NONE


def family(all_shown: Families) -> str:
    """How many comparisons there are, how many exclude 0, and how many survive."""
    texts = []
    for name, said in (
        ("trainings", "comparisons over trainings"),
        ("images", "comparisons over the images of one training of each arm"),
    ):
        own = all_shown.of(name)
        apart = [one for one in own if one.verdict in (AHEAD, BEHIND)]
        kept = [one for one in own if all_shown.survives(one)]
        texts.append(f"{len(own)} {said}: {len(apart)} exclude 0, {len(kept)} survive")
    return "; ".join(texts)


View = Callable[[Selection, Families], str]
VIEWS: Mapping[str, View] = {
    "gains": gains,
    "means": means,
    "changes": changes,
    "searches": searches,
    "gain": gain,
}
