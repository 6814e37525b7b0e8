"""Section 5 of the paper, closed form against simulation: `python -m rtil.theory`.

The true signal is x* = W1* (W0* z0 + z1), measured as y = A x* + e. The closed forms are Lemmas
5.1, 5.2 and B.1 (rtil.models.linear), with measurement noise (rtil.linear_theory.closed_form). The
simulation knows none of them: it learns W1 from samples, and inverts by gradient descent with the
ILO that inverts a GAN. It writes <out>/theory.jsonl, theory.png and theory.pdf and prints tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from rtil.linear_theory.setup import settings_of
from rtil.process.command import check_writable, entry
from rtil.process.files import write_text
from rtil.process.progress import finished
from rtil.runs.setup import command

if TYPE_CHECKING:
    from rtil.linear_theory.simulation import Inverted, Learnt


def theory(cfg: DictConfig) -> None:
    """Runs both problems, prints the tables, and writes rows and figure.

    Args:
        cfg: composed from theory.yaml.

    Raises:
        ValueError: settings outside section 5.
    """
    # Torch is imported where a command runs: help, completion and refused words need none.
    import torch

    from rtil.linear_theory.simulation import inversion, training
    from rtil.linear_theory.table import inversion_table, training_table
    from rtil.linear_theory.truth import draw_truth

    settings = settings_of(cfg)
    check_writable(settings.out, f"theory: out={settings.out}")
    # Products of 100 rows: a second thread gains nothing alone, and waits beside other work.
    torch.set_num_threads(1)
    truth = draw_truth(settings.n0, settings.n1, settings.nd, settings.seed)
    learnt, training_rows = training(truth, settings)
    print(training_table(training_rows))
    inversion_rows = inversion(truth, learnt, settings)
    print(inversion_table(inversion_rows))
    settings.out.mkdir(parents=True, exist_ok=True)
    path = settings.out / "theory.jsonl"
    write_text(path, json_lines([*training_rows, *inversion_rows]))

    from rtil.linear_theory import figure  # with matplotlib, which is slow to import

    figure.draw(inversion_rows, truth, settings)
    finished(f"{path}, theory.png and theory.pdf")


def json_lines(rows: Iterable[Learnt | Inverted]) -> str:
    """A line of JSON for each row, with the problem that it belongs to."""
    return "".join(json.dumps({"problem": row.problem, **asdict(row)}) + "\n" for row in rows)


@command("theory")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: theory(cfg))


if __name__ == "__main__":
    main()
