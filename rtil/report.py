"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

With `experiment=fig6_ilo` the page is that figure in the paper's arrangement, and names what is
missing. Every number comes from results*.jsonl, or with `results=` from the file that `pack=` made
of them (`rtil.runs.archive`), which takes no torch. 1. `rtil.reporting.study` reads runs and
arranges what is compared, 2. `rtil.diagnosis.render` draws samples of the generators on disk,
3. `rtil.reporting.page` makes sections of them, 4. which are written as HTML and as Markdown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from rtil.experiments.members import belonging
from rtil.process.command import CONFIGS, entry
from rtil.process.files import write_text
from rtil.reporting.arrange import record
from rtil.reporting.html import page
from rtil.reporting.markdown import markdown
from rtil.reporting.page import Look, Samples, sections_of
from rtil.reporting.study import Source, Study, of_everything, of_experiment
from rtil.reporting.texts import paragraph
from rtil.runs import archive
from rtil.runs.run import collect


@dataclass(frozen=True)
class Settings:
    """What a report is made of, and where it goes; experiment is a resolved plan, or None."""

    source: Source
    experiment: Mapping | None
    scale: str
    look: Look
    pack: Path | None


def settings_of(cfg: DictConfig) -> Settings:
    """The settings in a configuration composed from report.yaml."""
    given = cfg.results if OmegaConf.is_list(cfg.results) else [cfg.results]
    source = Source(Path(cfg.root), tuple(Path(place) for place in given if place))
    experiment: Mapping | None = None
    if "experiment" in cfg:
        plan = OmegaConf.to_container(cfg.experiment, resolve=True)
        assert isinstance(plan, dict)
        experiment = plan
    out = source.root / "report"
    if source.packed:
        out /= "+".join(path.stem for path in source.packed)
    if experiment:
        out /= f"{experiment['name']}-{cfg.scale.name}"
    look = Look(Path(cfg.out or out), cfg.baseline, cfg.columns, cfg.gallery)
    return Settings(source, experiment, cfg.scale.name, look, Path(cfg.pack) if cfg.pack else None)


def study_of(settings: Settings) -> Study:
    """What the report is about; raises as `rtil.reporting.study` does."""
    source, baseline = settings.source, settings.look.baseline
    if settings.experiment:
        return of_experiment(settings.experiment, settings.scale, source, baseline)
    return of_everything(source, baseline)


def report(cfg: DictConfig) -> Path:
    """Writes tables, figures and the page, whose path it returns; raises as `study_of` does.

    With cfg.results they are made from packed rows, without anything that needs an image.
    """
    settings = settings_of(cfg)
    study, look = study_of(settings), settings.look
    samples = Samples({})
    if study.generators:
        # Torch is imported for generators alone: a report from packed rows needs none.
        from rtil.diagnosis.render import samples_of

        samples = samples_of(study, look.columns)
    look.out.mkdir(parents=True, exist_ok=True)
    sections = sections_of(study, look, samples)
    reading = [paragraph("reading")] if study.rows else []
    head = "\n\n".join([f"# {study.title}", *reading, *study.notes]) + "\n"
    text = head + markdown(sections.get("Tables", ()))
    rows = json.dumps([record(row) for row in study.rows])
    # JSON has no NaN: an interval of one image is null.
    values = json.loads(rows, parse_constant=lambda _: None)
    write_text(look.out / "table.json", json.dumps(values, indent=1) + "\n")
    write_text(look.out / "table.md", text)
    path = look.out / "report.html"
    write_text(path, page(study.title, study.lead, sections))
    print(f"{text}\nPage: {path}")
    return path


def pack(cfg: DictConfig) -> Path:
    """Writes the inversions below cfg.root, or those of an experiment, to the file cfg.pack.

    Raises:
        FileNotFoundError: there are none.
        ValueError: as `collect` and `rtil.runs.archive.write` say.
    """
    settings = settings_of(cfg)
    root, experiment = settings.source.root, settings.experiment
    assert settings.pack is not None
    if settings.source.packed:
        raise ValueError(
            "report: pack= writes what is below root=, results= reads what was "
            "packed: give one of them."
        )
    runs, _ = collect(root)
    if experiment:
        runs = [run for run, _ in belonging(runs, experiment, settings.scale)]
        name = experiment["name"]
        if not runs:
            raise FileNotFoundError(
                f"report: no inversion of experiment={name} at scale={settings.scale} "
                f"below {root}. python -m rtil.report experiment={name} root={root} "
                "names the commands that run it."
            )
    print(archive.write(runs, root, settings.pack))
    return settings.pack


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: (pack(cfg) if cfg.pack else report(cfg), None)[1])


if __name__ == "__main__":
    main()
