from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from datagen.tiles.geometry import celestial_wcs, sky_to_pixel, unit_vectors, wcs_cards
from inference.survey.candidates import describe, empty_catalog
from inference.survey.merge import TileFootprint, merge_catalogs, owned_cells, owner_names

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


def test_each_piece_of_sky_belongs_to_one_tile(header: Callable[..., fits.Header]) -> None:
    tiles = [
        dataclasses.replace(tile, cell_px=20, seen=np.ones((50, 50), bool))
        for tile in footprints(header, 0.0)
    ]
    owned = owned_cells(tiles)
    # Each neighbour adds 0.8 of a tile; RA grows to the left.
    assert [mine.mean() for mine in owned] == pytest.approx([0.9, 0.8, 0.9])
    assert owned[1][:, 5:45].all()
    assert not owned[1][:, :5].any()
    # What a neighbour did not see stays with who did.
    blind = [dataclasses.replace(tiles[0], seen=np.zeros((50, 50), bool)), *tiles[1:]]
    assert [mine.mean() for mine in owned_cells(blind)] == pytest.approx([0.0, 0.9, 0.9])
    assert owned_cells(tiles[:1])[0].all()


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


def two_tiles(header: Callable[..., fits.Header], cell: int) -> list[TileFootprint]:
    """Two tiles that overlap by a fifth, with all cells seen."""
    seen = np.ones((-(-SIDE // cell), -(-SIDE // cell)), bool)
    return [
        dataclasses.replace(tile, cell_px=cell, seen=seen.copy()) for tile in footprints(header, 0)
    ][1:]


def view(tile: TileFootprint, ra: float, dec: float) -> Table:
    """The candidate that a tile makes of one member cell at a position."""
    x, y = (np.floor((axis + 0.5) / tile.cell_px) for axis in tile.pixels(ra, dec))
    centre = [(axis + 0.5) * tile.cell_px - 0.5 for axis in (x, y)]
    table = empty_catalog(1)
    table["ra"], table["dec"] = tile.wcs.wcs_pix2world(*centre, 0)
    table["score"], table["id"], table["tile"] = 1.0, [f"{tile.name}_0001"], [tile.name]
    return describe(table)


def test_coarse_cells_of_two_grids_make_one_object(header: Callable[..., fits.Header]) -> None:
    """Cells larger than the radius: nothing is lost or doubled at the border of two tiles."""
    pair = two_tiles(header, cell=100)
    border = 0.4 * SIDE * 0.263 / 3600
    rng = np.random.default_rng(0)
    for _ in range(60):
        shift = int(rng.integers(-50, 50))
        wcs = pair[1].wcs.deepcopy()
        wcs.wcs.crpix = np.add(wcs.wcs.crpix, shift)
        tiles = [pair[0], dataclasses.replace(pair[1], wcs=wcs)]
        ra = (border + rng.uniform(-20, 20) * 0.263 / 3600) % 360
        dec = rng.uniform(-300, 300) * 0.263 / 3600
        tables = [view(tile, ra, dec) for tile in tiles]
        assert len(merge_catalogs(tables, tiles, radius_arcmin=0.1)) == 1


def test_a_tile_that_did_not_see_a_place_does_not_own_it(
    header: Callable[..., fits.Header],
) -> None:
    left, right = two_tiles(header, cell=100)
    ra = 0.55 * 0.8 * SIDE * 0.263 / 3600
    only_left = [view(left, ra, 0.0), empty_catalog(0)]
    assert len(merge_catalogs(only_left, [left, right], 0.1)) == 0
    assert right.seen is not None
    right.seen[:] = False
    assert merge_catalogs(only_left, [left, right], 0.1)["tile"].tolist() == ["T1"]


def test_the_last_partial_cell_keeps_its_candidate(header: Callable[..., fits.Header]) -> None:
    """Its centre lies outside the tile: no tile owns it, so its own tile counts."""
    tile = dataclasses.replace(footprints(header, 0.0)[1], cell_px=300)
    seen = np.ones((4, 4), bool)
    seen[:, 3] = False
    tile = dataclasses.replace(tile, seen=seen)
    ra, dec = tile.wcs.wcs_pix2world([SIDE - 20.0], [400.0], 0)
    candidate = view(tile, float(ra[0]), float(dec[0]))
    assert not tile.contains(candidate["ra"], candidate["dec"])[0]
    assert len(merge_catalogs([candidate], [tile], 0.1)) == 1


def test_a_wide_neighbour_is_another_object(header: Callable[..., fits.Header]) -> None:
    """Circles of two objects touch, but each has a view in the other's tile that is nearer."""
    tiles = [dataclasses.replace(tile, cell_px=64) for tile in footprints(header, 0.0)]
    rows = [  # tile, number, place [arcmin of right ascension], radius [arcmin], score
        (0, 0, -1.8, 2.0, 30.0),
        (0, 1, -1.0, 1.2, 5.0),
        (1, 0, 1.6, 1.0, 20.0),
        (2, 0, 1.9, 1.0, 19.0),
    ]
    tables = []
    for number, tile in enumerate(tiles):
        mine = [row for row in rows if row[0] == number]
        table = empty_catalog(len(mine))
        table["ra"] = [row[2] / 60 % 360 for row in mine]
        table["area_arcmin2"] = [np.pi * row[3] ** 2 for row in mine]
        table["score"] = [row[4] for row in mine]
        table["id"] = [f"{tile.name}_{row[1]}" for row in mine]
        table["tile"] = [tile.name] * len(mine)
        tables.append(describe(table))
    merged = merge_catalogs(tables, tiles, radius_arcmin=1.0)
    assert merged["id"].tolist() == ["T0_0", "T1_0"]


def test_a_strip_reaches_as_far_as_its_cells(header: Callable[..., fits.Header]) -> None:
    """A row of cells at the border of one tile, a column beside a mask in the other."""
    tiles = [dataclasses.replace(tile, cell_px=64) for tile in footprints(header, 0.0)][1:]
    cell, border = tiles[0].cell_arcmin, 0.4 * SIDE * 0.263 / 3600
    tables = []
    places = [(-0.3, -5.2), (0.3, 0.0)]
    for tile, n_cells, (ra, dec) in zip(tiles, (3, 22), places, strict=True):
        table = empty_catalog(1)
        table["ra"], table["dec"] = border + ra * cell / 60, dec * cell / 60
        table["area_arcmin2"] = n_cells * cell**2
        table["score"], table["tile"] = n_cells, [tile.name]
        tables.append(describe(table))
    # The circles of equal area, of 1.0 and 2.6 cells, are farther apart than 1.5 cells.
    assert len(merge_catalogs(tables, tiles, radius_arcmin=0.1)) == 2
    for table, n_cells in zip(tables, (1.0, 5.0), strict=True):
        table["extent_arcmin"] = n_cells * cell
    assert merge_catalogs(tables, tiles, radius_arcmin=0.1)["tile"].tolist() == ["T2"]
