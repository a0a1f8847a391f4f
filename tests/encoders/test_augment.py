"""Flips and quarter turns keep images and cells together."""

from __future__ import annotations

import pytest
import torch

from encoders.augment import N_SYMMETRIES, apply_symmetry, augment, symmetry_of


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
