"""Galaxies drawn from the relations of a suite."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from datagen.galaxies import physics
from datagen.galaxies.settings import GalaxiesSettings
from datagen.galaxies.streams import Array, Flags

# Limits of B/T, and the largest share of a disc's light in its clumps.
BULGE_RANGE = (0.0, 0.95)
_MOST_CLUMPS = 0.5
# What the relations are written about [log10 Msun].
SSFR_PIVOT, SIZE_PIVOT, BULGE_PIVOT = 10.5, 10.7, 10.4
# sSFR at which `clump_share` holds [log10 1/yr].
_CLUMP_PIVOT = -9.9


@dataclass(frozen=True)
class Galaxies:
    """Galaxies, (n,) each.

    Args:
        log_mass: Stellar mass [log10 Msun].
        is_quenched: Whether star formation has ended.
        log_ssfr: Star formation over mass [log10 1/yr].
        r_eff: Half-light radius of bulge and disc together, along the major axis [kpc].
        bulge: Light of the bulge over that of bulge and disc, B/T.
        clumps: Light of clumps over that of the disc.
    """

    log_mass: Array
    is_quenched: Flags
    log_ssfr: Array
    r_eff: Array
    bulge: Array
    clumps: Array

    def one(self, k: int) -> Galaxies:
        """Return one of them, arrays of shape (1,)."""
        return Galaxies(*(values[k : k + 1] for values in vars(self).values()))


def draw_galaxies(
    settings: GalaxiesSettings,
    log_mass: Array,
    u: Array,
    growth: Array | float = 0.0,
    quenching: float = 0.0,
) -> Galaxies:
    """Draw galaxies of given masses.

    Args:
        settings: Their relations.
        log_mass: Stellar mass, (n,) [log10 Msun].
        u: Uniform numbers, (3, n).
        growth: Share of each disc that mergers have turned into bulge, (n,).
        quenching: Share of star-forming ones that their surroundings quench.
    """
    quenched = quenched_share(settings, log_mass)
    is_quenched = u[0] < quenched + (1.0 - quenched) * quenching
    ssfr = np.where(
        is_quenched,
        settings.log_ssfr_quenched,
        settings.log_ssfr + settings.log_ssfr_slope * (log_mass - SSFR_PIVOT),
    )
    log_ssfr = ssfr + settings.log_ssfr_scatter * ndtri(u[1])
    late = settings.log_size_late + settings.log_size_late_slope * (log_mass - SIZE_PIVOT)
    early = settings.log_size_early + settings.log_size_early_slope * (log_mass - SIZE_PIVOT)
    scatter = (settings.log_size_early_scatter, settings.log_size_late_scatter)
    size = np.where(is_quenched, early, late) + np.where(is_quenched, *scatter) * ndtri(u[2])
    late_bulge = settings.bulge + settings.bulge_slope * (log_mass - BULGE_PIVOT)
    bulge = np.where(is_quenched, settings.bulge_quenched, late_bulge) + settings.bulge_shift
    bulge = np.clip(bulge, *BULGE_RANGE)
    clumps = settings.clump_share * 10.0 ** (log_ssfr - _CLUMP_PIVOT)
    return Galaxies(
        log_mass=log_mass,
        is_quenched=is_quenched,
        log_ssfr=log_ssfr,
        r_eff=10.0 ** (size + settings.log_size_shift),
        bulge=np.clip(bulge + (1.0 - bulge) * growth, *BULGE_RANGE),
        clumps=np.minimum(clumps, _MOST_CLUMPS),
    )


def quenched_share(settings: GalaxiesSettings, log_mass: Array) -> Array:
    """Return 1 / (1 + 10^(-slope (log M - M_q))), (n,)."""
    exponent = -settings.quenching_slope * (log_mass - settings.quenching_mass)
    return 1.0 / (1.0 + 10.0**exponent)


@dataclass(frozen=True)
class Light:
    """Fluxes of the parts of galaxies, (n, bands) each [nanomaggies].

    Args:
        bulge: Of the bulge.
        disc: Of the smooth disc.
        clumps: Of its clumps.
    """

    bulge: Array
    disc: Array
    clumps: Array

    @property
    def total(self) -> Array:
        """Return the sum, (n, bands)."""
        return self.bulge + self.disc + self.clumps

    def one(self, k: int) -> Light:
        """Return the light of one of them, arrays of shape (1, bands)."""
        return Light(*(values[k : k + 1] for values in vars(self).values()))


def light(galaxies: Galaxies, z: Array, bands: list[str]) -> Light:
    """Return the light of the parts of galaxies; shares hold in i, each part has its own colour.

    Stars form in the disc alone.

    Args:
        galaxies: Galaxies, (n,).
        z: Their redshifts, (n,).
        bands: Out of g, r, i, z.
    """
    in_i = physics.flux(physics.magnitude_i(galaxies.log_mass, galaxies.log_ssfr, z))[:, None]
    of_disc = galaxies.log_ssfr - np.log10(1.0 - galaxies.bulge)
    red = physics.relative_fluxes(np.full_like(z, physics.BULGE_LOG_SSFR), z, bands)
    blue = physics.relative_fluxes(of_disc, z, bands)
    bluest = physics.relative_fluxes(np.full_like(z, physics.CLUMP_LOG_SSFR), z, bands)
    bulge, clumps = galaxies.bulge[:, None], galaxies.clumps[:, None]
    return Light(
        bulge=in_i * bulge * red,
        disc=in_i * (1.0 - bulge) * (1.0 - clumps) * blue,
        clumps=in_i * (1.0 - bulge) * clumps * bluest,
    )
