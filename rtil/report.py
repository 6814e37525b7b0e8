"""Turns inversion runs into tables, figures and a page: `python -m rtil.report root=runs`.

With `experiment=fig6_ilo` the page is that figure in the paper's arrangement, and names what is
missing. Every number comes from results*.jsonl, or with `results=` from the file that `pack=` made
of them (`rtil.runs.archive`), which takes no torch. 1. `rtil.reporting.study` reads runs and
arranges what is compared, 2. `rtil.diagnosis.render` draws samples of the generators on disk,
3. `rtil.reporting.page` makes sections of them, 4. which are written as HTML and as Markdown.
With `docs=.` the tables of documents are written instead (`rtil.reporting.documents`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from rtil.experiments.plan import members
from rtil.process.command import check_writable, entry
from rtil.process.instantiate import allow
from rtil.runs import archive
from rtil.runs.overrides import running
from rtil.runs.run import collect
from rtil.runs.setup import checked, command


def experiment_of(cfg: DictConfig) -> Mapping | None:
    """The plan of a report on an experiment, resolved."""
    plan = OmegaConf.to_container(cfg.get("experiment") or OmegaConf.create(), resolve=True)
    assert isinstance(plan, dict)
    return plan or None


def report(cfg: DictConfig) -> Path:
    """Writes tables, figures and the page, whose path it returns.

    Raises:
        FileNotFoundError: there are no runs. ValueError: as `rtil.reporting.study` says.
    """
    # Drawing is slow to import: help, completion and refused words need none.
    from rtil.reporting.page import Look, sections_of, write
    from rtil.reporting.sections import Section
    from rtil.reporting.study import Source, of_everything, of_experiment

    given = cfg.results if OmegaConf.is_list(cfg.results) else [cfg.results]
    source = Source(Path(cfg.root), [Path(path) for path in given if path])
    experiment, out = experiment_of(cfg), source.root / "report"
    check_writable(Path(cfg.out or out), f"report: out={cfg.out or 'null'}")
    if source.packed:
        out /= "+".join(path.stem for path in source.packed)
    if experiment:
        out /= f"{experiment['name']}-{cfg.scale.name}"
        study = of_experiment(experiment, cfg.scale.name, source, cfg.baseline)
    else:
        study = of_everything(source, cfg.baseline)
    look = Look(Path(cfg.out or out), cfg.baseline, cfg.columns, cfg.gallery)
    look.out.mkdir(parents=True, exist_ok=True)
    samples: list[Section] = []
    if not source.packed:
        # Torch is imported for generators alone: a report from packed rows needs none.
        from rtil.diagnosis.render import samples_of

        allow(cfg.modules)
        samples = samples_of(study, look)
    return write(study, sections_of(study, look, samples), look.out)


def pack(cfg: DictConfig) -> Path:
    """Writes the inversions below cfg.root, or those of an experiment, to the file cfg.pack.

    Raises:
        FileNotFoundError: there are none.
        ValueError: as `collect` and `rtil.runs.archive` say.
    """
    root, experiment = Path(cfg.root), experiment_of(cfg)
    if cfg.results:
        raise ValueError(
            "report: pack= writes what is below root=, results= reads what was "
            "packed: give one of them."
        )
    check_writable(Path(cfg.pack).parent, f"report: pack={cfg.pack}")
    runs, notes = collect(root)
    if experiment:
        runs = members(runs, experiment, cfg.scale.name)
        name = experiment["name"]
        if not runs:
            raise FileNotFoundError(
                f"report: no inversion of experiment={name} at scale={cfg.scale.name} "
                f"below {root}. python -m rtil.report experiment={name} root={root} "
                "names the commands that run it."
            )
    if not cfg.allow_uncommitted:
        archive.check_committed(runs)
    print("\n".join([archive.write(runs, root, Path(cfg.pack)), *notes]))
    return Path(cfg.pack)


def documents(cfg: DictConfig) -> None:
    """Writes the tables of the documents in cfg.docs; raises as `regenerate` does."""
    from rtil.reporting.documents import regenerate

    changed = regenerate(Path(cfg.docs), cfg.check)
    print("\n".join([f"{len(changed)} documents differed.", *map(str, changed)]))


def run(cfg: DictConfig) -> None:
    """Packs rows, writes documents or makes a report, once the settings are those of a report."""
    cfg = checked(cfg, "report", running())
    if cfg.pack:
        pack(cfg)
    elif cfg.docs:
        documents(cfg)
    else:
        report(cfg)


@command("report")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: run(cfg))


if __name__ == "__main__":
    main()
