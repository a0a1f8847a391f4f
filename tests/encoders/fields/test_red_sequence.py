"""The density of red-sequence galaxies, on galaxies whose redshift is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from datagen.fields.galaxies import COUNTED_MAG, mstar, red_sequence
from encoders.fields.red_sequence import (
    GRID,
    REDSHIFTS,
    SLICES,
    DensitySettings,
    background_counts,
    cell_counts,
    contrast,
    red_sequence_weights,
    redshift_weights,
)

SETTINGS = DensitySettings(
    smoothing=1.0, local=0.3, colour_width=0.07, magnitude_offset=0.0, floor=0.03
)
N_CELLS, CELL = 12, 64


def weights(magnitudes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    return red_sequence_weights(magnitudes, colours, np.full(colours.shape, 0.02), SETTINGS)


@pytest.mark.parametrize("number", [2, 8, 14])
def test_a_red_galaxy_has_its_highest_weight_at_its_redshift(number: int) -> None:
    z = REDSHIFTS[number : number + 1]
    found = weights(mstar(z), red_sequence(z))
    assert found.shape == (len(REDSHIFTS), 1)
    assert found.argmax() == number
    assert found.max() == pytest.approx(1.0)
    assert weights(mstar(z) + COUNTED_MAG + 0.1, red_sequence(z))[number] == 0
    offset = dataclasses.replace(SETTINGS, magnitude_offset=-0.2)
    faint = mstar(z) + COUNTED_MAG + 0.1
    errors = np.full((1, 3), 0.02)
    assert red_sequence_weights(faint, red_sequence(z), errors, offset)[number] == 1


def test_colour_errors_widen_the_sequence() -> None:
    z = REDSHIFTS[8:9]
    off = red_sequence(z) + np.array([0.14, 0.0, 0.0])
    narrow = red_sequence_weights(mstar(z), off, np.zeros((1, 3)), SETTINGS)[8]
    assert narrow == pytest.approx(np.exp(-0.5 * (0.14 / 0.07) ** 2))
    assert red_sequence_weights(mstar(z), off, np.full((1, 3), 0.2), SETTINGS)[8] > narrow


def test_true_redshifts_count_in_their_slices_only() -> None:
    z = np.array([0.3, 0.5, 0.0])
    found = redshift_weights(mstar(np.array([0.3, 0.5, 0.3])) + 1.0, z)
    assert found.shape == (len(SLICES), 3)
    for galaxy, redshift in enumerate(z[:2]):
        near = SLICES[found[:, galaxy] > 0]
        assert np.abs(near - redshift).max() < 0.005
    assert found[:, 2].sum() == 0
    assert redshift_weights(mstar(z[:1]) + COUNTED_MAG + 0.01, z[:1]).sum() == 0


def test_galaxies_count_in_the_cell_that_holds_their_pixel() -> None:
    x, y = np.array([-0.5, 63.49, 63.5, 700.0, -0.6, 768.0]), np.array([0.0, 0.0, 64.0, 9.0, 0, 0])
    found = cell_counts(x, y, np.arange(1.0, 7.0)[None], CELL, N_CELLS)
    expected = np.zeros((1, N_CELLS, N_CELLS))
    expected[0, 0, 0], expected[0, 1, 1], expected[0, 0, 10] = 3.0, 3.0, 4.0
    np.testing.assert_array_equal(found, expected)


def test_background_is_the_mean_of_empty_cells() -> None:
    counts = np.stack([np.array([[1.0, 2.0], [3.0, 100.0]]), np.zeros((2, 2))])
    labels = np.array([[False, False], [False, True]])
    np.testing.assert_allclose(background_counts([counts, counts], [labels, labels]), [2.0, 0.0])


@pytest.mark.parametrize("settings", [SETTINGS, GRID[0], GRID[-1]])
def test_contrast_is_highest_on_an_injected_cluster(settings: DensitySettings) -> None:
    """Field galaxies of all colours; thirty red ones at z = 0.42 in two neighbouring cells."""
    rng = np.random.default_rng(5)
    n_field, n_members, z = 1500, 30, REDSHIFTS[8]
    side = N_CELLS * CELL
    place = np.where(rng.random(n_members) < 0.5, 4.0, 5.0)
    x = np.concatenate([rng.uniform(0, side, n_field), (place + rng.random(n_members)) * CELL])
    y = np.concatenate([rng.uniform(0, side, n_field), (7 + rng.random(n_members)) * CELL])
    field_colours = rng.uniform([0.2, 0.0, -0.1], [2.0, 1.2, 0.6], (n_field, 3))
    member_colours = red_sequence(np.full(n_members, z)) + rng.normal(0, 0.04, (n_members, 3))
    colours = np.concatenate([field_colours, member_colours])
    magnitudes = np.concatenate([rng.uniform(19, 23, n_field), mstar(z) + rng.uniform(-1, 1.5, 30)])
    found = red_sequence_weights(magnitudes, colours, np.full(colours.shape, 0.05), settings)
    counts = cell_counts(x, y, found, CELL, N_CELLS)
    labels = np.zeros((N_CELLS, N_CELLS), bool)
    labels[7, 4:6] = True
    scores = contrast(counts, background_counts([counts], [labels]), settings)
    assert scores.shape == labels.shape
    # The best cell holds members, and the cluster stands out of the field.
    assert labels.ravel()[scores.argmax()]
    assert scores[labels].min() > np.median(scores) + 2 * scores[~labels].std()


def test_empty_counts_at_the_edge_are_not_lower_than_inside() -> None:
    counts = np.ones((len(REDSHIFTS), N_CELLS, N_CELLS))
    scores = contrast(counts, np.ones(len(REDSHIFTS)), SETTINGS)
    np.testing.assert_allclose(scores, 0.0, atol=1e-9)
