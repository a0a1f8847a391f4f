"""The area of the sky that a prediction covers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from lightning import LightningModule

from datagen.files import read_json
from datagen.tiles.geometry import celestial_wcs, pixel_to_sky, wcs_cards
from datagen.tiles.survey import SurveySettings
from inference.engine import run
from inference.survey.candidates import to_ecsv
from inference.survey.footprint import cell_area, covered_areas, footprint_table
from inference.survey.merge import TileFootprint, owned_cells
from inference.survey.run import SurveyRun
from inference.survey.settings import PredictSettings

SIDE, CELL = 1000, 20
N = SIDE // CELL
SCALE = 0.263


@pytest.fixture
def place(header: Callable[..., fits.Header]) -> Callable[..., TileFootprint]:
    def make(name: str, ra: float, dec: float, scale: float = SCALE) -> TileFootprint:
        cards = wcs_cards(header((SIDE, SIDE), ra=ra, dec=dec))
        cards |= {"CD1_1": -scale / 3600, "CD2_2": scale / 3600}
        seen = np.ones((N, N), bool)
        return TileFootprint(name, celestial_wcs(cards, name), (SIDE, SIDE), CELL, seen)

    return make


@pytest.mark.parametrize("scale", [SCALE, 100.0])
@pytest.mark.parametrize("dec", [0.0, 89.99, -90.0])
def test_a_tile_has_the_solid_angle_of_a_pyramid(
    place: Callable[..., TileFootprint], scale: float, dec: float
) -> None:
    """4 arcsin(t^2 / (1 + t^2)) with t the tangent of half the opening angle; here up to 28 deg."""
    tile = place("T", 10.0, dec, scale)
    t = np.radians(scale / 3600) * SIDE / 2
    expected = 4 * np.arcsin(t**2 / (1 + t**2)) * (180 / np.pi) ** 2
    assert cell_area(tile) * N**2 == pytest.approx(expected, rel=1e-9)
    assert covered_areas([tile], [np.ones((N, N))]) == [pytest.approx(expected, rel=1e-9)]


def test_overlaps_count_once_and_masked_pixels_not(place: Callable[..., TileFootprint]) -> None:
    step = 0.8 * SIDE * SCALE / 3600
    tiles = [place("A", 359.95, 0.0), place("B", (359.95 + step) % 360, 0.0)]
    fractions = [np.ones((N, N), np.float32) for _ in tiles]
    whole = cell_area(tiles[0]) * N**2
    assert covered_areas(tiles, fractions) == pytest.approx([0.9 * whole] * 2, rel=1e-6)
    # A tenth of the cells is masked by 40 %: they still are seen.
    fractions[0][:5] = 0.6
    assert covered_areas(tiles, fractions)[0] == pytest.approx(0.9 * whole * 0.96, rel=1e-6)
    # What one did not see, the other adds.
    blind = dataclasses.replace(tiles[0], seen=np.zeros((N, N), bool))
    assert covered_areas([blind, tiles[1]], fractions) == pytest.approx([0, whole])


def test_twins_count_once(place: Callable[..., TileFootprint]) -> None:
    """Two tiles with one centre: the first name owns all."""
    twins = [place("B", 10.0, 80.0), place("A", 10.0, 80.0)]
    assert [mine.mean() for mine in owned_cells(twins)] == [0.0, 1.0]


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 0.0), (120.0, -88.0), (10.0, 89.99)])
def test_areas_agree_with_random_positions(
    place: Callable[..., TileFootprint], ra: float, dec: float
) -> None:
    """Five tiles in disorder: the share of random positions that any tile shows."""
    rng = np.random.default_rng(3)
    wide = place("all", ra, dec, 3 * SCALE)
    x, y = rng.uniform(0.25 * SIDE, 0.75 * SIDE, (2, 5))
    centres = zip("ABCDE", *pixel_to_sky(wide.wcs, x, y), strict=True)
    tiles = [place(name, a, d) for name, a, d in centres]
    for tile in tiles:
        assert tile.seen is not None
        tile.seen[rng.integers(N, size=40), rng.integers(N, size=40)] = False
    area = sum(covered_areas(tiles, [np.asarray(tile.seen, float) for tile in tiles]))
    xs, ys = rng.uniform(-0.5, SIDE - 0.5, (2, 100_000))
    sky = pixel_to_sky(wide.wcs, xs, ys)
    shown = np.any([tile.contains(*sky) & tile.shows(*sky) for tile in tiles], axis=0)
    assert area / (cell_area(wide) * N**2) == pytest.approx(shown.mean(), rel=0.02)


def test_the_table_holds_corners_and_areas(place: Callable[..., TileFootprint]) -> None:
    tiles = [place("A", 0.0, 0.0), place("B", 10.0, 80.0)]
    table = Table.read(to_ecsv(footprint_table(tiles, [0.5, 0.25])), format="ascii.ecsv")
    assert table["tile"].tolist() == ["A", "B"]
    assert table.meta["area_deg2"] == 0.75
    assert (table["ra_1"].unit, table["area_deg2"].unit) == ("deg", "deg2")
    half = SIDE * SCALE / 3600 / 2
    # Corners follow the pixels: the first column is in the east.
    east = [table[f"ra_{k}"][0] for k in (1, 4)]
    west = [table[f"ra_{k}"][0] for k in (2, 3)]
    assert east == pytest.approx([half] * 2, abs=1e-6)
    assert west == pytest.approx([360 - half] * 2, abs=1e-6)
    assert [table[f"dec_{k}"][0] for k in (1, 2, 3, 4)] == pytest.approx(
        [-half, -half, half, half], abs=1e-6
    )
    assert len(footprint_table([], [])) == 0


def test_a_run_says_what_it_covers(
    settings: PredictSettings,
    survey: SurveySettings,
    module: LightningModule,
    tile: Callable[..., Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    for number in range(2):
        tile(tmp_path / "tiles", f"T{number}", (150, 203), number, ra=10 + number)
    with fits.open(tmp_path / "tiles" / "T1" / "T1_r.fits", mode="update") as hdus:
        hdus[0].data[:30] = np.nan
    assert (
        run(SurveyRun(dataclasses.replace(settings, regions=True), survey, module, "a" * 64)) == 0
    )
    out = tmp_path / "out"
    whole = 150 * 203 * (SCALE / 3600) ** 2
    # The second row of cells is masked by 14 of 16 rows: not seen, so that two rows are missing.
    manifest = read_json(out / "manifest.json")
    areas = [entry["area_deg2"] for entry in manifest["tiles"]]
    # Cells of which less than half is on the tile do not count: 6 of 16 rows, 11 of 16 columns.
    assert areas == pytest.approx([whole * 144 / 150, whole * 112 / 150], rel=1e-4)
    assert manifest["area_deg2"] == pytest.approx(sum(areas))
    table = Table.read(out / "footprint.ecsv")
    assert table["area_deg2"].tolist() == areas
    assert (out / "footprint.reg").read_text().count("polygon(") == 2
    n_rows = len(Table.read(out / "catalog.ecsv"))
    assert (out / "catalog.reg").read_text().count("circle(") == n_rows > 0
    assert f"{n_rows} candidates in {sum(areas):.4g} deg2, see" in caplog.text
    # A region file of other settings would seem to belong to the new catalogue.
    assert (
        run(SurveyRun(dataclasses.replace(settings, overwrite=True), survey, module, "a" * 64)) == 0
    )
    assert not (out / "catalog.reg").exists()
