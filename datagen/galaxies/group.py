"""How one group is seen from one direction: a brightest galaxy, light around it, satellites."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import galsim
import numpy as np
from scipy.special import ndtri
from scipy.stats import poisson

from datagen.galaxies import physics
from datagen.galaxies.galaxy import disc_profile, spheroid
from datagen.galaxies.history import Epoch, History
from datagen.galaxies.objects import GroupSettings
from datagen.galaxies.population import Galaxies, draw_galaxies, light
from datagen.galaxies.render import Component
from datagen.galaxies.settings import GalaxiesSettings, GalaxySettings, MergerSettings
from datagen.galaxies.streams import Array, Numbers, Streams, quantile, rotation

# What the relations are written about [log10 Msun].
MASS_PIVOT = 13.5
# Axis ratio of brightest galaxies seen edge-on.
_BCG_THICKNESS = 0.75
# GAP of a group without satellites [mag].
_NO_GAP = 10.0


@dataclass(frozen=True)
class Halos:
    """What groups of a suite are before their galaxies are drawn, (n,) each.

    Args:
        log_mass: M_200c [log10 Msun].
        concentration: r_200 / r_s of the satellites.
        n_satellites: How many.
        log_bcg_mass: Stellar mass of the brightest galaxy [log10 Msun].
    """

    log_mass: Array
    concentration: Array
    n_satellites: Numbers
    log_bcg_mass: Array


def draw_halos(settings: GroupSettings, u: Array) -> Halos:
    """Draw groups from uniform numbers, (4, n)."""
    log_mass = quantile(settings.distribution("log_mass"), u[0])
    excess = log_mass - MASS_PIVOT
    mean = settings.n_satellites * 10.0 ** (settings.n_satellites_slope * excess)
    bcg = settings.log_bcg_mass + settings.log_bcg_mass_slope * excess
    return Halos(
        log_mass=log_mass,
        concentration=quantile(settings.distribution("concentration"), u[1]),
        n_satellites=np.asarray(poisson.ppf(u[2], mean), np.int64),
        log_bcg_mass=bcg + settings.log_bcg_mass_scatter * ndtri(u[3]),
    )


def nfw_radius(u: Array, concentration: float) -> Array:
    """Return radii of an NFW profile (1997, ApJ 490, 493) from uniform numbers [r_200]."""
    radii = np.linspace(0.0, 1.0, 1001)
    x = concentration * radii
    within = np.log1p(x) - x / (1.0 + x)
    found: Array = np.interp(u * within[-1], within, radii)
    return found


@dataclass(frozen=True)
class Members:
    """The galaxies of one group.

    Args:
        bcg: The brightest galaxy, arrays of shape (1,).
        bcg_axes: Its own axes, (3, 3).
        satellites: The others, arrays of shape (n,).
        axes: Their own axes, (n, 3, 3).
        places: Where they are in their own halo, (n, 3) [r_200].
        u: Uniform number that decides which of them came with the last merger, (n,).
    """

    bcg: Galaxies
    bcg_axes: Array
    satellites: Galaxies
    axes: Array
    places: Array
    u: Array


@dataclass(frozen=True)
class Group:
    """A group at one time.

    Args:
        settings: How groups are.
        galaxies: How galaxies are.
        mergers: How mergers are seen.
        log_mass: M_200c [log10 Msun].
        concentration: r_200 / r_s of the satellites.
        members: Its galaxies.
        z: Redshift.
        history: Mergers before it is seen.
        bands: Bands.
    """

    settings: GroupSettings
    galaxies: GalaxiesSettings
    mergers: MergerSettings
    log_mass: float
    concentration: float
    members: Members
    z: float
    history: History
    bands: list[str]

    @property
    def r200(self) -> float:
        """Return r_200c [kpc]."""
        return float(physics.r_delta_kpc(10.0**self.log_mass, self.z, 200.0))

    @property
    def halo_share(self) -> float:
        """Return the light between the galaxies over that of the brightest galaxy."""
        sunk = self.history.time > self.mergers.sinking_time
        return self.settings.halo_share * (1.0 + float(self.history.ratio[sunk].sum()))

    def positions(self) -> Array:
        """Return where the satellites are, (n, 3) [kpc]."""
        offset, ratio = self.history.separation(self.mergers), self.history.last_ratio
        places = self.members.places.copy()
        second = np.flatnonzero(self.members.u < ratio / (1.0 + ratio))
        if offset is not None and second.size:
            places[second] = offset + ratio ** (1.0 / 3.0) * places[second]
            # The heaviest of those that came along was the brightest there: at the centre.
            places[second[np.argmax(self.members.satellites.log_mass[second])]] = offset
        return places * self.r200

    def magnitudes(self) -> Array:
        """Return i magnitudes of the brightest galaxy and the satellites, (1 + n,)."""
        both = self.members.bcg, self.members.satellites
        mass = np.concatenate([galaxies.log_mass for galaxies in both])
        ssfr = np.concatenate([galaxies.log_ssfr for galaxies in both])
        return physics.magnitude_i(mass, ssfr, np.full_like(mass, self.z))

    def labels(self, axes: Array) -> dict[str, float]:
        """Return what its label says, but its history; the same from all directions."""
        magnitudes, n = self.magnitudes(), len(self.members.places)
        is_quenched = self.members.satellites.is_quenched
        return {
            "Z": self.z,
            "LOG_MASS": self.log_mass,
            "R200C": self.r200,
            "CONCENTRATION": self.concentration,
            "LOG_MASS_BCG": float(self.members.bcg.log_mass[0]),
            "N_SATELLITES": n,
            "QUENCHED_SHARE": float(is_quenched.mean()) if n else 0.0,
            "GAP": float(np.sort(magnitudes[1:])[0] - magnitudes[0]) if n else _NO_GAP,
            "HALO_SHARE": self.halo_share,
        }

    def components(self, axes: Array) -> Iterator[Component]:
        """Yield its galaxies from one direction, rotated from its own axes by `axes`, (3, 3)."""
        scale = float(physics.arcsec_per_kpc(self.z))
        members = self.members
        own = light(members.bcg, np.array([self.z]), self.bands).total[0]
        radius = float(members.bcg.r_eff[0]) * scale
        shape = physics.ellipse(axes @ members.bcg_axes, _BCG_THICKNESS)
        yield Component(spheroid(radius, *shape), own)
        around = spheroid(radius * self.settings.halo_size, *shape)
        yield Component(around, self.halo_share * own)
        z = np.full(len(members.places), self.z)
        fluxes = light(members.satellites, z, self.bands).total
        seen = self.positions() @ axes.T * scale
        for k in range(len(z)):
            place = float(seen[k, 0]), float(seen[k, 1])
            profile = self._satellite(k, axes @ members.axes[k], scale)
            yield Component(profile, fluxes[k], place, is_whole=False)

    def _satellite(self, k: int, axes: Array, scale: float) -> galsim.GSObject:
        """Return a satellite as one profile: quenched ones are spheroids, others discs."""
        radius = float(self.members.satellites.r_eff[k]) * scale
        if self.members.satellites.is_quenched[k]:
            return spheroid(radius, *physics.ellipse(axes, self.galaxies.bulge_thickness))
        return disc_profile(radius, *physics.ellipse(axes, self.galaxies.disc_thickness))


def make_groups(settings: GalaxySettings, streams: Streams, epoch: Epoch) -> Iterator[Group]:
    """Yield the groups of a suite at one snapshot."""
    how, galaxies = settings.group, settings.galaxies
    assert how is not None
    assert galaxies is not None
    halos = draw_halos(how, streams.uniform(epoch.numbers, "group", 4))
    for k, number in enumerate(epoch.numbers.tolist()):
        yield Group(
            settings=how,
            galaxies=galaxies,
            mergers=settings.mergers,
            log_mass=float(halos.log_mass[k]),
            concentration=float(halos.concentration[k]),
            members=draw_members(how, galaxies, halos, k, streams(number, "members")),
            z=float(epoch.z[k]),
            history=epoch.past[k],
            bands=settings.imaging.bands,
        )


def draw_members(
    settings: GroupSettings,
    galaxies: GalaxiesSettings,
    halos: Halos,
    k: int,
    rng: np.random.Generator,
) -> Members:
    """Draw the galaxies of the k-th group; the brightest one is quenched and of median size."""
    bcg_axes = rotation(rng)
    median = np.array([[0.0], [0.5], [0.5]])
    bcg = draw_galaxies(galaxies, halos.log_bcg_mass[k : k + 1], median)
    n = int(halos.n_satellites[k])
    axes = np.stack([rotation(rng) for _ in range(n)]) if n else np.empty((0, 3, 3))
    u = rng.random((n, 8)).T
    mass = bcg.log_mass[0] + np.log10(quantile(settings.distribution("satellite_mass"), u[0]))
    cosine, angle = 2.0 * u[2] - 1.0, 2.0 * math.pi * u[3]
    sine = np.sqrt(1.0 - cosine**2)
    direction = np.stack([sine * np.cos(angle), sine * np.sin(angle), cosine], axis=-1)
    return Members(
        bcg=bcg,
        bcg_axes=bcg_axes,
        satellites=draw_galaxies(galaxies, mass, u[5:8], quenching=settings.quenching),
        axes=axes,
        places=nfw_radius(u[1], float(halos.concentration[k]))[:, None] * direction,
        u=u[4],
    )
