"""What brings labels and pixels to a common range, from the training split alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.prepared.tables import numbers

# A normal distribution has its standard deviation at so many median absolute deviations.
MAD_TO_SIGMA = 1.4826
# A frame of this share of the side of a stamp is sky.
FRAME = 1 / 16


def fit_labels(train: Table, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return mean and standard deviation of labels where they are finite.

    A label takes part in training as (value - mean) / std. std is 1 where all values are equal,
    so that such a label becomes 0. Labels without a finite value are left out.

    Args:
        train: Rows of the training split.
        names: Labels that are numbers.
    """
    found = {}
    for name in names:
        values = numbers(train, name)
        known = values[np.isfinite(values)]
        if len(known):
            std = float(known.std())
            # Rounding leaves a little where all values are equal.
            is_constant = bool((known == known[0]).all())
            found[name] = {
                "mean": float(known[0] if is_constant else known.mean()),
                "std": 1.0 if is_constant else std,
                "n": len(known),
                "unit": str(train[name].unit or ""),
            }
    return found


def sky_noise(sigmas: NDArray[np.float64]) -> tuple[float, int]:
    """Return the median noise of the sky of those stamps that have any, and their number.

    Args:
        sigmas: Noise per pixel of each stamp; nan where unknown, 0 without noise (n,).

    Raises:
        ConfigError: There is none.
    """
    known = sigmas[np.isfinite(sigmas) & (sigmas > 0)]
    if not len(known):
        raise ConfigError(
            "expected noise in the sky of training stamps, but it is 0 or unknown; set "
            "data_gen.stretch.softening, or another data_gen.stretch.suite",
            None,
        )
    return float(np.median(known)), len(known)


def frame_noise(stamps: NDArray[np.float32]) -> NDArray[np.float64]:
    """Measure the noise in the frame around stamps: 1.4826 times the median absolute deviation.

    Args:
        stamps: Images of one band (n, side, side); pixels that are not finite do not count.

    Returns:
        Noise per pixel (n,), nan where no pixel of the frame is finite.
    """
    side = stamps.shape[-1]
    width = max(1, round(FRAME * side))
    inside = np.zeros((side, side), bool)
    inside[width : side - width, width : side - width] = True
    noise = np.full(len(stamps), np.nan)
    for number, stamp in enumerate(stamps):
        pixels = np.asarray(stamp[~inside], np.float64)
        known = pixels[np.isfinite(pixels)]
        if len(known):
            noise[number] = MAD_TO_SIGMA * np.median(np.abs(known - np.median(known)))
    return noise
