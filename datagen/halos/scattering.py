"""How often particles of a halo scatter off each other."""

from __future__ import annotations

import math
from dataclasses import dataclass

from datagen.halos.cosmology import CM2_PER_G, GYR, Array

# <v_rel> of particles with a Maxwellian distribution, in units of s.
RELATIVE = 4.0 / math.sqrt(math.pi)


@dataclass(frozen=True)
class Scattering:
    """Self-interaction during the life of halos, (...).

    Args:
        cross_section: sigma_0/m at low velocity [cm^2/g], > 0.
        age: Time since the halo formed [Gyr].
        velocity: w in sigma = sigma_0 / (1 + <v_rel>^2 / w^2) [km/s]; None: no dependence.
    """

    cross_section: Array
    age: Array
    velocity: float | None = None

    def at_dispersion(self, s_1d: Array) -> Array:
        """Return sigma/m where particles have a dispersion in one dimension [cm^2/g]."""
        if self.velocity is None:
            return self.cross_section
        return self.cross_section / (1.0 + (RELATIVE * s_1d / self.velocity) ** 2)

    def density(self, s_1d: Array) -> Array:
        """Return the density at which a particle scatters once [Msun/kpc^3].

        1 / ((sigma/m) <v_rel> t).
        """
        sigma = self.at_dispersion(s_1d) * CM2_PER_G
        density: Array = GYR / (sigma * RELATIVE * s_1d * self.age)
        return density
