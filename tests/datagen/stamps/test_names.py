"""What names of files say, by presets and by patterns of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from datagen.errors import ConfigError
from datagen.stamps.names import Identity, compiled, identify, list_images, object_number


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("snap", "images/snap_099-1234_2.fits", (99, 1234, 2, None)),
        ("snap", "snap_072-0_10.hdf5", (72, 0, 10, None)),
        ("shalo", "images/059/shalo_059-101_v3_HSC_GRIZY.fits", (59, 101, 3, None)),
        ("shalo", "shalo_091-544430_v3_photo.fits", (91, 544430, 3, None)),
        ("object_band", "cut/42_g.fits", (-1, 42, 0, "g")),
        ("object_band", "007_HSC.fits.fz", (-1, 7, 0, "HSC")),
        ("object", "12.npz", (-1, 12, 0, None)),
        (r"z(?P<snapshot>\d+)/(?P<object>\d+)\.h5", "out/z4/8.h5", (4, 8, 0, None)),
    ],
)
def test_presets_and_patterns(
    pattern: str, name: str, expected: tuple[int, int, int, str | None]
) -> None:
    match = compiled(pattern, "pattern").fullmatch(name)
    assert match is not None
    assert identify(match) == Identity(*expected[:3])
    assert match.groupdict().get("band") == expected[3]


def test_objects_whose_names_are_no_numbers_have_one_all_the_same() -> None:
    assert object_number(" 00123 ") == 123
    name = object_number("J0001+0002")
    assert name == object_number("J0001+0002") != object_number("J0001+0003")
    assert 0 <= name < 2**56
    # More digits than 64 bits hold.
    assert object_number("9" * 30) < 2**56


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("snip", "with the group"),
        (r"(?P<object>\d+", "missing \\), unterminated subpattern"),
        (r"(?P<object>\d+)_(?P<filter>\w)", "no other than snapshot, object, projection, band"),
    ],
)
def test_patterns_that_say_no_object_are_refused(pattern: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"expected p to be one of snap, shalo.*{reason}"):
        compiled(pattern, "p")


def test_files_of_bands_are_put_together(tmp_path: Path) -> None:
    for name in ("1_g", "1_r", "1_z", "2_G", "2_R", "3_g", "a_g", "a_r", "01_r"):
        (tmp_path / f"{name}.fits").touch()
    images, drops = list_images(tmp_path, "*.fits", compiled("object_band", "p"), ["r", "g"])
    assert [(image.identity.object, image.name) for image in images] == [
        (1, "01_r.fits"),
        (2, "2_G.fits"),
        (object_number("a"), "a_g.fits"),
    ]
    assert images[1].files == {"g": tmp_path / "2_G.fits", "r": tmp_path / "2_R.fits"}
    assert {(drop.file, drop.kind) for drop in drops} == {
        ("1_r.fits", "duplicate image"),
        ("3_g.fits", "band"),
    }
    assert "there is no file of band r" in drops[-1].reason
