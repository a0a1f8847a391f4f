"""Statistics that outliers do not move."""

from __future__ import annotations

# Standard deviation of a normal distribution, in units of its median absolute deviation.
MAD_TO_SIGMA = 1.4826
