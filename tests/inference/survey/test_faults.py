"""A run over survey tiles of which some are damaged, and the run after their repair."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from tests.survey_tiles import SMALL_WINDOWS

OURS = [*SMALL_WINDOWS, "predict.batch_size=2", "predict.regions=true"]
SHAPE = (300, 203)
NAMES = [f"T{number:02d}" for number in range(12)]


def truncated(folder: Path) -> None:
    path = folder / "T01" / "T01_r.fits"
    path.write_bytes(path.read_bytes()[:100_000])


def missing(folder: Path) -> None:
    (folder / "T03" / "T03_g.fits").unlink()


def other_size(folder: Path) -> None:
    path = folder / "T04" / "T04_g.fits"
    header = fits.getheader(path)
    fits.writeto(path, fits.getdata(path)[:200], header, overwrite=True)


def blank(folder: Path) -> None:
    with fits.open(folder / "T06" / "T06_g.fits", mode="update") as hdus:
        hdus[0].data[:] = np.nan


def without_wcs(folder: Path) -> None:
    for band in "gr":
        with fits.open(folder / "T08" / f"T08_{band}.fits", mode="update") as hdus:
            for key in ("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2"):
                del hdus[0].header[key]
            for key in ("CD1_1", "CD1_2", "CD2_1", "CD2_2"):
                del hdus[0].header[key]


def shifted(folder: Path) -> None:
    with fits.open(folder / "T10" / "T10_g.fits", mode="update") as hdus:
        hdus[0].header["CRPIX1"] += 0.3


# What is done to which survey tile, and what is said of it.
FAULTS = {
    "T01": (
        truncated,
        r"T01_r\.fits cannot be read; it is damaged, incomplete or no FITS file: .* \(100000\) .*",
    ),
    "T03": (missing, r"band g is missing: no file T03/T03_g\.fits"),
    "T04": (
        other_size,
        r"band g has shape \(200, 203\), but band r has \(300, 203\); survey\.align=true .*",
    ),
    "T06": (blank, r"band g has no valid pixel: all are NaN or survey\.blank_value .*"),
    "T08": (without_wcs, r"T08_r\.fits has no celestial WCS; its header needs CTYPE1, .*"),
    "T10": (
        shifted,
        r"the WCS of band g is 0\.30 px off that of band r \(allowed: 0\.1 px\); survey\.align=.*",
    ),
}


def tile_files(folder: Path) -> set[Path]:
    """What a run writes for each survey tile."""
    return {path for path in folder.glob("*/*") if path.is_file()}


def results(folder: Path) -> dict[str, bytes]:
    """Everything that must not depend on how the run went."""
    names = ("*/*.fits", "*/*.ecsv", "*/*.reg", "*.ecsv", "*.reg", "run.json")
    found = sorted(path for name in names for path in folder.glob(name))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.slow
def test_damaged_tiles_are_listed_and_done_after_repair(
    root: Path, tmp_path: Path, tile: Callable[..., Path], checkpoint: Callable[..., Path]
) -> None:
    survey = tmp_path / "data" / "survey"

    def make(name: str) -> None:
        number = int(name[1:])
        tile(survey, name, SHAPE, number, ra=359.95 + 0.01 * number)

    def predict(output: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, str(root / "inference" / "predict.py"), *OURS]
        words += [f"predict.output_dir={output}", f"predict.cached_data_path={survey}"]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)

    for name in NAMES:
        make(name)
    checkpoint(tmp_path / "outputs" / "membership" / "best.ckpt", ("g", "r"), 16)
    for damage, _ in FAULTS.values():
        damage(survey)
    run = predict("out")
    assert run.returncode == 3
    out = tmp_path / "out"
    failed = Table.read(out / "failed.ecsv")
    assert failed["tile"].tolist() == list(FAULTS)
    for row in failed:
        assert re.fullmatch(FAULTS[row["tile"]][1], row["reason"]), row["reason"]
    done = sorted(path.stem for path in (out / "scores").iterdir())
    assert done == [name for name in NAMES if name not in FAULTS]
    # One line says how it went and what to do; the first reason is in it.
    (line,) = [line for line in run.stdout.splitlines() if "failed" in line]
    assert "6 of 12 survey tiles predicted" in line
    assert "6 failed, see out/failed.ecsv (T01: T01_r.fits cannot be read" in line
    assert line.endswith("run the command again, which predicts only what is missing")
    assert "Traceback" not in run.stdout + run.stderr
    finished = {path for path in tile_files(out) if path.stem in done}
    times = {path: path.stat().st_mtime_ns for path in finished}
    # Scores, candidates, regions and record of each.
    assert len(finished) == 4 * 6
    for name in FAULTS:
        make(name)
    again = predict("out")
    assert again.returncode == 0, again.stderr
    assert "6 survey tiles to predict, 6 finished before" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert {path.stem for path in tile_files(out) - finished} == set(FAULTS)
    assert len(Table.read(out / "failed.ecsv")) == 0
    # As if nothing had ever been wrong.
    assert predict("whole").returncode == 0
    assert results(out) == results(tmp_path / "whole")
