"""Why a generator inverts as it does: `python -m rtil.diagnose generator=FILE`.

Three tables, one figure and a json: the scale of every block's features, how far each depth of
ILO reaches and what happens where a stage hands over (`rtil.diagnosis.reach`), and how close the
samples of each family member are to real images (`rtil.diagnosis.sample`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rtil.process.command import entry
from rtil.process.files import write_text
from rtil.process.instantiate import naming
from rtil.process.progress import finished
from rtil.runs.overrides import elsewhere, line
from rtil.runs.setup import command


def diagnose(cfg: DictConfig, overrides: Sequence[str] | None = None) -> Path:
    """Writes diagnose.json, .md and .png, prints the tables, and returns their directory.

    Args:
        cfg: composed from diagnose.yaml.
        overrides: "key=value" texts given by the user; None reads those of the Hydra job.

    Raises:
        ValueError, FileNotFoundError: bad settings, files, generator or data.
    """
    # Torch is imported where a command runs: help, completion and refused words need none.
    from rtil.diagnosis import figure, reach, sample
    from rtil.diagnosis.result import Diagnosis
    from rtil.diagnosis.setup import prepare
    from rtil.diagnosis.table import tables
    from rtil.process.provenance import provenance

    if overrides is None:
        overrides = HydraConfig.get().overrides.task if HydraConfig.initialized() else ()
    job = prepare(cfg, overrides)
    blocks = reach.blocks(job)
    diagnosis = Diagnosis(
        generator=job.name,
        generator_sha256=job.digest,
        rtil=job.config["rtil"]["name"],
        blocks=blocks,
        depths=reach.depths(job, blocks),
        members=sample.members(job),
        settings=job.config,
        inverter=asdict(job.inverter),
        provenance=provenance(job.runtime),
    )
    job.run_dir.mkdir(parents=True, exist_ok=True)
    write_text(job.run_dir / "diagnose.json", diagnosis.json())
    text = tables(diagnosis, job.measured)
    write_text(job.run_dir / "diagnose.md", text)
    figure.draw(diagnosis, job.run_dir / "diagnose.png")
    print(text)
    following = {"generator": job.name, **naming(cfg), **elsewhere(cfg.root)}
    finished(job.run_dir, line("invert", following))
    return job.run_dir


def run(cfg: DictConfig) -> None:
    """Diagnoses; no signal stops it in between."""
    diagnose(cfg)


@command("diagnose")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: run(cfg))


if __name__ == "__main__":
    main()
