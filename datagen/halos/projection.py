"""Surface densities of halos: projected along the depth, flattened, and tabulated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datagen.halos.core import Core, density
from datagen.halos.cosmology import Array
from datagen.halos.nfw import Nfw
from datagen.halos.tables import interpolate

# Nodes of the surface density in ln R, from 0.2 to 16 000 kpc, and of the depth.
_LN_START, _LN_END, _N_RADII, _N_DEPTHS = math.log(0.2), math.log(16_000.0), 160, 160
_LN_STEP = (_LN_END - _LN_START) / (_N_RADII - 1)
_LN_R = _LN_START + _LN_STEP * np.arange(_N_RADII)
_Z_MIN = 0.1
# What counts as r_round without a core [kpc], and as no surface density [Msun/kpc^2].
_NO_CORE, _TINY = 1e-3, 1e-200


def tabulate(halo: Nfw, core: Core, depth: float, softening: float) -> Array:
    """Return ln of the surface density of round halos at the nodes, in two parts that add up.

    The integral of rho(sqrt(R^2 + z^2 + softening^2)) over a column of length `depth`, centred on
    the halo. The inner part has the density rho exp(-(r / r_round)^2), the outer part the rest:
    each may then be flattened in its own way, and the mass stays what it was.

    Args:
        halo: Halos, (...).
        core: Their cores, (...).
        depth: Length of the column [kpc].
        softening: Length below which the density is smoothed [kpc].

    Returns:
        Inner and outer part, (..., 2, K) [ln Msun/kpc^2]; without a core the inner one is tiny.
    """
    ln_z = np.linspace(math.log(_Z_MIN), math.log(0.5 * depth), _N_DEPTHS)
    z = np.exp(ln_z)
    weight = z * (ln_z[1] - ln_z[0])
    weight[[0, -1]] *= 0.5
    weight[0] += _Z_MIN
    radii = np.sqrt(np.exp(2.0 * _LN_R)[:, None] + z**2 + softening**2).ravel()
    shape = np.shape(core.r_1)
    rho = density(halo, core, np.broadcast_to(radii, (*shape, radii.size)))
    r_round = np.maximum(core.r_round, _NO_CORE)[..., None]
    inner = rho * np.exp(-((radii / r_round) ** 2))
    parts = np.stack([inner, rho - inner], -2).reshape(*shape, 2, _N_RADII, _N_DEPTHS)
    columns: Array = np.log(np.maximum(parts @ (2.0 * weight), _TINY))
    return columns


def at_radius(table: Array, r2: Array) -> Array:
    """Return the surface density at squared radii from one table, (M,) [Msun/kpc^2]."""
    ln_r = 0.5 * np.log(np.maximum(r2, math.exp(2.0 * _LN_START)))
    return np.exp(interpolate(table, _LN_START, _LN_STEP, ln_r))


@dataclass(frozen=True)
class Ellipse:
    """What an ellipsoid with x' A x < m^2 looks like from a direction.

    Args:
        form: Symmetric matrix F of the projected ellipses, m^2 = X' F X, (2, 2).
        stretch: Factor of the surface density; with F it conserves mass.
    """

    form: Array
    stretch: float

    def radius2(self, x: Array, y: Array) -> Array:
        """Return the squared elliptic radius m^2 at positions [kpc^2]."""
        (a, b), (_, c) = self.form
        squared: Array = a * x**2 + 2.0 * b * x * y + c * y**2
        return squared

    def axis_ratio(self) -> float:
        """Return minor over major axis."""
        low, high = np.linalg.eigvalsh(self.form)
        return float(np.sqrt(low / high))

    def angle(self) -> float:
        """Return the angle of the major axis from +x, in [0, pi) [rad]."""
        _, vectors = np.linalg.eigh(self.form)
        return float(np.arctan2(vectors[1, 0], vectors[0, 0]) % math.pi)


def project(axes: Array, rotation: Array) -> Ellipse:
    """Project an ellipsoid along the third axis of the sky (Binney 1985).

    With A = R diag(1 / axes^2) R' the line of sight is integrated in closed form: F = A_xx - A_xz
    A_zx / A_zz, and a function of m alone has its round projection times A_zz^(-1/2).

    Args:
        axes: Half axes, of product 1, (3,).
        rotation: From the ellipsoid's own axes to (x, y, depth), (3, 3).
    """
    matrix = rotation @ np.diag(axes**-2.0) @ rotation.T
    column = matrix[:2, 2]
    form = matrix[:2, :2] - np.outer(column, column) / matrix[2, 2]
    return Ellipse(form, float(matrix[2, 2] ** -0.5))


def flattened(axes: Array, share: float) -> Array:
    """Return axes whose ratios are closer to 1, of product 1: share 1 keeps them, 0 is a sphere."""
    weaker = 1.0 - share * (1.0 - axes / axes.max())
    normalised: Array = weaker / np.prod(weaker) ** (1.0 / 3.0)
    return normalised
