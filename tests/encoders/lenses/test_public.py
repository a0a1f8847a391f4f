from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image

from datagen.errors import DataFormatError, DataNotFoundError
from encoders.lenses.public import FOLDERS, list_images, load

Public = Callable[..., Path]


@pytest.fixture
def public(tmp_path: Path) -> Public:
    """Return a function that writes a set: `public("no", "sphere", "vort", n=2)`."""

    def write(*classes: str, n: int = 2, splits: tuple[str, ...] = ("train", "val")) -> Path:
        for split in splits:
            for number, name in enumerate(classes):
                folder = tmp_path / "set" / split / name
                folder.mkdir(parents=True)
                for i in range(n):
                    np.save(folder / f"{i}.npy", np.full((1, 6, 6), number + 0.1 * i))
        return tmp_path / "set"

    return write


def saved(path: Path, pixels: object) -> Path:
    np.save(path, pixels, allow_pickle=True)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize(
    "classes", [("vort", "no", "sphere"), ("axion", "cdm", "no_sub"), ("Vortex", "No", "CDM")]
)
def test_labels_follow_the_names_of_folders(public: Public, classes: tuple[str, ...]) -> None:
    records = list_images(public(*classes))
    assert [record.split for record in records] == ["train"] * 6 + ["val"] * 6
    assert [record.label for record in records] == [0, 0, 1, 1, 2, 2] * 2
    labels = {name: k for k, names in enumerate(FOLDERS.values()) for name in names}
    for record in records:
        assert record.label == labels[record.path.parent.name.lower()]
    number = classes.index(records[0].path.parent.name)
    assert load(records[1].path).mean().item() == pytest.approx(number + 0.1)


def test_the_order_of_classes_is_that_of_the_simulator() -> None:
    known = pytest.importorskip("datagen.lenses.format")
    assert tuple(FOLDERS) == known.CLASSES


def test_a_folder_without_splits_has_no_labels(tmp_path: Path) -> None:
    for name in ("b.npy", "a.npy", ".hidden.npy"):
        np.save(tmp_path / name, np.zeros((5, 5)))
    (tmp_path / "notes.txt").touch()
    records = list_images(tmp_path)
    assert [record.path.name for record in records] == ["a.npy", "b.npy"]
    assert all(record.label is None and record.split == "predict" for record in records)


def test_arrays_keep_their_numbers(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).normal(size=(3, 4, 5))
    for stored, expected in ((pixels, pixels), (pixels[0], pixels[:1]), (pixels[:1], pixels[:1])):
        image = load(saved(tmp_path / "a.npy", stored))
        assert image.dtype == torch.float32
        np.testing.assert_allclose(image.numpy(), expected, rtol=1e-6)


def test_fits_keeps_its_numbers(tmp_path: Path) -> None:
    pixels = np.arange(20, dtype=np.int16).reshape(4, 5)
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(load(tmp_path / "a.fits").numpy()[0], pixels)


