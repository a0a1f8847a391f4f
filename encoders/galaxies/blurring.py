"""Blur to the PSF of another exposure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from datagen.errors import ConfigError
from encoders.galaxies.draws import About, Draw, Spread
from encoders.galaxies.splines import polynomial

WINGS = (2.5, 3.5, 4.5, 5.5)


class Blur:
    """Draws the PSF that stamps get; `encoders.galaxies.geometry.Resampling` applies it.

    A PSF keeps its shape and becomes wider, so that its FWHM is what was drawn. Of Gaussians, this
    is a Gaussian whose FWHM makes up the difference in quadrature; with the wings that PSFs have,
    quadrature would miss the FWHM by up to a tenth. Stamps whose PSF is wider or not known stay as
    they are.

    Args:
        target: Arguments of `Spread`: FWHM of the PSF [arcsec].
        wings: Exponent beta of Moffat's profile of the PSF, one of `WINGS`; None: Gaussian.
        hides: See `encoders.galaxies.draws.Op`.

    Raises:
        ConfigError: There is no closed form for these wings.
    """

    def __init__(
        self, target: Mapping[str, float], wings: float | None, hides: Sequence[str]
    ) -> None:
        if wings is not None and wings not in WINGS:
            raise ConfigError(
                f"expected wings to be null or one of {WINGS}, but got wings = {wings}; take the "
                "nearest",
                wings,
                WINGS,
            )
        self.target, self.wings, self.hides = Spread(**target), wings, tuple(hides)

    def drawn(self, about: About, draw: Draw) -> Tensor:
        """Return the FWHM that stamps get (B,) [arcsec], at least the one that they have."""
        return torch.maximum(self.target.drawn(draw, "fwhm"), about.fwhm)


def transfer(radius: Tensor, before: Tensor, after: Tensor, wings: float | None) -> Tensor:
    """Return the Fourier transform of what makes a PSF of one FWHM to one of another.

    Args:
        radius: Frequencies (K, K) [cycles/px].
        before: FWHM of the PSF (B,) [px].
        after: Wanted FWHM, not smaller (B,) [px].
        wings: See `Blur`.

    Returns:
        From 0 to 1 (B, K, K); 1 where an FWHM is NaN.
    """
    before, after = (width.nan_to_num(nan=0.0)[:, None, None] for width in (before, after))
    if wings is None:
        excess = after.square() - before.square()
        return torch.exp(-(math.pi**2) / (4.0 * math.log(2.0)) * excess * radius.square())
    unit = math.pi / math.sqrt(2.0 ** (1.0 / wings) - 1.0)  # 2 pi times scale radius over FWHM
    near, far = unit * before * radius, unit * after * radius
    coefficients = bessel_coefficients(wings)
    ratio = polynomial(far, coefficients).div_(polynomial(near, coefficients))
    return ratio.mul_(near.sub_(far).exp_())


def bessel_coefficients(wings: float) -> list[float]:
    """Return c_k of a Moffat profile's transform, `e^-x sum c_k x^k`, x = 2 pi f scale radius.

    It is `2 (x/2)^(beta-1) K_(beta-1)(x) / Gamma(beta-1)`; for beta = n + 3/2 the sum is a reverse
    Bessel polynomial over its value at 0, `c_k = 2^k (2n-k)! n! / ((n-k)! k! (2n)!)`.
    """
    n = round(wings - 1.5)
    f = math.factorial
    return [2.0**k * f(2 * n - k) * f(n) / (f(n - k) * f(k) * f(2 * n)) for k in range(n + 1)]
