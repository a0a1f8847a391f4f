"""How one galaxy is seen from one direction: bulge, disc, clumps, tidal light and a companion."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import galsim
import numpy as np

from datagen.galaxies import physics
from datagen.galaxies.history import Epoch, History
from datagen.galaxies.population import Galaxies, Light, draw_galaxies, light
from datagen.galaxies.render import Component
from datagen.galaxies.settings import GalaxiesSettings, GalaxySettings, MergerSettings
from datagen.galaxies.streams import Array, Streams, quantile

# Largest share of the light that may be tidal.
_MOST_TIDAL = 0.5
# Tidal tails: distance, length and width [half-light radii of the galaxy].
_TAIL = (2.0, 1.0, 0.35)
# Median size of a companion: that of its host times ratio to this power.
_COMPANION_SIZE = 0.4


@dataclass(frozen=True)
class Galaxy:
    """A galaxy of a suite with what it is made of.

    Args:
        settings: Relations of galaxies.
        mergers: How mergers are seen.
        drawn: The galaxy, arrays of shape (1,).
        light: Its parts, (1, bands) [nanomaggies].
        z: Redshift.
        history: Mergers before it is seen.
        clumps: Positions of clumps in the disc, (n, 2) [half-light radii of the disc].
        bands: Bands.
    """

    settings: GalaxiesSettings
    mergers: MergerSettings
    drawn: Galaxies
    light: Light
    z: float
    history: History
    clumps: Array
    bands: list[str]

    @property
    def r_disc(self) -> float:
        """Return the half-light radius of the disc [kpc]."""
        share = physics.half_light(self.drawn.bulge, self.settings.bulge_size)
        return float(self.drawn.r_eff[0] / share[0])

    @property
    def tidal(self) -> float:
        """Return the share of the light in tidal features."""
        share = self.settings.tidal_share * self.history.tidal(self.mergers.fading_time)
        return min(share, _MOST_TIDAL)

    def labels(self, axes: Array) -> dict[str, float]:
        """Return what its label says, but its history."""
        one, magnitude = self.drawn, physics.ZERO_POINT - 2.5 * np.log10(self.light.total[0])
        names = [band.upper() for band in self.bands]
        colours = {
            f"{blue}_{red}": float(magnitude[k] - magnitude[k + 1])
            for k, (blue, red) in enumerate(itertools.pairwise(names))
        }
        return {
            "Z": self.z,
            "LOG_MASS": float(one.log_mass[0]),
            "LOG_SSFR": float(one.log_ssfr[0]),
            "SFR": float(10.0 ** (one.log_mass[0] + one.log_ssfr[0])),
            "R_EFF": float(one.r_eff[0]),
            "BT": float(one.bulge[0]),
            "IS_QUENCHED": int(one.is_quenched[0]),
            **{f"MAG_{name}": float(value) for name, value in zip(names, magnitude, strict=True)},
            **colours,
            "CLUMPS": float(one.clumps[0]),
            "TIDAL": self.tidal,
            "INCLINATION": math.degrees(math.acos(min(abs(float(axes[2, 2])), 1.0))),
        }

    def components(self, axes: Array) -> Iterator[Component]:
        """Yield its parts from one direction, rotated from its own axes by `axes`, (3, 3)."""
        scale = float(physics.arcsec_per_kpc(self.z))
        r_disc, settings = self.r_disc * scale, self.settings
        left = 1.0 - self.tidal
        bulge = physics.ellipse(axes, settings.bulge_thickness)
        disc = physics.ellipse(axes, settings.disc_thickness)
        yield Component(spheroid(r_disc * settings.bulge_size, *bulge), left * self.light.bulge[0])
        yield Component(disc_profile(r_disc, *disc), left * self.light.disc[0])
        if self.clumps.size and self.light.clumps.any():
            flat = np.pad(self.clumps * r_disc, ((0, 0), (0, 1)))
            clumps = _clumps(flat @ axes.T, settings.clump_size * scale)
            yield Component(clumps, left * self.light.clumps[0])
        if self.tidal > 0.0:
            radius = float(self.drawn.r_eff[0]) * scale
            tails = _tails(axes @ self.history.axes[0], radius)
            yield Component(tails, self.tidal * self.light.total[0])
        yield from self._companion(axes, scale)

    def _companion(self, axes: Array, scale: float) -> Iterator[Component]:
        """Yield the partner of the last merger until it has sunk; it has the host's colours."""
        place = self.history.separation(self.mergers)
        if place is None:
            return
        ratio = self.history.last_ratio
        radius = float(self.drawn.r_eff[0]) * scale
        x, y, _ = axes @ place * radius
        own = axes @ self.history.axes[0]
        size = radius * ratio**_COMPANION_SIZE
        if self.drawn.is_quenched[0]:
            profile = spheroid(size, *physics.ellipse(own, self.settings.bulge_thickness))
        else:
            profile = disc_profile(size, *physics.ellipse(own, self.settings.disc_thickness))
        yield Component(profile, ratio * self.light.total[0], (float(x), float(y)))


