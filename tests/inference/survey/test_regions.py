"""Region files, against the grammar of DS9 and what Aladin makes of a line."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from astropy.io import fits

from datagen.tiles.geometry import celestial_wcs, wcs_cards
from inference.survey.candidates import empty_catalog, to_regions
from inference.survey.footprint import footprint_regions
from inference.survey.merge import TileFootprint
from inference.survey.regions import circle, polygon, region_file

RA = r"\d{1,3}\.\d{7}"
POSITION = rf"{RA},-?\d{{1,2}}\.\d{{7}}"
TEXT = r" # text=\{[^{};\n]*\}"
CIRCLE = re.compile(rf'circle\(({POSITION}),(\d+\.\d\d)"\){TEXT}')
POLYGON = re.compile(rf"polygon\(({POSITION}(?:,{POSITION}){{2,}})\){TEXT}")


def parse(text: str) -> list[tuple[str, list[float], str]]:
    """Read a region file strictly: shape, numbers, text of each line."""
    head, color, frame, *lines = text.split("\n")
    assert head == "# Region file format: DS9 version 4.1"
    assert color == "global color=green"
    # DS9 and Aladin: from here on all is in degrees, ICRS.
    assert frame == "icrs"
    assert lines.pop() == ""
    found = []
    for line in lines:
        match = CIRCLE.fullmatch(line) or POLYGON.fullmatch(line)
        assert match, line
        numbers = [float(n) for n in re.findall(r"-?\d+\.\d+", ",".join(match.groups()))]
        assert all(0 <= ra < 360 for ra in numbers[: 2 * (len(numbers) // 2) : 2])
        found.append((line[: line.index("(")], numbers, line[line.index("{") + 1 : -1]))
        assert aladin(line) == [(found[-1][0], numbers)]
    return found


def aladin(line: str) -> list[tuple[str, list[float]]]:
    """What Aladin draws: pieces between semicolons, each up to its first closing bracket."""
    drawn = []
    for piece in line.split(";"):
        words = re.split(r"[( ,]+", piece[: piece.index(")")])
        assert words[1][0].isdigit(), "taken for a frame"
        drawn.append((words[0], [float(word.rstrip('"')) for word in words[1:]]))
    return drawn


def test_candidates_become_circles() -> None:
    table = empty_catalog(4)
    table["ra"] = [0.0, 359.99999999, 10.25, 187.0]
    table["dec"] = [-89.9999, 0.0, -5.5, 90.0]
    table["area_arcmin2"] = [np.pi, 4 * np.pi, np.pi / 9, 100 * np.pi]
    table["score"] = [1.234, 12.0, 0.5, 100.0]
    table["id"] = ["T_0001", "a;b_0001", "{c}_0001", "d)e_0001"]
    # Of an encoder without heads, but for the last one.
    table["redshift"], table["redshift_error"] = [np.nan, np.nan, np.nan, 0.31], 0.02
    table["richness"], table["richness_error"] = np.nan, np.nan
    found = parse(to_regions(table))
    assert [shape for shape, _, _ in found] == ["circle"] * 4
    assert [numbers for _, numbers, _ in found] == [
        [0.0, -89.9999, 60.0],
        [0.0, 0.0, 120.0],
        [10.25, -5.5, 20.0],
        [187.0, 90.0, 600.0],
    ]
    names = [name for _, _, name in found]
    assert names == [
        "T_0001 1.23",
        "a_b_0001 12.00",
        "_c__0001 0.50",
        "d)e_0001 100.00 z=0.310+-0.020",
    ]
    assert parse(to_regions(empty_catalog(0))) == []


def test_minus_zero_has_no_sign() -> None:
    assert circle(-0.0, 1.0, 2.0, "").startswith("circle(0.0000000,1.0000000,2.00")
    assert polygon([-1e-12, 1, 1], [0, 0, 1], "a").startswith("polygon(0.0000000,0.0000000,1.")


@pytest.mark.parametrize("dec", [0.0, -60.0, 90.0])
def test_footprints_become_polygons(header: Callable[..., fits.Header], dec: float) -> None:
    shape = (900, 1000)
    wcs = celestial_wcs(wcs_cards(header(shape, ra=0.0, dec=dec)), "T")
    (found,) = parse(footprint_regions([TileFootprint("T", wcs, shape)]))
    assert found[0] == "polygon"
    ra, dec_found = np.reshape(found[1], (4, 2)).T
    x, y = wcs.wcs_world2pix(ra, dec_found, 0)
    # The outer edges of the corner pixels, in turn around the tile.
    assert x == pytest.approx([-0.5, 999.5, 999.5, -0.5], abs=2e-3)
    assert y == pytest.approx([-0.5, -0.5, 899.5, 899.5], abs=2e-3)


def test_a_text_needs_no_shape() -> None:
    assert parse(region_file([])) == []
