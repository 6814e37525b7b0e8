"""The window computes what the commands do, and says in a line what it cannot."""

import json
import sys
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from helpers.commands import composed, export, start
from PIL import Image

from rtil.metrics.image import psnr, to_unit
from rtil.process.rng import seeded
from rtil.window import page
from rtil.window.picture import Picture, row
from rtil.window.reconstruct import Film, Stopped, before, reconstructed, step_of, watched
from rtil.window.sample import drawn
from rtil.window.setup import Controls, measure_of, prepare
from rtil.window.subject import CANVAS, shown, subject

WORDS = ("scale=tiny", "data.num_train=60", "data.num_test=5", "yardstick.num_train=60")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp("window")
    export(path, 0, "ilo", "data.num_train=60", "data.num_test=5")
    export(path, 1, "vanilla", "data.num_train=60", "data.num_test=5")
    return path


def bench_of(root, *more):
    (own,) = root.glob("train/*-ilo-*/generator.pt")
    (other,) = root.glob("train/*-vanilla-*/generator.pt")
    words = [*WORDS, f'generator="{own}"', f'baseline="{other}"', *more]
    return prepare(composed("app", *words).copy(), words)


@pytest.fixture(scope="module")
def bench(root):
    return bench_of(root)


@pytest.mark.parametrize(("task", "value"), [
    ("cs", 0.3),
    pytest.param("inpainting", 0.5, marks=pytest.mark.slow),
    pytest.param("sr", 2, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_click_computes_what_invert_does(root, bench, task, value):
    knob = measure_of(task).knob
    (own,) = root.glob("train/*-ilo-*/generator.pt")
    said = (f"task={task}", f"{knob}={value}", "noise_std=0.05", "seed=3")
    more = ("num_images=2", "yardstick.use=true")
    place = start("invert", root, *WORDS, f'generator="{own}"', *said, *more)
    rows = {}
    for line in (place / "results.jsonl").read_text().splitlines():
        rows[json.loads(line)["id"]] = json.loads(line)
    here = subject(bench, 1, {}, paints=False)
    ready = bench.ready(bench.arms[0], Controls(task, value, 0.05, 3), None)
    y = ready.measuring.measured(ready.part.A, here.image, [here.name])
    *_, found = watched(ready, y, here.name, Event())
    mine = float(psnr(to_unit(found.image), to_unit(here.image)))
    assert mine == pytest.approx(rows[here.name]["psnr_db"], abs=1e-4)
    linear = before(bench, ready, y, here.image)[0][-1]
    assert linear.note == f"PSNR {rows[here.name]['lmmse_psnr_db']:.2f} dB"


def test_the_page_shows_each_arm_and_what_it_went_through(bench):
    here = subject(bench, 0, {}, paints=False)
    views = [*reconstructed(bench, Controls("cs", 0.3, 0.0, 0), here, Event())]
    assert "reconstruction, ilo<br>PSNR" in views[-1].pictures
    assert "reconstruction, vanilla<br>PSNR" in views[-1].pictures
    assert (
        views[-1].status.startswith("Done.")
        and views[-1].film.count("<figcaption>stage 0, step 1<br>") == 2
    )


def test_a_photo_is_scored_unless_its_mask_is_painted(bench):
    photo = Image.fromarray(np.arange(90 * 60, dtype=np.uint8).reshape(60, 90))
    stroke = Image.new("RGBA", photo.size)
    stroke.paste((255, 0, 0, 255), (20, 0, 60, 30))
    canvas = {"background": photo.convert("RGBA"), "layers": [stroke]}
    whole, damaged = subject(bench, 0, canvas, False), subject(bench, 0, canvas, True)
    assert whole.known and whole.mask is None and whole.name == "photo"
    assert not damaged.known and 0 < int((~damaged.mask).sum()) < damaged.mask.numel()
    # The middle square is rows 0 to 60, columns 15 to 75: the stroke is above and in the middle.
    assert not damaged.mask[3, 7] and damaged.mask[12:].all()
    *_, view = reconstructed(bench, Controls("inpainting", 0.5, 0, 0), damaged, Event())
    assert "PSNR" not in view.pictures and "with the given pixels" in view.pictures


def test_a_background_that_is_the_held_out_image_is_that_image_bit_for_bit(bench):
    canvas = {"background": shown(bench, 2).convert("RGBA"), "layers": []}
    assert canvas["background"].size == (CANVAS, CANVAS)
    assert torch.equal(subject(bench, 2, canvas, False).image, subject(bench, 2, {}, False).image)
    assert subject(bench, 3, canvas, False).name == "photo"


@pytest.mark.parametrize(
    ("number", "canvas", "paints", "named"),
    [
        (9, {}, False, "There is no image 9: held-out images are 0 to 4"),
        (0, {}, True, "No mask is painted"),
        (0, {"layers": [Image.new("RGBA", (64, 64))]}, True, "No mask is painted"),
        (
            0,
            {"layers": [Image.new("RGBA", (64, 64), "red")]},
            True,
            "nothing of the image is left",
        ),
    ],
)
def test_what_is_wrong_with_a_subject_is_a_line(bench, number, canvas, paints, named):
    with pytest.raises(ValueError, match=named):
        subject(bench, number, canvas, paints)


@pytest.mark.parametrize(
    ("controls", "named"),
    [
        (("cs", 7, 0, 0, ""), "ratio=7 must be in"),
        (("sr", 3, 0, 0, ""), "factor=3 for images of 16x16"),
        (("cs", 0.3, -1, 0, ""), "noise_std=-1 must be a number from 0"),
        (("cs", 0.3, 0, -1, ""), "seed=-1 must be a whole number"),
        (("cs", None, 0, 0, ""), "A number is missing"),
        (("cs", 0.3, 0, 0, "1;2"), "steps=1;2 must be whole numbers"),
        (("cs", 0.3, 0, 0, "0"), "steps=0 must be a whole number from 1"),
        (("../task", 0.3, 0, 0, ""), "is none of configs/task"),
    ],
)
def test_an_error_of_the_users_is_the_line_of_the_page(bench, controls, named):
    *_, (_, _, line) = page.Clicks(bench).reconstruct(0, None, page.AT_RANDOM, *controls)
    assert line.startswith("error: ") and named in line and "\n" not in line


def test_without_training_images_the_pseudo_inverse_is_shown(bench, monkeypatch):
    bench = replace(bench)  # without what it has read

    def load(images):
        raise FileNotFoundError("they are not here")

    monkeypatch.setattr("rtil.window.setup.TrainingImages.load", load)
    here = subject(bench, 0, {}, False)
    *_, view = reconstructed(bench, Controls("cs", 0.3, 0, 0, [1]), here, Event())
    assert "pseudo-inverse<br>PSNR" in view.pictures and "they are not here" in view.status


def test_a_mean_with_its_error_shows_both(root):
    few = ("inverter.chains=2", "inverter.steps=2", "inverter.candidates=9")
    bench = bench_of(root, "inverter=posterior", *few)
    here = subject(bench, 0, {}, False)
    *_, view = reconstructed(bench, Controls("cs", 0.3, 0.01, 0), here, Event())
    assert view.pictures.count("uncertainty (std)<br>white: ±") == 2


def test_a_reconstruction_ends_within_a_step_of_stop(bench):
    stop = Event()
    views = reconstructed(
        bench, Controls("cs", 0.3, 0, 0, [10**4]), subject(bench, 0, {}, 0), stop
    )
    next(views)
    stop.set()
    with pytest.raises(Stopped, match="Stopped at iterate 1"):
        list(views)


def test_the_size_of_the_maps_goes_from_the_plain_generator_to_training(bench):
    sizes = {size: drawn(bench, 2, 0, size)[0] for size in (0, 1)}
    rows = {size: html.split('<div class="rtil-row small">')[1:] for size, html in sizes.items()}
    labels = [part.partition("</div>")[0].rpartition(">")[2] for part in rows[1]]
    assert labels == [f"{arm} G^{k}" for arm in ("ilo", "vanilla") for k in range(3)]
    plain, member = ([part.partition("</div>")[2] for part in rows[size]] for size in (0, 1))
    assert plain[0] == plain[1] == plain[2] == member[0] != member[1]
    arm = bench.arms[0]
    latents = arm.family.members[1].sample(arm.G, 2, seeded("cpu", 0, "window samples"))
    image = arm.family.members[1].synthesize(arm.G, latents)
    assert row([Picture("", x) for x in image]).partition(">")[2] == member[1]


def test_a_film_keeps_its_first_iterate_and_few_others():
    film, images = Film(), torch.zeros(1, 2, 2)
    for number in range(1000):
        film.add(Picture(str(number), images))
    numbers = [int(picture.label) for picture in film.pictures]
    assert numbers[0] == 0 and 4 <= len(numbers) <= 8
    assert len({*np.diff(numbers)}) == 1


def test_stages_are_counted_with_the_iterate_that_each_ends_at():
    assert [step_of(n, [3, 2]) for n in (1, 4, 5, 7)] == [
        "stage 0, step 1",
        "stage 0, step 4",
        "stage 1, step 1",
        "stage 1, step 3",
    ]
    assert step_of(5, []) == "step 5"


def test_labels_of_others_are_no_markup():
    html = row([Picture("<b>&", torch.zeros(1, 2, 2))], name="<script>")
    assert "<b>" not in html and "<script>" not in html


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ValueError, match=r'pip install "rtil\[app\]"'):
        page.library()


def test_arms_of_different_images_are_refused(root, tmp_path):
    export(tmp_path, 0, "vanilla", "image_channels=3")
    (own,) = root.glob("train/*-ilo-*/generator.pt")
    (other,) = tmp_path.glob("train/*/generator.pt")
    words = [*WORDS, f'generator="{own}"', f'baseline="{other}"']
    with pytest.raises(ValueError, match=r"draws images \(3, 16, 16\) and generator=.* \(1, 16"):
        prepare(composed("app", *words).copy(), words)
