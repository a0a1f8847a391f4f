"""Images in FITS, HDF5 and npz: the same planes, whatever holds them; bad files are named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits

from datagen.stamps.drops import DroppedError
from datagen.stamps.names import Identity, Image
from datagen.stamps.readers import read_image
from tests.datagen.stamps.raw import write_image

PLANES = {"g": np.arange(12.0).reshape(3, 4), "r": np.ones((3, 4))}
CUBE = np.stack(list(PLANES.values()))


def image_of(*paths: Path) -> Image:
    files = dict(zip(PLANES, paths * 2 if len(paths) == 1 else paths, strict=True))
    return Image(Identity(0, 1, 0), paths[0].name, files)


def test_all_readers_give_the_same_planes_and_what_is_said_of_them(tmp_path: Path) -> None:
    one = write_image(tmp_path / "one.fits", PLANES, ZEROPT=22.5)
    split = [write_image(tmp_path / f"{band}.fits", {"SCI": PLANES[band]}) for band in PLANES]
    cube = tmp_path / "cube.fits"
    primary = fits.PrimaryHDU(CUBE.astype(np.int16), header=fits.Header({"ZEROPT": 22.5}))
    fits.HDUList([primary, fits.ImageHDU(CUBE, name="SCI")]).writeto(cube)
    tree = tmp_path / "tree.hdf5"
    with h5py.File(tree, "w") as file:
        file.attrs["ZEROPT"] = 22.5
        for band, plane in PLANES.items():
            file[f"photo/{band}"] = plane
            file[f"photo/{band}"].attrs["FWHM"] = 0.6
        file["cube"] = CUBE
    packed = tmp_path / "packed.npz"
    np.savez(packed, images=CUBE, ZEROPT=22.5, **PLANES)
    for reader, paths, addresses in (
        ("fits", [one], {"g": "G", "r": "r"}),
        ("fits", [one], {"g": "1", "r": "2"}),
        ("fits", split, {"g": "SCI", "r": "1"}),
        ("fits", [cube], {"g": "SCI[0]", "r": "0[1]"}),
        ("hdf5", [tree], {"g": "photo/g", "r": "cube[1]"}),
        ("npz", [packed], {"g": "images[0]", "r": "r"}),
    ):
        raw = read_image(image_of(*paths), addresses, reader)
        assert np.array_equal(raw.planes, CUBE), (reader, addresses)
        assert raw.planes.dtype == np.float64
        if len(paths) == 1:
            assert raw.cards[1]["ZEROPT"] == 22.5
    assert read_image(image_of(tree), {"g": "photo/g"}, "hdf5").cards[0]["FWHM"] == 0.6


def test_bad_files_are_named_with_the_reason(tmp_path: Path) -> None:
    image = write_image(tmp_path / "x.fits", PLANES | {"i": np.ones((2, 4))})
    empty = tmp_path / "empty.fits"
    fits.HDUList([fits.PrimaryHDU()]).writeto(empty)
    text = tmp_path / "text.fits"
    text.write_text("nothing")
    tree = tmp_path / "t.hdf5"
    with h5py.File(tree, "w") as file:
        file["photo/g"] = PLANES["g"]
        file["names"] = "abc"
    objects = tmp_path / "o.npz"
    np.savez(objects, images=np.array([{}, None], object))
    array = tmp_path / "a.npz"
    np.save(array.open("wb"), CUBE)
    for reader, path, addresses, kind, reason in (
        ("fits", image, {"g": "z"}, "band", "x.fits: there is no z: Extension"),
        ("fits", image, {"g": "9"}, "band", "there is no 9"),
        ("fits", image, {"g": "g[5]"}, "band", "index 5 is out of bounds"),
        ("fits", image, {"g": "g", "r": "i"}, "shape", r"g \(3, 4\), r \(2, 4\)"),
        ("fits", empty, {"g": "0"}, "shape", "expected an image of numbers .* but got nothing"),
        ("fits", text, {"g": "0"}, "unreadable", "text.fits cannot be read"),
        ("hdf5", text, {"g": "g"}, "unreadable", "text.fits cannot be read"),
        ("hdf5", tree, {"g": "photo"}, "band", "photo is a group"),
        ("hdf5", tree, {"g": "names"}, "shape", "band g"),
        ("npz", objects, {"g": "images"}, "unreadable", "pickled objects, which are not read"),
        ("npz", array, {"g": "images"}, "unreadable", "no npz file"),
    ):
        with pytest.raises(DroppedError, match=reason) as caught:
            read_image(image_of(path), addresses, reader)
        assert caught.value.value == kind