@pytest.mark.parametrize(("kind", "highest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_are_scaled_by_their_type_alone(
    tmp_path: Path, kind: type[np.generic], highest: int
) -> None:
    pixels = np.array([[0, 1, 2], [100, 200, 201]], dtype=kind)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = load(tmp_path / "a.png")
    np.testing.assert_allclose(found.numpy()[0], pixels / highest, rtol=1e-6)


def test_colours_come_first_and_transparency_goes(tmp_path: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (4, 5, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    expected = np.moveaxis(pixels[..., :3], -1, 0) / 255
    np.testing.assert_allclose(load(tmp_path / "a.png").numpy(), expected, rtol=1e-6)
    Image.fromarray(pixels[..., :3]).save(tmp_path / "a.jpg")
    assert load(tmp_path / "a.jpg").shape == (3, 4, 5)
    Image.fromarray(pixels[..., 0]).convert("P").save(tmp_path / "palette.png")
    assert load(tmp_path / "palette.png").shape == (3, 4, 5)
    Image.fromarray(pixels[..., 0]).convert("LA").save(tmp_path / "grey.png")
    np.testing.assert_allclose(load(tmp_path / "grey.png").numpy()[0], pixels[..., 0] / 255)


def test_a_missing_class_is_named_with_its_names(public: Public) -> None:
    root = public("no", "vort")
    with pytest.raises(DataNotFoundError, match=r"train has no folder of the class cdm.*sphere"):
        list_images(root)


def test_strange_and_double_folders_are_named(public: Public) -> None:
    root = public("no", "sphere", "vort")
    (root / "val" / "wdm").mkdir()
    with pytest.raises(DataFormatError, match=r"val, but got wdm.*no_substructure \| cdm, sphere"):
        list_images(root)
    (root / "val" / "wdm").rename(root / "val" / "cdm")
    with pytest.raises(DataFormatError, match="cdm and sphere beside it are the same class"):
        list_images(root)


def test_folders_without_images_are_named(public: Public, tmp_path: Path) -> None:
    root = public("no", "sphere", "vort", n=0)
    with pytest.raises(DataNotFoundError, match=r"train/no holds no images \(\.npy, \.fits"):
        list_images(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataNotFoundError, match=r"splits \(train, val, test\) with folders"):
        list_images(tmp_path / "empty")
    with pytest.raises(DataNotFoundError, match="none does not exist"):
        list_images(tmp_path / "none")


class Evil:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("evil"),)  # type: ignore[return-value]


def test_arrays_of_objects_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros((3, 3)), Evil()]
    with pytest.raises(DataFormatError, match=r"a\.npy is refused: it holds Python objects"):
        load(saved(tmp_path / "a.npy", ragged))
    assert not Path("evil").exists()


def test_images_of_another_size_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npy", np.zeros((1, 4, 4)))
    assert load(path, shape=(1, 4, 4)).shape == (1, 4, 4)
    with pytest.raises(DataFormatError, match=r"shape \(1, 5, 5\) like.*a\.npy has \(1, 4, 4\)"):
        load(path, shape=(1, 5, 5))
    with pytest.raises(DataFormatError, match=r"\(H, W\) or \(C, H, W\) pixels, but got \(7,\)"):
        load(saved(path, np.zeros(7)))


def test_pixels_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    pixels = np.array([[0.0, np.nan], [np.inf, 1e300]])
    with pytest.raises(DataFormatError, match=r"a\.npy has 3 pixels that are NaN or infinite"):
        load(saved(tmp_path / "a.npy", pixels))


@pytest.mark.parametrize("suffix", ["npy", "fits", "png", "jpg"])
@pytest.mark.parametrize("data", [b"", b"damaged"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    with pytest.raises(DataFormatError, match=rf"a\.{suffix}"):
        load(path)


@pytest.mark.parametrize("suffix", ["npy", "fits", "png"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    pixels = np.random.default_rng(3).integers(0, 256, (80, 80), dtype=np.uint8)
    if suffix == "npy":
        np.save(path, pixels)
    elif suffix == "fits":
        fits.PrimaryHDU(pixels).writeto(path)
    else:
        Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataFormatError, match=rf"a\.{suffix} cannot be read"):
        load(path)


def test_other_files_and_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataFormatError, match=r"\.npy, \.fits, .*a\.gif"):
        load(tmp_path / "a.gif")
    with pytest.raises(DataFormatError, match=r"expected numbers in .*a\.npy, but got <U"):
        load(saved(tmp_path / "a.npy", np.array([["a"]])))


@pytest.mark.real_data
def test_a_real_lens_is_read(shared_data: Path) -> None:
    path = shared_data / "lenses" / "slacs0946+1006" / "data.fits"
    if not path.is_file():
        pytest.skip("the lens is absent")
    image = load(path)
    assert image.ndim == 3
    np.testing.assert_array_equal(image[0].numpy(), fits.getdata(path).astype(np.float32))
