"""Says below which probability a class is unsure."""

from __future__ import annotations

from torch import Tensor

from datagen.errors import ConfigError


def check_coverage(coverage: float) -> float:
    """Return the share of images that a classifier must be sure of.

    Raises:
        ConfigError: It is not in (0, 1].
    """
    if not 0.0 < coverage <= 1.0:
        raise ConfigError(
            f"expected 0 < model.calibration.coverage <= 1, but got coverage = {coverage}", coverage
        )
    return float(coverage)


def unsure_threshold(confidence: Tensor, coverage: float) -> float:
    """Return the confidence below which an image is unsure.

    Args:
        confidence: Highest probability of each validation image (n,).
        coverage: Share of the images that stay.

    Returns:
        A confidence that at least this share of the images reaches; 0 without images.
    """
    if not len(confidence):
        return 0.0
    ordered = confidence.sort(descending=True).values
    n_kept = max(1, round(coverage * len(ordered)))
    return float(ordered[n_kept - 1])
