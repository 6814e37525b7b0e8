"""A window to invert and sample in, in a browser: `python -m rtil.app generator=FILE`.

Needs the extra rtil[app]. It is reached from this machine alone unless `host` says otherwise,
keeps nothing that is dropped on it, and writes no results. Settings are those of `rtil.invert`.
"""

from __future__ import annotations

from omegaconf import DictConfig

from rtil.process.command import entry
from rtil.runs.overrides import running
from rtil.runs.setup import command


def app(cfg: DictConfig) -> None:
    """Serves the window until it is stopped.

    Args:
        cfg: composed from app.yaml.

    Raises:
        ValueError, FileNotFoundError: bad settings or generators, gradio is not installed, or the
            port is in use.
    """
    # Torch and gradio are imported where the command runs: help and refused words need none.
    from rtil.window import page, setup

    page.library()
    page.serve(setup.prepare(cfg, running() or ()), cfg.host, cfg.port)


@command("app")
def main(cfg: DictConfig) -> None:
    """Entry point."""
    entry(lambda: app(cfg))


if __name__ == "__main__":
    main()
