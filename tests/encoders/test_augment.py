"""Flips and quarter turns keep images and cells together."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from datagen.seeds import stream_seed
from encoders.augment import (
    N_SYMMETRIES,
    apply_symmetries,
    apply_symmetry,
    augment,
    random_fractions,
    random_normals,
    random_symmetries,
    symmetry_of,
    turn,
)


@pytest.mark.parametrize("symmetry", range(N_SYMMETRIES))
def test_cells_follow_the_image(symmetry: int) -> None:
    cells = torch.rand(1, 4, 4)
    images = cells.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    turned, turned_cells = augment([images, cells], [symmetry])
    assert torch.equal(turned[:, 0, ::8, ::8], turned_cells)


def test_the_eight_symmetries_differ() -> None:
    image = torch.arange(9.0).reshape(3, 3)
    seen = {tuple(apply_symmetry(image, s).flatten().tolist()) for s in range(N_SYMMETRIES)}
    assert len(seen) == N_SYMMETRIES


def test_images_that_are_not_square_keep_their_shape() -> None:
    image = torch.rand(2, 3, 5)
    assert all(apply_symmetry(image, s).shape == image.shape for s in range(N_SYMMETRIES))


def test_choice_depends_on_seed_epoch_and_sample_only() -> None:
    names = [f"file_data_{k}_size_1.pt/0" for k in range(400)]
    drawn = [symmetry_of(0, 3, name) for name in names]
    assert drawn == [symmetry_of(0, 3, name) for name in names]
    assert drawn != [symmetry_of(0, 4, name) for name in names]
    assert drawn != [symmetry_of(1, 3, name) for name in names]
    counts = torch.bincount(torch.tensor(drawn), minlength=N_SYMMETRIES)
    assert int(counts.min()) > 25


def test_symmetries_of_many_samples() -> None:
    images = torch.randn(16, 2, 5, 5)
    symmetries = torch.arange(16) % 8
    turned = apply_symmetries(images, symmetries)
    for image, result, symmetry in zip(images, turned, symmetries.tolist(), strict=True):
        assert torch.equal(result, apply_symmetry(image, symmetry))


def test_drawn_symmetries_are_uniform_and_independent() -> None:
    index = torch.arange(80_000)
    drawn = random_symmetries(1, 2, index, 8)
    counts = torch.bincount(drawn, minlength=8)
    assert len(counts) == 8
    # Five standard deviations of a binomial.
    assert (counts - 10_000).abs().max() < 5 * (80_000 * 7 / 64) ** 0.5
    assert torch.equal(random_symmetries(1, 2, index[7:9], 8), drawn[7:9])
    for seed, epoch in ((1, 3), (2, 2)):
        same = (random_symmetries(seed, epoch, index, 8) == drawn).double().mean()
        assert float(same) == pytest.approx(1 / 8, abs=0.01)
    # The reference transcription of SplitMix64 in Python's integers.
    mask = (1 << 64) - 1
    value = (5 * 0x9E3779B97F4A7C15 + stream_seed(1, 2, "symmetries")) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    assert int(drawn[5]) == ((value ^ (value >> 31)) >> 32) % 8


@pytest.mark.parametrize("is_mirrored", [False, True])
@pytest.mark.parametrize("quarters", range(4))
def test_turns_by_right_angles_are_the_symmetries(quarters: int, is_mirrored: bool) -> None:
    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    angle = torch.full((2,), 0.5 * math.pi * quarters, dtype=torch.float64)
    found = turn(images, angle, torch.tensor([is_mirrored] * 2))
    mirrored = images.flip(-1) if is_mirrored else images
    # Rows count downwards from the first: from columns to rows is minus one turn of rot90.
    torch.testing.assert_close(found, torch.rot90(mirrored, -quarters, (-2, -1)))


def test_a_turned_blob_lies_where_trigonometry_says() -> None:
    side, angle = 41, 0.7
    rows, columns = torch.meshgrid(*(torch.arange(side) - 20.0,) * 2, indexing="ij")
    image = torch.exp(-((columns - 9.0) ** 2 + (rows - 3.0) ** 2) / 8.0)[None, None]
    turned = turn(image, torch.tensor([angle]), torch.tensor([False]))[0, 0]
    turned = turned * (columns**2 + rows**2 < 20.0**2)  # farther out lies what was reflected
    total = turned.sum()
    x, y = (columns * turned).sum() / total, (rows * turned).sum() / total
    assert x == pytest.approx(9 * math.cos(angle) - 3 * math.sin(angle), abs=0.02)
    assert y == pytest.approx(9 * math.sin(angle) + 3 * math.cos(angle), abs=0.02)


def test_fractions_are_uniform_and_depend_on_seed_epoch_number_and_component() -> None:
    index = torch.arange(4000)
    found = random_fractions(1, 2, index, "angle")
    assert stats.kstest(found.double().numpy(), "uniform").pvalue > 0.01
    assert torch.equal(random_fractions(1, 2, index[70:90], "angle"), found[70:90])
    for other in ((2, 2, "angle"), (1, 3, "angle"), (1, 2, "mirror")):
        seed, epoch, component = other
        assert (random_fractions(seed, epoch, index, component) != found).float().mean() > 0.99


def test_normal_numbers_are_normal_and_depend_on_their_sample_alone() -> None:
    index = torch.arange(60)
    found = random_normals(1, 2, index, "noise", 1001)
    assert found.shape == (60, 1001)
    assert torch.equal(random_normals(1, 2, index[[9, 3]], "noise", 1001), found[[9, 3]])
    assert stats.kstest(found.double().numpy().ravel(), "norm").pvalue > 0.01
    # No number tells of its neighbours, of the other one of its pair, or of the next sample.
    for a, b in (
        (found[:, 1:], found[:, :-1]),
        (found[:, :500], found[:, 501:]),
        (found[1:], found[:-1]),
    ):
        for f in (lambda x: x, torch.square):
            both = torch.stack((f(a).flatten(), f(b).flatten()))
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.02
    for seed, epoch, component in ((2, 2, "noise"), (1, 3, "noise"), (1, 2, "other")):
        other = random_normals(seed, epoch, index, component, 1001)
        assert float((other == found).double().mean()) < 1e-3
