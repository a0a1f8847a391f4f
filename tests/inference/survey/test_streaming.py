"""Survey tiles are read section by section, whatever the kind of their files."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from lightning import LightningModule

from conf.running import JOBS_FAILED
from datagen.errors import DataFormatError
from datagen.tiles.listing import list_tiles
from datagen.tiles.sections import CompressedPixels, HeldPixels, MappedPixels, RowPixels
from datagen.tiles.survey import SurveySettings
from inference.engine import run
from inference.outputs import read_record
from inference.survey import dataset, writer
from inference.survey.buffers import Buffers, read_ahead
from inference.survey.dataset import TileSource, WindowDataset, cut
from inference.survey.masking import MaskCount
from inference.survey.reading import (
    SAMPLED_ROWS,
    StreamingReader,
    TileReader,
    WholeTileReader,
    open_tile,
    sample_steps,
)
from inference.survey.records import OutputPaths
from inference.survey.run import SurveyRun
from inference.survey.scores import read_scores
from inference.survey.settings import PredictSettings
from inference.survey.windows import WindowPlan, WindowShape

SHA = "a" * 64
WINDOWS = WindowShape(32, 16, 8, 8, 8)
PIECES = {"rows": (1, 0), "strips": (5, 0), "squares": (13, 19)}
READERS = {
    "plain": MappedPixels,
    "rows": RowPixels,
    "strips": RowPixels,
    "squares": CompressedPixels,
    "scaled": HeldPixels,
}


def write(path: Path, image: np.ndarray, header: fits.Header, kind: str) -> None:
    """Write an image plain, or compressed without loss in pieces of a kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "plain":
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, header)]
    elif kind == "scaled":
        hdus = [fits.PrimaryHDU(), fits.ImageHDU(image, header)]
        hdus[1].scale("int32", bzero=1000.0)
    else:
        rows, columns = PIECES[kind]
        is_integer = image.dtype.kind == "i"
        algorithm = "RICE_1" if is_integer else "GZIP_1"
        pieces = (min(rows, image.shape[0]), min(columns or image.shape[1], image.shape[1]))
        compressed = fits.CompImageHDU(
            image, header, compression_type=algorithm, quantize_level=0, tile_shape=pieces
        )
        hdus = [fits.PrimaryHDU(), compressed]
    fits.HDUList(hdus).writeto(path, overwrite=True)


