from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from datagen.errors import ConfigError, DataNotFoundError
from datagen.tiles.listing import list_tiles, shard
from datagen.tiles.survey import SurveySettings


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def test_tiles_of_des_are_found_by_name(tmp_path: Path, survey: SurveySettings) -> None:
    des = dataclasses.replace(survey, pattern="{tile}/{tile}_*_{band}_nobkg.fits.fz")
    for tile in ("DES0002-5500", "DES0001+0209"):
        touch(tmp_path, *(f"{tile}/{tile}_r4575p01_{b}_nobkg.fits.fz" for b in ("g", "r", "i")))
    touch(tmp_path, "DES0002-5500/DES0002-5500_sources.dat", "truth_clusters.ecsv")
    tiles = list_tiles(tmp_path, des)
    assert [tile.name for tile in tiles] == ["DES0001+0209", "DES0002-5500"]
    assert [path.name[-15:-14] for path in tiles[0].paths] == ["g", "r"]
    assert tiles[0].problem is None


def test_missing_and_doubled_bands_are_problems(tmp_path: Path, survey: SurveySettings) -> None:
    many = dataclasses.replace(survey, pattern="{tile}/*_{band}.fits")
    touch(tmp_path, "A/1_g.fits", "A/1_r.fits", "B/1_g.fits", "C/1_g.fits", "C/1_r.fits")
    touch(tmp_path, "C/2_r.fits")
    problems = {tile.name: tile.problem for tile in list_tiles(tmp_path, many)}
    assert problems == {
        "A": None,
        "B": "band r is missing: no file B/*_r.fits",
        "C": "2 files fit band r: 1_r.fits, 2_r.fits",
    }


def test_a_pattern_without_tile_makes_the_folder_one_tile(
    tmp_path: Path, survey: SurveySettings
) -> None:
    exposures = dataclasses.replace(survey, pattern="c4d_*_ooi_{band}_ls9.?2?.fits")
    touch(tmp_path / "field", "c4d_1_ooi_g_ls9.N26.fits", "c4d_2_ooi_r_ls9.S21.fits")
    touch(tmp_path / "field", "c4d_3_ooi_r_ls9.N6.fits")
    (tile,) = list_tiles(tmp_path / "field", exposures)
    assert (tile.name, tile.problem, len(tile.paths)) == ("field", None, 2)


def test_missing_folder_and_no_match_name_the_command(
    tmp_path: Path, survey: SurveySettings
) -> None:
    command = r"python datagen/run\.py data_gen=survey"
    with pytest.raises(DataNotFoundError, match=rf"none is not a folder; .* `{command}`"):
        list_tiles(tmp_path / "none", survey)
    with pytest.raises(
        DataNotFoundError, match=rf"no file below .* fits survey.pattern.*{command}"
    ):
        list_tiles(tmp_path, survey)


def test_typing_error_in_the_pattern_is_named(tmp_path: Path, survey: SurveySettings) -> None:
    wrong = dataclasses.replace(survey, pattern="{tlie}/{band}.fits")
    with pytest.raises(ConfigError, match=r"but got \{tlie\}"):
        list_tiles(tmp_path, wrong)


@pytest.mark.parametrize("world", [1, 2, 5])
def test_ranks_share_all_tiles(tmp_path: Path, survey: SurveySettings, world: int) -> None:
    for tile in "ABC":
        touch(tmp_path, f"{tile}/{tile}_g.fits", f"{tile}/{tile}_r.fits")
    tiles = list_tiles(tmp_path, survey)
    parts = [shard(tiles, rank, world) for rank in range(world)]
    assert sorted(tile.name for part in parts for tile in part) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": []}, "expected survey.bands to be a list of different band names"),
        ({"reference_band": "u"}, "survey.reference_band to be g, r, but got .* = u"),
        ({"zero_points": {"g": 30.0}}, "survey.zero_points to be one entry for each of g, r"),
        ({"pixel_scale": 0.0}, "survey.pixel_scale to be a number > 0"),
        ({"pattern": "{tile}.fits"}, "survey.pattern to be a pattern with {band}"),
    ],
)
def test_survey_settings_are_checked(
    survey: SurveySettings, change: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(survey, **change)


def test_a_link_to_nowhere_is_a_problem_of_its_tile(tmp_path: Path, survey: SurveySettings) -> None:
    touch(tmp_path, "A/A_r.fits", "B/B_g.fits", "B/B_r.fits")
    (tmp_path / "A/A_g.fits").symlink_to(tmp_path / "nowhere.fits")
    a, b = list_tiles(tmp_path, survey)
    assert a.problem is not None
    assert a.problem.endswith("A_g.fits cannot be read: No such file or directory")
    assert (b.problem, len(b.sizes), len(b.mtimes_ns)) == (None, 2, 2)
