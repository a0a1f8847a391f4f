"""Doubly truncated isothermal ellipsoids, round: subhalos, galaxies, and stars of clusters.

rho ~ 1 / ((1 + r^2 / a^2) (1 + r^2 / s^2)) (Eliasdottir et al. 2007, arXiv:0710.5636): a core of
radius a, and a finite mass m as the density falls with r^-4 beyond s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from datagen.halos.cosmology import Array


@dataclass(frozen=True)
class Dpie:
    """Masses of this profile, (...).

    Args:
        mass: Total mass [Msun].
        core: Core radius a [kpc], > 0.
        edge: Truncation radius s [kpc], > a; about 4/3 of the radius that holds half of the
            projected mass.
    """

    mass: Array
    core: Array
    edge: Array

    def enclosed(self, r: Array) -> Array:
        """Return the mass within r [Msun].

        (2 m / pi) (s arctan(r / s) - a arctan(r / a)) / (s - a).
        """
        inner = self.core * np.arctan(r / self.core)
        outer = self.edge * np.arctan(r / self.edge)
        return 2.0 / math.pi * self.mass * (outer - inner) / (self.edge - self.core)

    def enclosed_at(self, r: Array) -> Array:
        """Return the mass within radii of which each object has its own, (..., K) [Msun]."""
        parts = (np.asarray(part)[..., None] for part in (self.mass, self.core, self.edge))
        return Dpie(*parts).enclosed(r)

    def projected(self, r2: Array) -> Array:
        """Return the surface density at a squared projected radius [Msun/kpc^2].

        m / (2 pi (s - a)) (1 / sqrt(a^2 + R^2) - 1 / sqrt(s^2 + R^2)).
        """
        shape = (self.core**2 + r2) ** -0.5 - (self.edge**2 + r2) ** -0.5
        return self.mass / (2.0 * math.pi * (self.edge - self.core)) * shape
