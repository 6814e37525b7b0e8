"""The window in a browser: Chromium that is installed, driven by playwright; both are optional."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.commands import export

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("scale=tiny", "hardware.threads=1", "data.num_train=60", "yardstick.num_train=60")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """A window of two untrained generators; ended as a user ends it, nothing is left of it."""
    pytest.importorskip("gradio", reason='pip install "rtil[app]"')
    root = tmp_path_factory.mktemp("app")
    temporary = root / "temporary"
    temporary.mkdir()
    files = []
    for arm in ("ilo", "vanilla"):
        export(root, 0, arm, "data.num_train=60")
        files += root.glob(f"train/*-{arm}-*/generator.pt")
    words = [f'generator="{files[0]}"', f'baseline="{files[1]}"', f"port={free_port()}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "rtil.app", *WORDS, *words]
    log = root / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=root, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        for _ in range(600):
            found = re.search(r"http://127\.0\.0\.1:\d+/", log.read_text())
            if found or process.poll() is not None:
                break
            time.sleep(0.2)
        assert found, log.read_text()
        yield found[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
        assert not [*temporary.glob("rtil-app-*")]
    finally:
        process.kill()


@pytest.fixture
def browser(url):
    """A page, and the hosts that it asks for anything."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium")
    hosts = set()
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1180, "height": 1100})
        page.on("request", lambda request: hosts.add(request.url.split("/")[2]))
        page.goto(url)
        yield page, hosts
        chromium.close()


def clicked(page, begins):
    """The line after a click on "Reconstruct", once it begins so."""
    page.get_by_role("button", name="Reconstruct", exact=True).click()
    box = page.locator("#status textarea, #status input").first
    for _ in range(300):
        if box.input_value().startswith(begins):
            return box.input_value()
        page.wait_for_timeout(200)
    raise AssertionError(f"{box.input_value()!r} does not begin with {begins!r}")


@pytest.mark.slow
def test_a_click_through(browser):
    page, hosts = browser
    number = page.get_by_role("spinbutton", name="Held-out image")
    number.wait_for(timeout=60_000)
    number.fill("3")
    page.keyboard.press("Tab")
    page.get_by_role("spinbutton", name="ratio").fill("7")
    assert "ratio=7 must be in (0, 1]" in clicked(page, "error")
    page.get_by_role("spinbutton", name="ratio").fill("0.1")
    page.get_by_label("steps of each stage").fill("4,2,2")
    clicked(page, "Done.")
    text = page.locator("#pictures").inner_text()
    for label in ("linear estimate", "reconstruction, ilo", "reconstruction, vanilla"):
        assert re.search(rf"{label}\s+PSNR \d+\.\d\d dB", text), text
    assert re.search(r"stage 0, step 1\s+PSNR", page.locator("#film").inner_text())

    page.get_by_label("Measurement").click()
    page.get_by_role("option", name="inpainting", exact=True).click()
    page.get_by_label("as painted").check()
    assert "No mask is painted" in clicked(page, "error")
    box = page.locator("canvas").first.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 60, y - 40)
    page.mouse.down()
    page.mouse.move(x + 60, y + 30, steps=8)
    page.mouse.up()
    page.wait_for_timeout(500)
    clicked(page, "Done.")
    assert re.search(r"with the given pixels\s+PSNR", page.locator("#pictures").inner_text())

    page.get_by_role("tab", name="Samples").click()
    page.get_by_role("button", name="Draw", exact=True).click()
    page.locator("#samples img").first.wait_for(timeout=60_000)
    assert page.locator("#samples .name").all_inner_texts() == [
        f"{arm} G^{k}" for arm in ("ilo", "vanilla") for k in range(3)
    ]
    assert page.locator("#samples img").count() == 6 * 8
    assert hosts == {page.url.split("/")[2]}
