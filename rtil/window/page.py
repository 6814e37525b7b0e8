"""The page of the window, by Gradio (the extra rtil[app]): controls, and what they start.

What is computed is in the other modules of this room. Nothing is sent elsewhere: analytics are
off, fonts are the system's, and what is dropped lies in a folder that ends with the window.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from threading import Event
from typing import Any

from rtil.process.signals import StopRequest
from rtil.runs import reference
from rtil.window.picture import STYLE
from rtil.window.reconstruct import Stopped, View, reconstructed
from rtil.window.sample import drawn
from rtil.window.setup import Bench, Controls, Measure, measure_of
from rtil.window.subject import CANVAS, shown, subject

log = logging.getLogger("rtil.window.page")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
AGE = 600  # seconds that a dropped photo is kept at most
AT_RANDOM, PAINTED = "at random, by the ratio", "as painted"
STEPS = re.compile(r"\s*\d{1,6}(\s*,\s*\d{1,6})*\s*")
ERRORS = (ValueError, TypeError, RuntimeError, OSError)


def library() -> Any:
    """Gradio, told to send and to remember nothing before it is imported.

    Raises:
        ValueError: it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        import gradio
    except ImportError as error:
        raise ValueError('app: gradio cannot be imported. pip install "rtil[app]"') from error
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it says that it is reached
    return gradio


class Clicks:
    """What the page's buttons start; a reconstruction at a time, whoever asks."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.stop = bench, Event()

    def reconstruct(
        self,
        number: float | None,
        canvas: dict | None,
        missing: str,
        task: str,
        *numbers: Any,
    ) -> Iterator[tuple[str, str, str]]:
        """Pictures, iterates and a line, again and again; an error of the user's is the line."""
        view = View("", "", "")
        self.stop.clear()
        yield view.pictures, view.film, "Begun."
        try:
            controls = controls_of(task, *numbers)
            paints = missing == PAINTED and measure_of(task).masks
            here = subject(self.bench, number or 0, canvas or {}, paints)
            for view in reconstructed(self.bench, controls, here, self.stop):
                yield view.pictures, view.film, view.status
        except Stopped as end:
            yield view.pictures, view.film, str(end)
        except ERRORS as error:
            yield view.pictures, view.film, f"error: {error}"

    def sample(self, count: float, size: float, seed: float | None) -> tuple[str, str]:
        """Rows of samples and a line."""
        return drawn(self.bench, int(count), abs(int(seed or 0)), size)

    def canvas(self, number: float | None) -> dict | None:
        """A held-out image to paint on; None where there is none of this number."""
        picture = shown(self.bench, number or 0)
        if picture is None:
            return None
        return {"background": picture, "layers": [], "composite": picture}


def controls_of(
    task: str, value: float | None, noise: float | None, seed: float | None, steps: str
) -> Controls:
    """What the controls say. Raises ValueError for what is no number."""
    if value is None or noise is None or seed is None:
        raise ValueError("A number is missing: of the measurement, noise_std or seed.")
    if steps.strip() and not STEPS.fullmatch(steps):
        raise ValueError(f"steps={steps} must be whole numbers, such as 100 or 200,100,100.")
    counts = [int(text) for text in steps.split(",")] if steps.strip() else []
    return Controls(task, value, noise, int(seed), counts)


def built(gr: Any, clicks: Clicks) -> Any:
    """The page with its two tabs."""
    names = " beside ".join(arm.label for arm in clicks.bench.arms)
    with gr.Blocks(title="rtil", analytics_enabled=False, delete_cache=(60, AGE)) as page:
        gr.Markdown(f"### rtil: {names}")
        with gr.Tab("Reconstruct"):
            _reconstructing(gr, clicks)
        with gr.Tab("Samples"):
            _sampling(gr, clicks)
    return page


def _reconstructing(gr: Any, clicks: Clicks) -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            number, canvas = _subject(gr, clicks)
        with gr.Column(scale=1, min_width=220):
            controls = _controls(gr, clicks.bench)
            go = gr.Button("Reconstruct", variant="primary")
            end = gr.Button("Stop")
    status = gr.Textbox("", label="Status", interactive=False, elem_id="status", max_lines=3)
    pictures = gr.HTML(elem_id="pictures")
    film = gr.HTML(elem_id="film")
    shown_in = [pictures, film, status]
    go.click(clicks.reconstruct, [number, canvas, *controls], shown_in, api_name="reconstruct")
    end.click(clicks.stop.set, queue=False)