def noise(shape: tuple[int, int], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    image = rng.normal(50.0, 9.0, shape).round().astype(np.float32)
    image[rng.random(shape) < 0.02] = 0.0
    image[: shape[0] // 3, : shape[1] // 4] = 0.0
    return image


@pytest.fixture
def in_hdu_1(survey: SurveySettings) -> SurveySettings:
    return dataclasses.replace(survey, hdu=1)


@pytest.fixture
def predict(
    settings: PredictSettings, in_hdu_1: SurveySettings, module: LightningModule
) -> Callable[..., int]:
    def call(**changes: object) -> int:
        return run(SurveyRun(dataclasses.replace(settings, **changes), in_hdu_1, module, SHA))

    return call


def windows_of(reader: TileReader) -> tuple[np.ndarray, np.ndarray]:
    plan = WindowPlan(reader.shape, WINDOWS)
    mask = MaskCount(plan)
    # One by one, as a prediction asks for them.
    cuts = [cut(reader, plan, [start], mask=mask) for start in plan.starts]
    return np.concatenate(cuts), mask.fraction()


def kinds_of(reader: StreamingReader) -> list[type]:
    return [type(file.pixels) for file in reader._bands.files]


@examples(
    deadline=None,
    max_examples=8,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shape=st.tuples(st.integers(20, 70), st.integers(20, 70)),
    seed=st.integers(0, 99),
    dtype=st.sampled_from([np.float32, np.int16, np.float64]),
    zero_point=st.sampled_from([29.0, 30.0]),
)
def test_all_kinds_of_files_give_the_same_windows(
    tmp_path_factory: pytest.TempPathFactory,
    in_hdu_1: SurveySettings,
    header: Callable[..., fits.Header],
    shape: tuple[int, int],
    seed: int,
    dtype: type,
    zero_point: float,
) -> None:
    zero_points = {"g": zero_point, "r": 30.0}
    survey = dataclasses.replace(in_hdu_1, zero_points=zero_points, calibrate=True)
    folder = tmp_path_factory.mktemp("kinds")
    found = {}
    for kind, expected in READERS.items():
        for number, band in enumerate("gr"):
            image = noise(shape, 2 * seed + number).astype(dtype)
            write(folder / kind / "T" / f"T_{band}.fits", image, header(shape), kind)
        (tile,) = list_tiles(folder / kind, survey)
        reader = open_tile(tile, survey, 30.0)
        assert isinstance(reader, StreamingReader)
        assert kinds_of(reader) == [expected, expected]
        found[kind] = (*windows_of(reader), reader.background, reader.sigma)
        reader.close()
        whole = WholeTileReader(tile, survey, 30.0)
        found[f"{kind}, whole"] = (*windows_of(whole), whole.background, whole.sigma)
    for kind, values in found.items():
        for mine, plain in zip(values, found["plain"], strict=True):
            np.testing.assert_array_equal(mine, plain, err_msg=kind)
    bad = ~np.isfinite(whole.section(slice(None), slice(None))).all(axis=0)
    rows, columns = (np.arange(0, n, 8) for n in shape)
    sums = np.add.reduceat(np.add.reduceat(bad.astype(int), rows, 0), columns, 1)
    areas = np.add.reduceat(np.add.reduceat(np.ones(shape, int), rows, 0), columns, 1)
    np.testing.assert_array_equal(found["plain"][1], (sums / areas).astype(np.float32))


@pytest.fixture
def tiles(tmp_path: Path, tile: Callable[..., Path]) -> Callable[[str], Path]:
    """Return a function that stores the same three survey tiles in one kind of files."""

    def make(kind: str) -> Path:
        folder = tmp_path / kind
        for number in range(3):
            tile(tmp_path / "simple", f"T{number}", (300, 120), seed=number, ra=10 + 0.01 * number)
        for path in (tmp_path / "simple").glob("*/*.fits"):
            with fits.open(path) as hdus:
                image = np.array(hdus[0].data, np.float32)
                image[40:60, 30:77] = 0.0
                write(folder / path.parent.name / path.name, image, hdus[0].header, kind)
        return folder

    return make


def results(out: Path) -> list[Any]:
    """Scores, masks and candidates without the hashes of settings and files."""
    maps = [read_scores(path) for path in sorted(out.glob("scores/*.fits"))]
    planes = [(m.score.tobytes(), m.mask_fraction.tobytes(), m.coverage.tobytes()) for m in maps]
    table = Table.read(out / "catalog.ecsv")
    # As text: NaN is no equal of itself.
    return [planes, [str(tuple(row)) for row in table]]


def contents(out: Path) -> dict[str, bytes]:
    paths = [*out.glob("scores/*"), *out.glob("catalogs/*"), out / "catalog.ecsv"]
    return {str(path.relative_to(out)): path.read_bytes() for path in paths}


def test_results_do_not_depend_on_the_kind_of_files_or_on_reading_ahead(
    tiles: Callable[[str], Path], tmp_path: Path, predict: Callable[..., int]
) -> None:
    for kind in ("plain", "rows", "squares"):
        assert (
            predict(cached_data_path=str(tiles(kind)), output_dir=str(tmp_path / f"o{kind}")) == 0
        )
    assert results(tmp_path / "oplain") == results(tmp_path / "orows")
    assert results(tmp_path / "oplain") == results(tmp_path / "osquares")
    assert len(results(tmp_path / "oplain")[1]) > 0
    for kind in ("plain", "rows"):
        again = tmp_path / f"again-{kind}"
        folder = str(tmp_path / kind)
        assert predict(cached_data_path=folder, output_dir=str(again), prefetch=0) == 0
        assert contents(again) == contents(tmp_path / f"o{kind}")


@pytest.mark.parametrize("rows", [1, 5])
def test_each_row_is_decoded_once(
    tmp_path: Path,
    in_hdu_1: SurveySettings,
    header: Callable[..., fits.Header],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
) -> None:
    shape = (3 * SAMPLED_ROWS + 3, 90)
    for band in "gr":
        kind = "rows" if rows == 1 else "strips"
        write(tmp_path / "T" / f"T_{band}.fits", noise(shape, 0), header(shape), kind)
    decoded = np.zeros(shape[0], int)
    decode = CompressedPixels._decode

    def counted(self: CompressedPixels, rows: slice, columns: slice) -> np.ndarray:
        decoded[rows] += 1
        return decode(self, rows, columns)

    monkeypatch.setattr(CompressedPixels, "_decode", counted)
    (tile,) = list_tiles(tmp_path, in_hdu_1)
    reader = open_tile(tile, in_hdu_1, 30.0)
    step = sample_steps(shape)[0]
    assert step == 4
    if rows == 1:
        assert decoded.tolist() == [2 if row % step == 0 else 0 for row in range(shape[0])]
    decoded[:] = 0
    windows_of(reader)
    assert (decoded == 2).all()  # once in each band


def test_background_is_measured_on_few_rows_and_enough_pixels() -> None:
    for shape in ((10000, 10000), (4100, 700), (251, 99999), (1, 1), (125, 2098), (30, 30)):
        rows, columns = (-(-n // step) for n, step in zip(shape, sample_steps(shape), strict=True))
        assert rows <= SAMPLED_ROWS
        assert rows * columns <= 1 << 18
        assert rows * columns > min(1 << 16, shape[0] * shape[1] // 4) or shape[1] < 1024
    assert sample_steps((10000, 10000)) == (80, 5)
    assert sample_steps((125, 300)) == (1, 1)


def spoil(path: Path, row: int) -> None:
    """Damage one compressed row, as a bad disk does: the headers still look well."""
    with fits.open(path, disable_image_compression=True) as hdus:
        first, header = hdus[1].fileinfo()["datLoc"], hdus[1].header
    data = bytearray(path.read_bytes())
    # The table says of each row how long it is and where in the heap it begins.
    length, offset = np.frombuffer(data, ">i4", 2, first + 8 * row)
    start = first + header["NAXIS1"] * header["NAXIS2"] + offset
    data[start : start + length] = bytes(length)
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("name", ["T1", "T2"])
def test_damage_in_the_middle_fails_that_survey_tile_alone(
    tiles: Callable[[str], Path],
    tmp_path: Path,
    predict: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    prefetch: int,
) -> None:
    folder = tiles("rows")
    spoil(folder / name / f"{name}_r.fits", 251)
    writers = []
    create = writer.TileWriter.__init__

    def kept(self: writer.TileWriter, *arguments: object) -> None:
        writers.append(self)
        create(self, *arguments)

    monkeypatch.setattr(writer.TileWriter, "__init__", kept)
    started = []
    cut_one = dataset.cut

    def noted(reader: TileReader, plan: WindowPlan, starts: object, *more: object) -> np.ndarray:
        started.append(starts)
        return cut_one(reader, plan, starts, *more)

    monkeypatch.setattr(dataset, "cut", noted)
    out = tmp_path / "out"
    assert predict(cached_data_path=str(folder), prefetch=prefetch) == JOBS_FAILED
    failed = Table.read(out / "failed.ecsv")
    assert failed["tile"].tolist() == [name]
    assert failed["reason"][0].startswith(f"{name}_r.fits cannot be read; it is damaged")
    assert {path.stem for path in out.glob("scores/*")} == {"T0", "T1", "T2"} - {name}
    # Some of its windows had been read before.
    assert len(started) > 2 * 6  # batches of a whole survey tile
    assert all(not w._open for w in writers)


def test_partial_scores_are_dropped_at_the_next_batch(
    tiles: Callable[[str], Path],
    tmp_path: Path,
    settings: PredictSettings,
    in_hdu_1: SurveySettings,
) -> None:
    folder = tiles("rows")
    spoil(folder / "T1" / "T1_g.fits", 251)
    source = TileSource(in_hdu_1, 30.0, WindowShape(96, 48, 16, 16, 16), 2, OutputPaths(tmp_path))
    batches = [
        (batch["tile"], batch["given_up"])
        for batch in WindowDataset(source, list_tiles(folder, in_hdu_1))
    ]
    given_up = [entry for entry in batches if entry[1]]
    assert given_up == [("T2", ["T1"])]
    assert batches[batches.index(given_up[0]) - 1][0] == "T1"
    assert read_record(source.paths, "T1")["status"] == "failed"


def count_up(closed: list[int], fail_at: int | None = None) -> Iterator[int]:
    try:
        for number in range(100):
            if number == fail_at:
                raise DataFormatError("bad", value=number)
            yield number
    finally:
        closed.append(threading.get_ident())


def n_readers() -> int:
    return sum(thread.name == "read-ahead" for thread in threading.enumerate())


@pytest.mark.parametrize("n_ahead", [0, 1, 3])
def test_reading_ahead_changes_neither_order_nor_errors(n_ahead: int) -> None:
    closed: list[int] = []
    assert list(read_ahead(count_up(closed), n_ahead)) == list(range(100))
    items = read_ahead(count_up(closed, fail_at=7), n_ahead)
    assert [next(items) for _ in range(7)] == list(range(7))
    with pytest.raises(DataFormatError, match="bad"):
        next(items)
    assert len(closed) == 2
    assert (closed[0] == threading.get_ident()) == (n_ahead == 0)
    assert n_readers() == 0


def test_the_thread_ends_when_nobody_wants_more() -> None:
    closed: list[int] = []
    items = read_ahead(count_up(closed), 2)
    assert next(items) == 0
    assert n_readers() == 1
    items.close()
    assert n_readers() == 0
    assert len(closed) == 1


def test_no_more_is_read_ahead_than_was_asked_for() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            made.append(number)
            yield number

    ahead = read_ahead(items(), 2)
    for number in range(5):
        assert next(ahead) == number
        threading.Event().wait(0.02)
        assert len(made) <= number + 3
    ahead.close()


def test_memory_is_lent_again_only_when_nobody_refers_to_it() -> None:
    buffers = Buffers()
    first = buffers.lend((2, 3), 2)
    part, place = first[:1], first.data_ptr()
    del first
    other = buffers.lend((2, 3), 2)
    assert other.data_ptr() != place
    del part
    assert buffers.lend((2, 3), 2).data_ptr() == place
    place = other.data_ptr()
    other.set_()
    one = buffers.lend((2, 3), 1)
    assert one.data_ptr() == place
    # The owner may give it back while others still have the same object.
    one.set_()
    assert buffers.lend((2, 3), 2).data_ptr() == place
    assert buffers.lend((4, 3), 3).shape == (3, 3)
