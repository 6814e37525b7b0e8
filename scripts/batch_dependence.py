#!/usr/bin/env python
"""Measure how much an image's result depends on how many images share its batch.

    python scripts/batch_dependence.py GENERATOR [OVERRIDES OF rtil.invert ...]

inverts the same test images with `inversion_batch` 1, 4 and 16 and adds their rows to the file of
results; without arguments it prints what the file holds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results" / "reliability" / "batch_dependence.jsonl"
SIZES = (1, 4, 16)


def measured(generator: str, words: list[str]) -> list[dict]:
    """A row for each batch size and image, with the settings that were typed."""
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "rtil.invert", f"generator={generator}", *words]
            fixed = [f"inversion_batch={size}", "pictures=false", f"run_dir={folder}/run"]
            subprocess.run([*command, *fixed], check=True)
            run = Path(folder, "run")
            commit = json.loads((run / "provenance.json").read_text())["commit"]
            for line in (run / "results.jsonl").read_text().splitlines():
                row = json.loads(line)
                about = {"settings": " ".join(words), "commit": commit, "batch": size}
                rows.append({**about, "id": row["id"], "psnr_db": row["psnr_db"]})
    return rows


def table(rows: Iterable[dict]) -> str:
    """The differences to batches of one, in dB of PSNR, a line for each setting and size."""
    from rtil.metrics.intervals import mean_ci

    scores: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        scores[row["settings"]][row["batch"]][row["id"]] = row["psnr_db"]
    lines = ["| settings | batch | n | mean Δ [dB] | largest change [dB] |", "| --- " * 5 + "|"]
    for settings, by_size in scores.items():
        alone = by_size[1]
        for size in sorted(by_size.keys() - {1}):
            change = [by_size[size][name] - psnr for name, psnr in alone.items()]
            mean, half = mean_ci(change)
            largest = max(map(abs, change))
            lines.append(
                f"| {settings} | {size} | {len(change)} | {mean:+.4f} ± {half:.4f} "
                f"| {largest:.4f} |"
            )
    return "\n".join(lines)


def main() -> None:
    if len(sys.argv) > 1:
        rows = measured(sys.argv[1], sys.argv[2:])
        with RESULTS.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(table(map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())))


if __name__ == "__main__":
    main()
