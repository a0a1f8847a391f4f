"""X-rays of hot gas: beta models (Cavaliere & Fusco-Femiano 1976) with or without a cool core."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import gamma

from datagen.halos.cosmology import CM_PER_KPC, LSUN, Array
from datagen.halos.nfw import Nfw

# r_500 of an NFW halo of a cluster [r_200].
_R500 = 0.65
# Of a fully ionised gas with 0.3 solar metals: mass per electron [proton masses], electrons per
# hydrogen nucleus.
_PER_ELECTRON, _ELECTRONS = 1.17, 1.2
_MSUN_KPC3_TO_PROTONS = 1.98841e33 / CM_PER_KPC**3 / 1.67262e-24
# Bremsstrahlung: 1.4e-27 sqrt(T) n_e n_H sum(Z^2 n_i) / n_H g [erg/s/cm^3] with 1.4 ions and
# g = 1.2 (Rybicki & Lightman 1979, eq. 5.15b); at 5 keV.
_COOLING, _KELVIN = 1.4e-27 * 1.4 * 1.2, 5.0 * 1.16045e7
# A cool core emits so much more at its centre, within so much of r_c.
_COOL_BRIGHT, _COOL_SIZE = 3.0, 0.3


@dataclass(frozen=True)
class Gas:
    """The gas of one cluster.

    Args:
        density: Of the centre without a cool core [Msun/kpc^3].
        brightness: Of the centre without a cool core [Lsun/kpc^2].
        core: r_c [kpc].
        beta: Slope.
        is_cool: Whether a second, denser core lies inside.
    """

    density: float
    brightness: float
    core: float
    beta: float
    is_cool: bool

    def surface(self, r2: Array) -> Array:
        """Return S = S_0 (1 + R^2 / r_c^2)^(1/2 - 3 beta) [Lsun/kpc^2] at squared radii."""
        power = 0.5 - 3.0 * self.beta
        found = (1.0 + r2 / self.core**2) ** power
        if self.is_cool:
            found = found + _COOL_BRIGHT * (1.0 + r2 / (_COOL_SIZE * self.core) ** 2) ** power
        return self.brightness * found

    def column(self, r2: Array) -> Array:
        """Return Sigma = Sigma_0 (1 + R^2 / r_c^2)^(1/2 - 3 beta / 2) [Msun/kpc^2].

        A cool core holds as much as makes its emission alone, which goes with density squared.

        Args:
            r2: Squared radii [kpc^2].
        """
        power = 0.5 - 1.5 * self.beta
        found = (1.0 + r2 / self.core**2) ** power
        if self.is_cool:
            share = math.sqrt(_COOL_BRIGHT * _COOL_SIZE)
            found = found + share * (1.0 + r2 / (_COOL_SIZE * self.core) ** 2) ** power
        return self.density * _depth(1.5 * self.beta, self.core) * found


def emission(halo: Nfw, fraction: float, core: float, beta: float, is_cool: bool) -> Gas:
    """Return the emission of a cluster's gas.

    rho_0 is such that gas makes up `fraction` of the mass within r_500; the temperature is
    5 keV (M_200 / 5e14)^(2/3).

    Args:
        halo: One halo, arrays of shape ().
        fraction: Share of gas within r_500.
        core: r_c [kpc].
        beta: Slope.
        is_cool: Whether there is a cool core.
    """
    r_500 = _R500 * float(halo.r_200)
    rho_0 = fraction * float(halo.mass(np.array(r_500))) / _beta_mass(r_500, core, beta)
    electrons = rho_0 * _MSUN_KPC3_TO_PROTONS / _PER_ELECTRON
    kelvin = _KELVIN * (float(halo.mass(halo.r_200)) / 5e14) ** (2.0 / 3.0)
    per_volume = _COOLING * math.sqrt(kelvin) * electrons**2 / _ELECTRONS * CM_PER_KPC**3 / LSUN
    return Gas(rho_0, float(per_volume) * _depth(3.0 * beta, core), core, beta, is_cool)


def _depth(power: float, core: float) -> float:
    """Return the integral of (1 + z^2 / r_c^2)^-power over all depths [kpc]."""
    return math.sqrt(math.pi) * float(gamma(power - 0.5) / gamma(power)) * core


def _beta_mass(r: float, core: float, beta: float) -> float:
    """Return the mass within r of (1 + r^2 / r_c^2)^(-3 beta / 2) [kpc^3]."""
    x = np.linspace(0.0, r, 513)
    integrand = 4.0 * math.pi * x**2 * (1.0 + (x / core) ** 2) ** (-1.5 * beta)
    return float(np.trapezoid(integrand, x))
