"""The isothermal sphere: phi'' + 2 phi' / x = e^-phi with phi(0) = phi'(0) = 0, as a table.

Density is rho_0 y(r / r_0) with y = e^-phi, mass within r is 4 pi rho_0 r_0^3 m(r / r_0) with
m = x^2 phi', velocity dispersion in one dimension s = r_0 sqrt(4 pi G rho_0).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.integrate import solve_ivp

from datagen.halos.cosmology import Array

# Mass over 4 pi r^3 rho rises from 1/3 to its largest value here, then oscillates.
X_MAX = 22.5
_X_MIN, _N = 1e-3, 2001


@dataclass(frozen=True)
class Table:
    """The isothermal sphere at evenly spaced ln x.

    Args:
        ln_x: Natural logarithm of the radius in units of r_0, (n,).
        ln_y: Natural logarithm of the density in units of rho_0, (n,).
        q: m / (x^3 y), rising, (n,).
    """

    ln_x: Array
    ln_y: Array
    q: Array


@cache
def table() -> Table:
    """Return the table, computed once."""
    ln_x = np.linspace(np.log(_X_MIN), np.log(X_MAX), _N)

    def slope(t: float, state: Array) -> list[float]:
        x = np.exp(t)
        # State: phi and x phi', in the variable ln x.
        return [state[1], x**2 * np.exp(-state[0]) - state[1]]

    first = [_X_MIN**2 / 6.0, _X_MIN**2 / 3.0]
    found = solve_ivp(slope, (ln_x[0], ln_x[-1]), first, t_eval=ln_x, rtol=1e-10, atol=1e-14)
    phi, x_dphi = found.y
    return Table(ln_x, -phi, x_dphi * np.exp(phi - 2.0 * ln_x))


def half_density_radius() -> float:
    """Return the radius at which the density is half that of the centre [r_0]."""
    sphere = table()
    return float(np.exp(np.interp(np.log(2.0), -sphere.ln_y, sphere.ln_x)))
