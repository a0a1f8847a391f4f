"""What the tests of labels share: runs, cells that count, and members at pixels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from astropy.table import Table
from astropy.wcs import WCS

from datagen import pipeline
from datagen.fields.format import read_file_data
from datagen.fields.validate import validate_folder
from datagen.tiles.config import TilesConfig

Datum = dict[str, Any]
MakeConfig = Callable[..., TilesConfig]
IMAGE, CELL, TILE = 96, 16, 216
SCALE = 0.263


def run(config: TilesConfig) -> list[Datum]:
    """All images of a run, in the order of the files' names."""
    pipeline.run(config)
    validate_folder(Path(config.data_dir))
    paths = sorted(Path(config.data_dir).glob("file_data/*.pt"))
    return [datum for path in paths for datum in read_file_data(path)]


def fresh_cells(data: list[Datum], shape: tuple[int, int] = (TILE, TILE)) -> list[torch.Tensor]:
    """For each image the cells that no image before has shown, by looking at each of them."""
    seen: set[tuple[str, int, int]] = set()
    result = []
    for datum in data:
        row, column = datum["meta"]["origin"]
        n = IMAGE // CELL
        fresh = torch.ones(n, n, 1, 1)
        for i in range(n):
            for j in range(n):
                place = (datum["meta"]["tile"], row + i * CELL, column + j * CELL)
                fresh[i, j] = place not in seen
                seen.add(place)
        result.append(fresh)
    n_cells = (shape[0] // CELL) * (shape[1] // CELL)
    assert len(seen) == len({d["meta"]["tile"] for d in data}) * n_cells
    return result


def settings_of(make: MakeConfig, folder: Path, reference: Path, **changes: object) -> TilesConfig:
    survey = {"pattern": "{tile}/{tile}_{band}.fits", "bands": ["g", "r"], "pixel_scale": SCALE}
    survey["calibrate"] = True
    more = {"reference": str(reference), "reference_band": "r", "richness_min": 1.0, **changes}
    return make(folder, survey, **more)


def write_members(path: Path, wcs: WCS, rows: Sequence[Mapping[str, float]]) -> Path:
    """Write members at pixels; each row may say x, y, p, id, z, mag and richness."""
    base = {"p": 1.0, "id": 7, "z": 0.4, "mag": 20.0, "richness": 30.0}
    table = Table(rows=[{**base, **row} for row in rows])
    ra, dec = wcs.all_pix2world(table["x"], table["y"], 0)
    names = {"p": "PMEM", "id": "MEM_MATCH_ID", "z": "Z", "mag": "MAG_R", "richness": "RICHNESS"}
    members = Table({"RA": ra, "DEC": dec} | {new: table[old] for old, new in names.items()})
    members.write(path, overwrite=True)
    return path
