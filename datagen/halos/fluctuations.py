"""Random fields: correlated background, noise of particles, and maps without a halo."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from datagen.halos.cosmology import Array


def correlated(white: Array, slope: float) -> Array:
    """Return a Gaussian field of mean 0 and variance 1 with power spectrum k^-slope, (side, side).

    Args:
        white: Independent normal numbers, twice as wide as the field, so that its borders do not
            know of each other, (2 side, 2 side).
        slope: Of the power spectrum.
    """
    n = len(white)
    k = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None, :])
    k[0, 0] = 1.0
    amplitude = k ** (-0.5 * slope)
    amplitude[0, 0] = 0.0
    # All k of the full plane: those of the half plane count twice, but for its two real columns.
    twice = np.full(k.shape[1], 2.0)
    twice[0] = 1.0
    if n % 2 == 0:
        twice[-1] = 1.0
    variance = (amplitude**2 * twice).sum() / n**2
    field = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=white.shape) / np.sqrt(variance)
    corner: Array = field[: n // 2, : n // 2]
    return corner


def lognormal(mean: float, scatter: float, field: Array) -> Array:
    """Return a positive field of given mean and scatter [dex] from a Gaussian one."""
    sigma = scatter * np.log(10.0)
    values: Array = mean * np.exp(sigma * field - 0.5 * sigma**2)
    return values


def particle_noise(mean: Array, n_particles: Array, white: Array) -> Array:
    """Return a map as particles sample it: a gamma distribution about the mean, always positive.

    Its shape is the number of particles that a pixel averages, so that it has the relative
    variance of a Poisson number. Values are the quantiles of normal numbers, by the approximation
    of Wilson & Hilferty (1931): (1 - 1 / 9n + z / (3 sqrt(n)))^3.

    Args:
        mean: Map, (...).
        n_particles: Particles that make up a pixel, (...), at least 8 or so.
        white: Independent normal numbers, (...).
    """
    root = 1.0 - 1.0 / (9.0 * n_particles) + white / (3.0 * np.sqrt(n_particles))
    values: Array = mean * np.maximum(root, 0.05) ** 3
    return values


def shuffled(maps: Array, order: NDArray[np.int64]) -> Array:
    """Return maps (C, side, side) with their pixels in another order, the same in all channels."""
    flat = maps.reshape(len(maps), -1)
    return flat[:, order].reshape(maps.shape)


def random_phases(maps: Array, white: Array) -> Array:
    """Return maps (C, side, side) whose logarithms keep their power spectra, with random phases.

    Phases are those of white noise, (side, side), the same in all channels.
    """
    phase = np.fft.rfft2(white)
    phase = phase / np.abs(phase)
    spectrum = np.fft.rfft2(np.log(maps))
    # The mean stays.
    phase[0, 0] = np.sign(spectrum[0, 0, 0])
    scrambled = np.abs(spectrum) * phase
    scrambled[:, 0, 0] = spectrum[:, 0, 0]
    return np.exp(np.fft.irfft2(scrambled, s=white.shape))
