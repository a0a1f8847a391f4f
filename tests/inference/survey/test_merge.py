from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from inference.survey.candidates import describe, empty_catalog
from inference.survey.geometry import celestial_wcs, sky_to_pixel, unit_vectors, wcs_cards
from inference.survey.merge import TileFootprint, merge_catalogs, owner_names

SIDE = 1000


def footprints(header: Callable[..., fits.Header], dec: float) -> list[TileFootprint]:
    """Three tiles in a row over RA 0, neighbours overlap by a fifth."""
    step = 0.8 * SIDE * 0.263 / 3600 / max(np.cos(np.radians(dec)), 1e-9)
    found = []
    for number in (-1, 0, 1):
        ra = (number * step) % 360 if dec < 89 else (number * 60.0) % 360
        cards = wcs_cards(header((SIDE, SIDE), ra=ra, dec=dec))
        found.append(TileFootprint(f"T{number + 1}", celestial_wcs(cards, "T"), (SIDE, SIDE)))
    return found


def catalog(tile: TileFootprint, ra: np.ndarray, dec: np.ndarray, score: np.ndarray) -> Table:
    inside = np.flatnonzero(tile.contains(ra, dec))
    table = empty_catalog(len(inside))
    table["ra"], table["dec"], table["score"] = ra[inside], dec[inside], score[inside]
    table["id"] = [f"{tile.name}_{k:04d}" for k in inside]
    table["tile"] = [tile.name] * len(inside)
    return describe(table)


@pytest.mark.parametrize("dec", [0.0, -60.0, 88.0, 89.97, -90.0])
def test_every_object_appears_once(header: Callable[..., fits.Header], dec: float) -> None:
    tiles = footprints(header, dec)
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, SIDE, (2, 3, 100))
    sky = [t.wcs.wcs_pix2world(a, b, 0) for t, a, b in zip(tiles, x, y, strict=True)]
    ra, dec_all = (np.concatenate([s[i] for s in sky]) for i in (0, 1))
    score = rng.uniform(1, 2, 300)
    tables = []
    for tile in tiles:
        # Each tile measures positions with an error of its own, far below the merge radius.
        jitter = rng.normal(0, 0.2 / 3600, (2, 300))
        there = ra + jitter[0] / np.cos(np.radians(dec_all)), np.clip(dec_all + jitter[1], -90, 90)
        tables.append(catalog(tile, there[0] % 360, there[1], score))
    assert sum(len(table) for table in tables) > 300
    merged = merge_catalogs(tables, tiles, radius_arcmin=1.5 / 60)
    numbers = [int(name.split("_")[1]) for name in merged["id"]]
    # An object at the very edge can be measured outside its only tile and be missed.
    assert len(numbers) == len(set(numbers))
    assert len(numbers) >= 298


def test_the_nearest_centre_owns_an_object(header: Callable[..., fits.Header]) -> None:
    tiles = footprints(header, 0.0)
    step = 0.8 * SIDE * 0.263 / 3600
    table = Table({"ra": [0.45 * step, 0.55 * step, 359.99, 50.0], "dec": np.zeros(4)})
    names = owner_names(table, tiles)
    assert names.tolist()[:2] == ["T1", "T2"]
    assert names[3] == ""


def test_views_on_both_sides_of_a_border_are_one(header: Callable[..., fits.Header]) -> None:
    """Each tile measures the object on the other's side; no tile owns what it measured."""
    tiles = footprints(header, 0.0)
    border = 0.4 * SIDE * 0.263 / 3600
    offset = 1.0 / 3600
    left = catalog(tiles[1], np.array([border + offset]), np.zeros(1), np.array([5.0]))
    right = catalog(tiles[2], np.array([border - offset]), np.zeros(1), np.array([6.0]))
    assert merge_catalogs([left, right], tiles, 0.1)["tile"].tolist() == ["T2"]
    assert merge_catalogs([right, left], tiles, 0.1)["tile"].tolist() == ["T2"]


def test_deblended_neighbours_of_one_tile_stay(header: Callable[..., fits.Header]) -> None:
    tile = footprints(header, 0.0)[1]
    near = catalog(tile, np.array([0.0, 0.001]), np.zeros(2), np.array([1.0, 2.0]))
    assert len(merge_catalogs([near], [tile], 1.0)) == 2


def test_no_candidates_make_an_empty_catalogue(header: Callable[..., fits.Header]) -> None:
    merged = merge_catalogs([empty_catalog(0)], footprints(header, 0.0), 1.0)
    assert len(merged) == 0
    assert merged["ra"].unit == "deg"


def test_footprint_holds_its_own_pixels(header: Callable[..., fits.Header]) -> None:
    tile = footprints(header, -60.0)[0]
    ra, dec = tile.wcs.wcs_pix2world([-0.4, SIDE - 0.6, SIDE], [0, SIDE - 0.6, 5], 0)
    assert tile.contains(ra, dec).tolist() == [True, True, False]
    assert tile.radius_chord == pytest.approx(
        np.radians(0.263 / 3600) * SIDE / np.sqrt(2), rel=1e-3
    )
    middle = sky_to_pixel(tile.wcs, *_sky(tile.centre))
    assert np.ravel(middle) == pytest.approx([(SIDE - 1) / 2] * 2, abs=1e-6)


def _sky(vector: np.ndarray) -> tuple[float, float]:
    ra = np.degrees(np.arctan2(vector[1], vector[0])) % 360
    dec = np.degrees(np.arcsin(vector[2]))
    assert unit_vectors(ra, dec) == pytest.approx(vector)
    return float(ra), float(dec)
