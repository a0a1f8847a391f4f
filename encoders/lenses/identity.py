"""Which simulated images are the same, and what an image was in the training of a classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from datagen.files import content_hash
from encoders.data import assign_split

TASK = "lenses"
# Settings of draws that are compared, which do nothing where substructure is drawn once.
OF_REPEATED_DRAWS = ("max_draws", "n_judged")


def identity_of(settings: Mapping[str, Any]) -> str:
    """Identify simulated images: sets with one identity hold the same image under a number.

    It is the hash of the seed and of the settings of the lens that change pixels, flaws applied.
    How many images a file holds, the name of the preset and whether Delta chi2 is computed change
    none; device and number format change them by 1e-5 of the peak.

    Args:
        settings: With `seed` and `lens`, plain nested values as `settings.json` holds them.
    """
    lens = _plain(settings["lens"])
    flaws = lens.pop("flaws", {})
    if lens.pop("legacy_flaws", False):
        for name, value in flaws.items():
            *path, last = name.split(".")
            node = lens
            for key in path:
                node = node[key]
            node[last] = value
    lens.pop("name", None)
    substructure = lens.get("substructure", {})
    substructure.pop("has_delta_chi2", None)
    if not substructure.get("min_delta_chi2"):
        for name in OF_REPEATED_DRAWS:
            substructure.pop(name, None)
    return content_hash({"lens": lens, "seed": int(settings.get("seed", 0))})


def image_name(index: int) -> str:
    """Return the name of a simulated image, which decides its split."""
    return f"lens_{index:09d}"


def training_hash(identity: str, names: Iterable[str]) -> str:
    """Identify the images that train, by their set and their names in its order."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return content_hash({"identity": identity, "names": digest})


def split_of(card: Mapping[str, Any], index: int) -> str:
    """Return what an image of the set of a card was in the training: train, val or test.

    Args:
        card: Of a classifier that was trained on images with the identity of the set.
        index: Number of the image.

    Returns:
        Empty if it had no part in a training that simulated its images. Whether `data.n_train`
        left a training image out is not known from its number alone.
    """
    if "ranges" not in card:
        return assign_split(image_name(index), card["split_seed"], card["splits"])
    for split, (first, end) in card["ranges"].items():
        if first <= index and (end is None or index < end):
            return str(split)
    return ""


def _plain(value: Any) -> Any:  # noqa: ANN401 - plain nested values
    """Return a copy in which whole numbers are no other than equal fractions."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if is_number else value
