"""Raw images and label tables of users, small, and profiles whose sizes are known."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import gammaincinv

BANDS = ("g", "r", "i")
SIDE, SCALE, ZEROPT = 32, 0.3, 25.0
CARDS = {"PIXSCALE": SCALE, "ZEROPT": ZEROPT, "FWHM": 0.7, "SKYSIGMA": 0.02, "BUNIT": "adu"}


@cache
def sersic(
    n: float, r_eff: float, side: int, centre: tuple[float, float] | None = None
) -> NDArray[np.float64]:
    """Return a Sersic profile of brightness 1 at r_eff, averaged over pixels by fine sampling."""
    row, column = centre or ((side - 1) / 2, (side - 1) / 2)
    b = gammaincinv(2 * n, 0.5)

    def brightness(rows: Any, columns: Any, fine: int) -> NDArray[np.float64]:  # noqa: ANN401
        offsets = (np.arange(fine) + 0.5) / fine - 0.5
        y = (rows[:, None] + offsets - row).ravel()
        x = (columns[:, None] + offsets - column).ravel()
        light = np.exp(-b * ((np.hypot(y[:, None], x) / r_eff) ** (1 / n) - 1))
        return light.reshape(len(rows), fine, len(columns), fine).mean((1, 3))

    image = brightness(np.arange(side), np.arange(side), 4)
    # The cusp needs more.
    y, x = (np.arange(int(at) - 2, int(at) + 4) for at in (row, column))
    image[np.ix_(y, x)] = brightness(y, x, 100)
    return image


def write_image(path: Path, planes: dict[str, Any], **cards: object) -> Path:
    """Write an HDU per band, as `data_gen=galaxies` does."""
    hdus: list[Any] = [fits.PrimaryHDU()]
    for band, plane in planes.items():
        header = fits.Header({**CARDS, **cards})
        hdus.append(fits.ImageHDU(np.asarray(plane, ">f4"), header=header, name=band))
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.HDUList(hdus).writeto(path, overwrite=True)
    return path


def planes_of(number: int, side: int = SIDE) -> dict[str, NDArray[np.float64]]:
    """Return a galaxy whose flux grows with its number and from band to band."""
    rng = np.random.default_rng(number)
    light = sersic(1, 3.0, side)
    return {
        band: (number + 1) * (k + 1) * light + rng.normal(0, 0.02, light.shape)
        for k, band in enumerate(BANDS)
    }


def label_columns(n_objects: int, n_projections: int) -> dict[str, Any]:
    """Return the columns that suite a takes, a row per image."""
    number = np.repeat(np.arange(n_objects), n_projections)
    projection = np.tile(np.arange(n_projections), n_objects)
    n = len(number)
    return {
        "SNAPSHOT": np.full(n, 99),
        "OBJECT": number,
        "PROJECTION": projection,
        "FILE": [f"snap_099-{o}_{p}.fits" for o, p in zip(number, projection, strict=True)],
        "Z": 0.1 + 0.01 * number,
        "LOG_MASS": 9.5 + 0.1 * number,
        "LOG_SSFR": np.full(n, -10.0),
        "SFR": 1.0 + number,
        "R_EFF": 4.0 + 0.1 * projection,
        "BT": np.full(n, 0.2),
        "IS_QUENCHED": np.zeros(n, bool),
        "MERGER_TIME": np.full(n, np.nan),
        "MERGER_RATIO": np.full(n, np.nan),
        "N_MERGERS": np.zeros(n, np.int64),
        "WINDOW": np.full(n, 8.0),
        "MAG_I": 18.0 - 0.1 * number,
        "G_R": np.full(n, 0.6),
        "R200C": 300.0 + 10.0 * number,
        **dict.fromkeys(("CONCENTRATION", "LOG_MASS_BCG", "N_SATELLITES", "GAP"), np.ones(n)),
    }


def write_labels(path: Path, columns: dict[str, Any], units: dict[str, str] | None = None) -> None:
    table = Table(columns)
    for name, unit in ({"R_EFF": "kpc", "R200C": "kpc"} | (units or {})).items():
        table[name].unit = unit
    path.parent.mkdir(parents=True, exist_ok=True)
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU(table, name="LABELS")]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def write_suite(folder: Path, n_objects: int = 4, n_projections: int = 2) -> Path:
    """Write images and one table of labels."""
    columns = label_columns(n_objects, n_projections)
    for k, name in enumerate(columns["FILE"]):
        write_image(folder / "images" / name, planes_of(k // n_projections))
    write_labels(folder / "labels" / "labels_000000.fits", columns)
    return folder
