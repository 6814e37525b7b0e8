"""What the arms gain under each protocol, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtil.reporting.table import seeds, written

ORDER = ("paper", "authors", "fair")
READING = (
    "Gains by protocol: Δ PSNR is the mean difference to the baseline under the same protocol "
    "over n images, Δ over seeds that over training seeds (both as in the tables above). LMMSE - "
    "best arm is the paired difference of the linear estimate to the arm and protocol that it is "
    "least ahead of, at that measurement and those settings; above 0, no generator is better "
    "than it. Columns that say oracle selected the iterate by the true image, which no user has: "
    "they are no result, and no arm is the best by them."
)


def gains(rows: Sequence[Mapping], baseline: str) -> list[dict[str, str]]:
    """Rows of {heading: text}, one for each measurement, arm and choice of other settings.

    A group of columns is a protocol, or a protocol whose iterates an oracle selected.

    Args:
        rows: records of the cells of one series (`rtil.reporting.table.records`).
        baseline: arm that differences are paired against; it has columns and no rows.

    Returns:
        No row where there is one protocol alone.
    """
    rows = [row for row in rows if "n" in row]
    if len({row["protocol"] for row in rows}) < 2:
        return []
    groups = sorted({group(row) for row in rows}, key=rank)
    lines: dict[tuple[str, str], dict[str, Mapping]] = {}
    for row in rows:
        if row["arm"] != baseline:
            lines.setdefault((row["measurement"], named(row)), {})[group(row)] = row
    texts = []
    for (measurement, label), found in lines.items():
        line = {"measurement": measurement, "arm": label}
        for name in groups:
            row = found.get(name)
            base = (
                {}
                if row is None
                else next(
                    (
                        other
                        for other in rows
                        if other["measurement"] == measurement
                        and other["label"] == row["baseline"]
                    ),
                    {},
                )
            )
            line |= {
                f"{name}: Δ PSNR [dB]": counted(row and row["gain_psnr_db"], "+"),
                f"{name}: Δ over seeds [dB]": seeds(row and row["gain_psnr_db_seeds"]),
                f"{name}: PSNR of {baseline} [dB]": counted(base.get("psnr_db")),
            }
        linear = [row["lmmse_psnr_db"] for row in found.values() if row["lmmse_psnr_db"]]
        most = max(linear, key=lambda known: known["n"], default=None)
        line["LMMSE PSNR [dB]"] = counted(most)
        line["LMMSE - best arm [dB]"] = to_best(
            [
                row
                for row in rows
                if row["measurement"] == measurement
                and others(row).items() <= others(next(iter(found.values()))).items()
            ]
        )
        texts.append(line)
    kept = [key for key in (texts or [{}])[0] if any(line[key] != "–" for line in texts)]
    return [{key: line[key] for key in kept} for line in texts]


def shown(rows: Sequence[Mapping]) -> list[Mapping]:
    """The records whose gain can be drawn, by protocol: not those that an oracle selected."""
    found = [row for row in rows if row.get("gain_psnr_db") and not is_oracle(row)]
    return sorted(found, key=lambda row: rank(group(row)))


def is_oracle(row: Mapping) -> bool:
    """Whether the true image selected the iterates of a record."""
    return row["settings"].get("selection") == "oracle"


def group(row: Mapping) -> str:
    """The columns of a record, for example "authors (oracle)"."""
    return row["protocol"] + (" (oracle)" if is_oracle(row) else "")


def rank(name: str) -> tuple[int, str]:
    """Place of a group: known protocols first."""
    protocol = name.partition(" ")[0]
    return ORDER.index(protocol) if protocol in ORDER else len(ORDER), name


def others(row: Mapping) -> dict[str, str]:
    """The settings of a record beside what its columns say."""
    told = {"protocol", "selection"} if is_oracle(row) else {"protocol"}
    return {key: text for key, text in row["settings"].items() if key not in told}


def named(row: Mapping) -> str:
    """An arm with its settings beside what its columns say."""
    return ", ".join([row["arm"], *(f"{key}={text}" for key, text in others(row).items())])


def counted(found: Mapping | None, sign: str = "") -> str:
    """An estimate over images as text, always with their number."""
    return written(found, 2, sign, f"n={found['n']}" if found else "")


def to_best(rows: Sequence[Mapping]) -> str:
    """LMMSE less the best of these records, and which that is, those of oracles left out."""
    rows = [row for row in rows if row["lmmse_gain_psnr_db"] and not is_oracle(row)]
    if not rows:
        return "–"
    # LMMSE has seen the same images as each arm, which arms need not have of each other.
    best = min(rows, key=lambda row: row["lmmse_gain_psnr_db"]["mean"])
    return f"{counted(best['lmmse_gain_psnr_db'], '+')} {best['arm']}, {group(best)}"