def make_galaxies(settings: GalaxySettings, streams: Streams, epoch: Epoch) -> Iterator[Galaxy]:
    """Yield the galaxies of a suite at one snapshot."""
    how, bands = settings.galaxies, settings.imaging.bands
    assert how is not None
    u = streams.uniform(epoch.numbers, "galaxy", 4)
    growth = [1.0 - np.prod(1.0 - how.bulge_growth * past.ratio) for past in epoch.past]
    log_mass = quantile(how.distribution("log_mass"), u[0])
    drawn = draw_galaxies(how, log_mass, u[1:], np.array(growth))
    parts = light(drawn, epoch.z, bands)
    for k, number in enumerate(epoch.numbers.tolist()):
        yield Galaxy(
            settings=how,
            mergers=settings.mergers,
            drawn=drawn.one(k),
            light=parts.one(k),
            z=float(epoch.z[k]),
            history=epoch.past[k],
            clumps=draw_clumps(streams(number, "clumps").random((how.n_clumps, 2)).T),
            bands=bands,
        )


def disc_profile(radius: float, axis_ratio: float, angle: float) -> galsim.GSObject:
    """Return an exponential disc.

    Args:
        radius: Half-light radius along the major axis [arcsec].
        axis_ratio: Of its isophotes.
        angle: Of the major axis [rad from +x].
    """
    return _sheared(galsim.Exponential(half_light_radius=radius), axis_ratio, angle)


def spheroid(radius: float, axis_ratio: float, angle: float) -> galsim.GSObject:
    """Return a Spergel profile of nu = -0.6, near a de Vaucouleurs one; as `disc_profile`."""
    profile = galsim.Spergel(nu=physics.BULGE_NU, half_light_radius=radius)
    return _sheared(profile, axis_ratio, angle)


def draw_clumps(u: Array) -> Array:
    """Return places in an exponential disc from uniform numbers (2, n), (n, 2) [half-light radii].

    Within three half-light radii.
    """
    radii = np.linspace(0.0, 3.0, 301)
    within = physics.exponential_within(radii)
    radius = np.interp(u[0] * within[-1], within, radii)
    angle = 2.0 * math.pi * u[1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _sheared(profile: galsim.GSObject, axis_ratio: float, angle: float) -> galsim.GSObject:
    # GalSim's shear keeps the area: the major axis grows by 1 / sqrt(q).
    round_one = profile.dilate(math.sqrt(axis_ratio))
    return round_one.shear(q=axis_ratio, beta=angle * galsim.radians)


def _clumps(places: Array, sigma: float) -> galsim.GSObject:
    """Return Gaussian clumps of equal flux at places on the sky, (n, 2 or more) [arcsec]."""
    one = galsim.Gaussian(sigma=sigma, flux=1.0 / len(places))
    return galsim.Sum([one.shift(float(x), float(y)) for x, y, *_ in places])


def _tails(axes: Array, radius: float) -> galsim.GSObject:
    """Return two tails on opposite sides, bent across the line to where a partner came from."""
    distance, length, width = (value * radius for value in _TAIL)
    x, y, _ = axes[:, 2]
    bent = math.atan2(y, x) + 0.25 * math.pi
    tail = galsim.Gaussian(sigma=math.sqrt(length * width), flux=0.5)
    tail = tail.shear(q=width / length, beta=bent * galsim.radians)
    dx, dy = float(distance * x), float(distance * y)
    return galsim.Sum([tail.shift(dx, dy), tail.shift(-dx, -dy)])
