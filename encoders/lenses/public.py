"""Public sets of lens images: a folder per split and class, or one folder without labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from datagen.errors import DataFormatError, DataNotFoundError

# Names of a class's folder, in the order of the labels.
FOLDERS = {
    "no_sub": ("no_sub", "no", "no_substructure"),
    "cdm": ("cdm", "sphere"),
    "vortex": ("vortex", "vort", "axion"),
}
SPLITS = ("train", "val", "test")
LABELS = {name: label for label, names in enumerate(FOLDERS.values()) for name in names}
# What a pixel of integers may hold at most, by Pillow's name of the mode; floats stay as they are.
FULL_SCALE = {"L": 255, "RGB": 255, "I;16": 65535, "I": 65535, "F": 1}


@dataclass(frozen=True)
class ImageRecord:
    """One image file.

    Args:
        path: The file.
        label: Its class, a position in CLASSES; None where the folder has no classes.
        split: train, val, test, or predict where the folder has no splits.
    """

    path: Path
    label: int | None
    split: str


def list_images(root: Path, name: str = "data.data_dir") -> list[ImageRecord]:
    """List the images of `<root>/{train,val,test}/<class>/` or, without classes, of `<root>/`.

    Args:
        root: Folder of a public set with at least one of the splits, or of images to predict on.
        name: What users know the folder as, for messages.

    Returns:
        Sorted by split, class and name.

    Raises:
        DataNotFoundError: The folder, a class or all images are missing.
        DataFormatError: The folder of a class has a name that is not known, or a class has two.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataNotFoundError(f"{name} = {root} does not exist", str(root))
    splits = [split for split in SPLITS if (root / split).is_dir()]
    if splits:
        return [
            ImageRecord(path, label, split)
            for split in splits
            for label, folder in enumerate(class_folders(root / split))
            for path in _images(folder)
        ]
    return [ImageRecord(path, None, "predict") for path in _images(root)]


def class_folders(split: Path) -> list[Path]:
    """Return the folders of the classes of a split, in the order of the labels.

    Raises:
        DataNotFoundError: A class has no folder.
        DataFormatError: A folder has a name that is not known, or a class has two folders.
    """
    found: dict[int, Path] = {}
    for folder in _visible(split):
        if not folder.is_dir():
            continue
        label = LABELS.get(folder.name.lower())
        if label is None:
            raise DataFormatError(
                f"expected folders of classes in {split}, but got {folder.name}; the names are "
                + " | ".join(", ".join(names) for names in FOLDERS.values()),
                folder.name,
                tuple(LABELS),
            )
        if label in found:
            raise DataFormatError(
                f"{found[label]} and {folder.name} beside it are the same class; keep one of them",
                folder.name,
            )
        found[label] = folder
    for label, (name, names) in enumerate(FOLDERS.items()):
        if label not in found:
            raise DataNotFoundError(
                f"{split} has no folder of the class {name}; its name may be {', '.join(names)}",
                str(split),
                names,
            )
    return [found[label] for label in range(len(FOLDERS))]


def load(path: Path, shape: tuple[int, ...] | None = None) -> Tensor:
    """Read an image as it is; pictures of 8 or 16 bit are divided by the most a pixel can hold.

    Args:
        path: `.npy` with (H, W) or (C, H, W) numbers, `.fits`, `.png`, `.jpg` or `.jpeg`.
        shape: What all images of a set have, (C, H, W); None: any.

    Returns:
        (C, H, W) float32.

    Raises:
        DataFormatError: The file is damaged or of another format, holds Python objects (which are
            not read), values that are not finite, or an image of another shape.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise DataFormatError(
            f"expected an image {', '.join(READERS)}, but got {path}", str(path), tuple(READERS)
        )
    pixels = np.asarray(reader(path))
    if pixels.dtype.kind not in "buif":
        raise DataFormatError(f"expected numbers in {path}, but got {pixels.dtype}", str(path))
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or not pixels.size:
        raise DataFormatError(
            f"expected {path} to hold (H, W) or (C, H, W) pixels, but got {pixels.shape}",
            pixels.shape,
        )
    if shape is not None and pixels.shape != tuple(shape):
        raise DataFormatError(
            f"expected images of shape {tuple(shape)} like the first one, but {path} has "
            f"{pixels.shape}",
            pixels.shape,
            shape,
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        image = torch.from_numpy(pixels.astype(np.float32))
    n_bad = int((~torch.isfinite(image)).sum())
    if n_bad:
        raise DataFormatError(f"{path} has {n_bad} pixels that are NaN or infinite", str(path))
    return image


def _images(folder: Path) -> list[Path]:
    """Return the image files of a folder, sorted by name."""
    found = [path for path in _visible(folder) if path.suffix.lower() in READERS]
    if not found:
        raise DataNotFoundError(
            f"folder {folder} holds no images ({', '.join(READERS)}); a training set has folders "
            f"of splits ({', '.join(SPLITS)}) with folders of classes",
            str(folder),
            tuple(READERS),
        )
    return found


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _read_npy(path: Path) -> NDArray[np.generic]:
    try:
        pixels: NDArray[np.generic] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        if "allow_pickle" in str(error):
            raise DataFormatError(
                f"{path} is refused: it holds Python objects (ragged or pickled arrays), which "
                "could run code; save the pixels of each image alone with numpy.save",
                str(path),
            ) from error
        raise _damaged(path, error) from error
    return pixels


def _read_fits(path: Path) -> NDArray[np.generic]:
    try:
        with warnings.catch_warnings():
            # Of truncated files astropy warns before it fails.
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(path, memmap=False) as content:
                planes = [hdu.data for hdu in content if hdu.is_image and hdu.data is not None]
    except Exception as error:  # astropy raises whatever its parser meets in damaged bytes
        raise _damaged(path, error) from error
    if not planes:
        raise DataFormatError(f"{path} holds no image", str(path))
    return np.asarray(planes[0])


def _read_picture(path: Path) -> NDArray[np.generic]:
    """Read 8- or 16-bit pictures; palettes become colours, transparency is left out."""
    try:
        with Image.open(path) as picture:
            known = picture if picture.mode in FULL_SCALE else _known_mode(picture)
            pixels = np.asarray(known, dtype=np.float32) / FULL_SCALE[known.mode]
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from error
    return pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def _known_mode(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I;16"):
        return picture.convert("I")
    return picture.convert("L" if picture.mode in ("1", "LA", "La") else "RGB")


def _damaged(path: Path, error: Exception) -> DataFormatError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataFormatError(f"{path} cannot be read as an image: {reason}", str(path))


READERS: dict[str, Callable[[Path], NDArray[np.generic]]] = {
    ".npy": _read_npy,
    ".fits": _read_fits,
    ".png": _read_picture,
    ".jpg": _read_picture,
    ".jpeg": _read_picture,
}
