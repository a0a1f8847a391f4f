"""Rows are decoded ahead where memory allows it, also those of the next survey tile."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from datagen.errors import DataFormatError
from datagen.tiles import sections, stack
from datagen.tiles.listing import Tile, list_tiles
from datagen.tiles.sections import CompressedPixels
from datagen.tiles.survey import SurveySettings
from inference.survey import opening
from inference.survey.dataset import TileSource, WindowDataset, cut
from inference.survey.opening import TileQueue
from inference.survey.reading import TileReader, WholeTileReader, open_tile
from inference.survey.records import OutputPaths
from inference.survey.windows import WindowPlan, WindowShape

WINDOWS = WindowShape(64, 32, 16, 16, 16)
SHAPE = (200, 170)
N_BANDS = 2


@pytest.fixture
def stored(survey: SurveySettings) -> SurveySettings:
    return dataclasses.replace(survey, hdu=1)


@pytest.fixture
def tiles(tmp_path: Path, stored: SurveySettings, header: Callable[..., fits.Header]) -> list[Tile]:
    """Three survey tiles whose rows are compressed."""
    rng = np.random.default_rng(0)
    for number in range(3):
        for band in "gr":
            path = tmp_path / "tiles" / f"T{number}" / f"T{number}_{band}.fits"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = rng.normal(5.0, 2.0, SHAPE).astype(np.float32)
            hdu = fits.CompImageHDU(
                image, header(SHAPE), compression_type="GZIP_1", quantize_level=0
            )
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
    return list_tiles(tmp_path / "tiles", stored)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "BLOCK_COLUMNS", 16)
    monkeypatch.setattr(sections, "DECODED_ROWS", 8)
    monkeypatch.setattr(opening, "ROWS_AHEAD", 16)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> dict[int, np.ndarray]:
    """How often each row of each file was decoded."""
    counts: dict[int, np.ndarray] = {}
    decode = CompressedPixels._decode

    def counted(self: CompressedPixels, rows: slice, columns: slice) -> np.ndarray:
        counts.setdefault(id(self), np.zeros(SHAPE[0], int))[rows] += 1
        return decode(self, rows, columns)

    monkeypatch.setattr(CompressedPixels, "_decode", counted)
    return counts


def queue_of(tiles: list[Tile], stored: SurveySettings) -> TileQueue:
    return TileQueue(tiles, lambda tile: open_tile(tile, stored, 30.0), WINDOWS.window_px)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_ahead", [False, True])
def test_memory_is_bounded_and_windows_are_right(
    tiles: list[Tile], stored: SurveySettings, is_ahead: bool
) -> None:
    row = N_BANDS * SHAPE[1]
    most = (WINDOWS.window_px + (opening.ROWS_AHEAD if is_ahead else 0)) * row
    queue = queue_of(tiles, stored)
    held, ahead = [], []
    for tile in tiles:
        opened = queue.take()
        assert opened is not None
        assert opened.name == tile.name
        ahead.append(opened.n_held)
        whole = WholeTileReader(tile, stored, 30.0)
        plan = WindowPlan(opened.reader.shape, WINDOWS)
        for number, start in enumerate(plan.starts):
            mine = cut(opened.reader, plan, [start])
            np.testing.assert_array_equal(mine, cut(whole, plan, [start]))
            opened.reader.forget(*plan.passed(number))
            while is_ahead and queue.work_ahead():
                held.append(opened.n_held + (queue._next.n_held if queue._next else 0))
            held.append(opened.n_held)
        assert opened.n_held == 0
    assert queue.take() is None
    queue.close()
    assert max(held) <= most
    # While the last windows of one tile are used, the next one gets ready.
    assert (min(ahead[1:]) > most // 2) == is_ahead
    if is_ahead:
        # In the middle of a tile, too: more than the rows of one row of windows.
        assert max(held) > WINDOWS.window_px * row


@pytest.mark.usefixtures("small_blocks")
def test_each_row_of_each_file_is_decoded_once(
    tiles: list[Tile], stored: SurveySettings, decoded: dict[int, np.ndarray], tmp_path: Path
) -> None:
    step = -(-SHAPE[0] // 125)
    sampled = np.where(np.arange(SHAPE[0]) % step == 0, 2, 1)
    seen: list[list[bytes]] = []
    for prefetch in (0, 1, 3):
        source = TileSource(stored, 30.0, WINDOWS, 2, OutputPaths(tmp_path), prefetch)
        # Numbers of objects are used again: each pass has its own counts.
        decoded.clear()
        kept = [batch["images"].numpy().tobytes() for batch in WindowDataset(source, tiles)]
        total = sum(decoded.values())
        np.testing.assert_array_equal(total, len(tiles) * N_BANDS * sampled)
        seen.append(kept)
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.usefixtures("small_blocks")
def test_damage_that_is_found_early_is_told_in_its_place(
    tiles: list[Tile], stored: SurveySettings
) -> None:
    path = tiles[1].paths[0]
    path.write_bytes(path.read_bytes()[:-3000])
    queue = queue_of(tiles, stored)
    names = []
    while (opened := queue.take()) is not None:
        names.append(opened.name)
        if opened.name == "T1":
            with pytest.raises(DataFormatError, match=r"T1_g.fits cannot be read.*truncated"):
                _ = opened.reader
            continue
        plan = WindowPlan(opened.reader.shape, WINDOWS)
        for number, start in enumerate(plan.starts):
            cut(opened.reader, plan, [start])
            opened.reader.forget(*plan.passed(number))
            while queue.work_ahead():
                pass
    assert names == ["T0", "T1", "T2"]


@pytest.mark.usefixtures("small_blocks")
def test_a_tile_that_is_held_whole_lets_none_be_opened_early(
    tiles: list[Tile], stored: SurveySettings
) -> None:
    opened = []

    def hold(tile: Tile) -> TileReader:
        opened.append(tile.name)
        return WholeTileReader(tile, stored, 30.0)

    queue = TileQueue(tiles, hold, WINDOWS.window_px)
    assert not queue.work_ahead()
    queue.take()
    assert not queue.work_ahead()
    assert opened == ["T0"]


def test_images_that_are_held_whole_let_no_tile_be_opened_early(
    tmp_path: Path, tile: Callable[..., Path], survey: SurveySettings
) -> None:
    """Scaled numbers cannot be mapped: astropy brings them to memory."""
    for number in range(2):
        for path in tile(tmp_path / "tiles", f"T{number}", SHAPE).glob("*.fits"):
            with fits.open(path) as hdus:
                scaled = fits.PrimaryHDU(hdus[0].data, hdus[0].header)
            scaled.scale("int32", bzero=1000.0)
            scaled.writeto(path, overwrite=True)
    queue = queue_of(list_tiles(tmp_path / "tiles", survey), survey)
    opened = queue.take()
    assert opened is not None
    assert opened.n_held == N_BANDS * SHAPE[0] * SHAPE[1]
    assert not queue.work_ahead()
    queue.close()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["rows", "plain"])
def test_bands_with_planes_are_decoded_ahead_at_one_pace(
    tiles: list[Tile], stored: SurveySettings, kind: str, tmp_path: Path
) -> None:
    for path in (path for tile in tiles for path in tile.paths):
        with fits.open(path, mode="append") as hdus:
            flags = np.zeros(SHAPE, np.int16)
            compressed = fits.CompImageHDU(flags, compression_type="RICE_1")
            hdus.append(compressed if kind == "rows" else fits.ImageHDU(flags))
    planes = dataclasses.replace(stored, flags_hdu=2, flags_mask="all")
    queue = queue_of(list_tiles(tmp_path / "tiles", planes), planes)
    opened = queue.take()
    assert opened is not None
    while queue.work_ahead():
        pass
    images = N_BANDS * (2 if kind == "rows" else 1)
    room = (WINDOWS.window_px + opening.ROWS_AHEAD) * SHAPE[1] * images
    assert room - 8 * SHAPE[1] < opened.n_held <= room
    pace = {file.rows_decoded for file in opened.reader._bands.files}  # type: ignore[attr-defined]
    assert max(pace) - min(pace) <= 8
    queue.close()


@pytest.mark.usefixtures("small_blocks")
def test_whole_tiles_keep_no_rows_beside_their_images(
    tiles: list[Tile], stored: SurveySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = []
    monkeypatch.setattr(stack, "MOST_ROWS", 24)
    close = stack.TileBands.close

    def noted(self: stack.TileBands) -> None:
        held.append([file.pixels.n_held for file in self.files])
        close(self)

    monkeypatch.setattr(stack.TileBands, "close", noted)
    WholeTileReader(tiles[0], stored, 30.0)
    assert held == [[0, 0]]