def _subject(gr: Any, clicks: Clicks) -> tuple[Any, Any]:
    """A number and a canvas."""
    last = len(clicks.bench.order) - 1
    with gr.Row(equal_height=True):
        label = f"Held-out image, 0 to {last}" if last >= 0 else "No held-out images"
        number = gr.Number(0, label=label, precision=0, interactive=last >= 0)
        again = gr.Button("Put it on the canvas", interactive=last >= 0)
    canvas = gr.ImageEditor(
        clicks.canvas(0),
        type="pil",
        format="png",
        label="Drop a photo, or paint over what is missing",
        sources=("upload", "clipboard"),
        transforms=(),
        layers=False,
        brush=gr.Brush(default_size=32, colors=["#e11d48"], color_mode="fixed"),
        canvas_size=(CANVAS, CANVAS),
        height=460,
    )
    for event in (number.change, again.click):
        event(clicks.canvas, number, canvas, api_visibility="private")
    return number, canvas


def _controls(gr: Any, bench: Bench) -> list[Any]:
    """Those of a measurement and of the inversion, as `Clicks.reconstruct` takes them."""
    config = bench.config
    task = config["task"]
    choices = [*reference.choices("task")]
    chosen = gr.Dropdown(choices, value=task["name"], label="Measurement")
    value = gr.Number(config[task["knob"]], label=task["knob"])
    masks = measure_of(task["name"]).masks
    missing = gr.Radio(
        [AT_RANDOM, PAINTED], value=AT_RANDOM, label="Missing pixels", visible=masks
    )
    noise = gr.Number(config["noise_std"], label="noise_std, of the [0, 1] image")
    seed = gr.Number(config["seed"], label="seed", precision=0)
    steps = gr.Textbox("", label="steps of each stage; empty: as configured")

    def chosen_is(name: str) -> tuple[Any, Any]:
        measure: Measure = measure_of(name)
        number = gr.Number(label=measure.knob, value=measure.value)
        return number, gr.Radio(visible=measure.masks)

    chosen.change(chosen_is, chosen, [value, missing], api_visibility="private")
    return [missing, chosen, value, noise, seed, steps]


def _sampling(gr: Any, clicks: Clicks) -> None:
    with gr.Row():
        count = gr.Slider(1, 12, value=8, step=1, label="Images")
        size = gr.Slider(0, 3, value=1, step=0.1, label="Size of z_k")
        seed = gr.Number(0, label="seed", precision=0)
        go = gr.Button("Draw", variant="primary")
    status = gr.Textbox("", label="Status", interactive=False, elem_id="sample-status")
    rows = gr.HTML(elem_id="samples")
    inputs, outputs = [count, size, seed], [rows, status]
    go.click(clicks.sample, inputs, outputs, api_name="sample")
    size.release(clicks.sample, inputs, outputs, api_visibility="private")


def serve(bench: Bench, host: str, port: int | None) -> None:
    """Serves the page until the command is stopped.

    Raises:
        ValueError: gradio is not installed, or the port is in use.
    """
    with tempfile.TemporaryDirectory(prefix="rtil-app-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        gr = library()
        page = built(gr, Clicks(bench))
        if host not in LOOPBACK:
            log.warning("host=%s: who reaches this machine can use the window.", host)
        try:
            _, url, _ = page.launch(
                server_name=host,
                server_port=port,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                enable_monitoring=False,
                ssr_mode=False,
                footer_links=[],
                max_file_size=int(bench.limits.file_mb * 1e6),
                theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
                css=STYLE,
            )
        except OSError as error:
            where = f"app: port={port} of host={host}"
            raise ValueError(f"{where} cannot be had; choose another.") from error
        print(f"{url} (Ctrl-C ends it)", flush=True)
        # A flag and not the end of the process, so that the folder goes as well.
        with StopRequest() as request:
            while request.seen() is None:
                time.sleep(0.2)
        page.close(verbose=False)
