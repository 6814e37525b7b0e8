"""Laws of the embedded data: pure function of the index, disjoint typefaces, no small subspace."""

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from rtil.data.glyphs import CHARACTERS, MIN_CONTRAST, TYPEFACES, Glyphs, atlas, uniforms


@pytest.mark.parametrize(
    "size,channels", [(8, 1), (33, 3), pytest.param(64, 1, marks=pytest.mark.slow)]
)
def test_image_does_not_depend_on_its_batch(size, channels):
    glyphs = Glyphs(size, "train", 10_000, channels=channels)
    # More images than one chunk holds, in an order of their own.
    indices = torch.randperm(10_000, generator=torch.Generator().manual_seed(0))[:1200]
    together = glyphs.batch(indices)
    for place in (0, 1, 517, 1199):
        assert torch.equal(glyphs.batch([indices[place].item()])[0], together[place])
    assert torch.equal(glyphs.batch(indices.flip(0)), together.flip(0))


def test_image_does_not_depend_on_length_or_instance():
    short, long = Glyphs(16, "val", 10, seed=3), Glyphs(16, "val", 10**9, seed=3)
    copy = pickle.loads(pickle.dumps(long))
    assert torch.equal(short.batch(range(10)), long.batch(range(10)))
    assert torch.equal(copy.batch([10**9 - 1]), long.batch([10**9 - 1]))


def test_images_do_not_depend_on_threads():
    threads = torch.get_num_threads()
    glyphs = Glyphs(32, "test", 600)
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(glyphs.batch(range(600)))
    finally:
        torch.set_num_threads(threads)
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda i: glyphs.batch(range(i, i + 100)), range(0, 600, 100)))
    results.append(torch.cat(parts))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_seed_split_and_index_each_change_the_image():
    images = [
        Glyphs(16, split, 500, seed=seed).batch(range(500)).flatten(1)
        for split in TYPEFACES
        for seed in (0, 1, 2**40)
    ]
    assert len(torch.cat(images).unique(dim=0)) == 500 * len(images)


def test_no_typeface_is_in_two_splits():
    faces = [face for split in TYPEFACES.values() for face in split]
    assert len(faces) == len(set(faces)) == 21
    bitmaps = [_bitmaps(faces_of_split) for faces_of_split in TYPEFACES.values()]
    assert not bitmaps[0] & bitmaps[1]
    assert not bitmaps[0] & bitmaps[2]
    assert not bitmaps[1] & bitmaps[2]


@pytest.mark.parametrize("face", sorted(f for split in TYPEFACES.values() for f in split))
def test_typeface_has_all_characters(face):
    # A missing glyph would draw the same box for every character that lacks one.
    assert len(_bitmaps((face,))) == len(CHARACTERS) == 62


def _bitmaps(faces: tuple[str, ...]) -> set[tuple[int, bytes]]:
    sheet = atlas(faces, 64)
    ends = np.append(sheet.start[1:], len(sheet.texels))
    tiles = [sheet.texels[a:b].tobytes() for a, b in zip(sheet.start, ends)]
    return set(zip(sheet.stride.tolist(), tiles))


def test_images_fill_their_linear_space():
    images = Glyphs(16, "train", 800).batch(range(800)).flatten(1).double()
    values = torch.linalg.svdvals(images - images.mean(0))
    assert (values > 1e-4 * values[0]).sum() == 256
    # A linear estimate from 64 numbers still misses more than 1 % of the energy.
    assert values[64:].square().sum() > 0.01 * values.square().sum()


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_at_least_the_minimum_in_both_polarities(channels):
    images = Glyphs(64, "train", 400, channels=channels).batch(range(400)).double()
    background = images[:, :, 0, 0]
    high, low = images.amax((2, 3)), images.amin((2, 3))
    # Thin strokes are one or two pixels wide and may not cover one fully.
    assert ((high - low) > 0.8 * MIN_CONTRAST).all()
    bright_ink = (high - background) > (background - low)
    assert 0.4 < bright_ink.double().mean() < 0.6
    assert (bright_ink.all(1) | (~bright_ink).all(1)).all()


def test_ink_lies_inside_the_image_and_fills_it():
    images = Glyphs(64, "test", 400).batch(range(400))[:, 0].int()
    ink = (images - images[:, :1, :1]).abs() > 8
    border = torch.cat([ink[:, 0], ink[:, -1], ink[:, :, 0], ink[:, :, -1]], dim=1)
    # Boxes may touch the edge, where anti-aliasing reaches the last pixel, but never cross it.
    assert border.any(1).double().mean() < 0.15 and border.double().mean() < 0.005
    rows, columns = ink.any(2).sum(1), ink.any(1).sum(1)
    extent = torch.maximum(rows, columns) / 64
    # Rotation leaves corners of the box empty, so ink may be shorter than its box.
    assert extent.min() > 0.45 and extent.max() <= 0.97
    assert extent.max() - extent.min() > 0.3


def test_small_images_are_large_ones_averaged():
    large = Glyphs(128, "test", 64).batch(range(64)).double()
    for size in (64, 32, 16, 8):
        small = Glyphs(size, "test", 64).batch(range(64)).double()
        averaged = torch.nn.functional.avg_pool2d(large, 128 // size)
        # An aliased or shifted drawing would differ by tens of grey levels.
        assert (small - averaged).square().mean().sqrt() < 7
        assert (small - averaged).mean().abs() < 0.5


def test_sizes_between_powers_of_two_and_above_the_atlas_draw_the_same_pictures():
    large = Glyphs(600, "val", 4).batch(range(4)).double()
    small = Glyphs(75, "val", 4).batch(range(4)).double()
    averaged = torch.nn.functional.avg_pool2d(large, 8)
    assert (small - averaged).square().mean().sqrt() < 7


def test_colour_keeps_the_geometry_of_grey():
    grey = Glyphs(32, "train", 50).batch(range(50)).double()
    colour = Glyphs(32, "train", 50, channels=3).batch(range(50)).double()
    for channel in range(3):
        pairs = torch.stack([grey.flatten(1), colour[:, channel].flatten(1)], dim=1)
        for pair in pairs:
            assert torch.corrcoef(pair)[0, 1].abs() > 0.999


def test_uniforms_are_uniform_and_uncorrelated():
    u = uniforms(5, 1, np.arange(20_000), 9)
    assert u.min() >= 0 and u.max() < 1
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is its 0.1 % point.
    grid = (np.arange(20_000) + 0.5) / 20_000
    assert np.abs(np.sort(u, axis=0) - grid[:, None]).max() < 1.95 / np.sqrt(20_000)
    neighbours = np.concatenate([u[:-1], u[1:]], axis=1)
    correlation = np.corrcoef(neighbours.T) - np.eye(18)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)


def test_more_random_numbers_leave_the_first_ones_alone():
    assert np.array_equal(uniforms(0, 0, np.arange(9), 7), uniforms(0, 0, np.arange(9), 13)[:, :7])


def test_names_are_the_indices():
    assert Glyphs(32, "test", 200).name(123) == "000123"


@pytest.mark.parametrize(
    "arguments,words",
    [
        ((32, "all", 10), "split='all'.*train, val, test"),
        ((4, "train", 10), "size=4.*8 to 1024"),
        ((32, "train", 0), "length=0.*1 or more"),
        ((32, "train", 10, 0, 2), "channels=2.*1 .*3"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        Glyphs(*arguments)


def test_index_outside_the_split_is_refused():
    glyphs = Glyphs(32, "val", 10)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="0 to 9"):
            glyphs.batch([index])
