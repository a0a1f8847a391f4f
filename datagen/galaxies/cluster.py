"""How the hot gas of one cluster is seen: beta models of body, core and clumps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri
from scipy.stats import poisson

from datagen.galaxies import physics
from datagen.galaxies.history import Epoch, History
from datagen.galaxies.objects import ClusterSettings
from datagen.galaxies.settings import GalaxySettings, ImagingSettings, MergerSettings
from datagen.galaxies.streams import Array, Flags, Numbers, Streams, quantile, rotation
from datagen.galaxies.version import XRAY

# What the relations are written about [log10 Msun].
MASS_PIVOT = 14.5
# r_500 over r_200 of an NFW halo of concentration 4.
R500_PER_R200 = 0.65
# Light of the gas grows as mass to this power; sizes as its cube root.
_LIGHT_SLOPE = 1.6
# Mass ratio above which a merger destroys a cool core.
_DESTRUCTIVE = 0.3
# Pixels along each axis that are drawn for one, and for the borders of the PSF [px].
_FINER, _BORDER = 3, 8
_FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))


@dataclass(frozen=True)
class Gas:
    """What clusters of a suite are, (n,) each.

    Args:
        log_mass: M_200c at the last snapshot [log10 Msun].
        growth: a in M(z) ~ exp(-a z).
        beta: Slope of the surface brightness.
        core: Core radius [r_500].
        axis_ratio: Shortest over longest axis.
        is_cool: Whether it has a cool core if it does not merge.
        n_clumps: Number of small clumps.
        log_excess: Of its counts over the mean at its mass [dex].
    """

    log_mass: Array
    growth: Array
    beta: Array
    core: Array
    axis_ratio: Array
    is_cool: Flags
    n_clumps: Numbers
    log_excess: Array

    def one(self, k: int) -> Gas:
        """Return one of them, arrays of shape (1,)."""
        return Gas(*(values[k : k + 1] for values in vars(self).values()))


def draw_gas(settings: ClusterSettings, u: Array) -> Gas:
    """Draw clusters from uniform numbers, (8, n)."""
    return Gas(
        log_mass=quantile(settings.distribution("log_mass"), u[0]),
        growth=quantile(settings.distribution("growth"), u[1]),
        beta=quantile(settings.distribution("beta"), u[2]),
        core=settings.core * 10.0 ** (settings.core_scatter * ndtri(u[3])),
        axis_ratio=quantile(settings.distribution("axis_ratio"), u[4]),
        is_cool=u[5] < settings.cool_share,
        n_clumps=np.asarray(poisson.ppf(u[6], settings.n_clumps), np.int64),
        log_excess=settings.log_counts_scatter * ndtri(u[7]),
    )


@dataclass(frozen=True)
class Body:
    """A beta model of the gas, S ~ (1 + R^2 / r_c^2)^(1/2 - 3 beta).

    Cavaliere & Fusco-Femiano 1976, A&A 49, 137.

    Args:
        light: Its share of the counts within the reference radius.
        core: Core radius r_c [kpc].
        beta: Slope, > 1/2.
        place: Where it is, (3,) [kpc].
    """

    light: float
    core: float
    beta: float
    place: Array


@dataclass(frozen=True)
class Cluster:
    """A cluster at one time.

    Args:
        settings: How clusters are.
        mergers: How mergers are seen.
        gas: The cluster, arrays of shape (1,).
        axes: Own axes of its shape, (3, 3).
        clumps: Places of small clumps, (n, 3) [r_500], and their light, (n,).
        z: Redshift.
        z_last: Redshift of the last snapshot, at which the mass is given.
        history: Mergers before it is seen.
    """

    settings: ClusterSettings
    mergers: MergerSettings
    gas: Gas
    axes: Array
    clumps: tuple[Array, Array]
    z: float
    z_last: float
    history: History

    @property
    def log_mass(self) -> float:
        """Return M_200c at this time [log10 Msun]."""
        growth = float(self.gas.growth[0]) * (self.z - self.z_last)
        return float(self.gas.log_mass[0]) - growth * math.log10(math.e)

    @property
    def r200(self) -> float:
        """Return r_200c [kpc]."""
        return float(physics.r_delta_kpc(10.0**self.log_mass, self.z, 200.0))

    @property
    def r500(self) -> float:
        """Return r_500c [kpc]."""
        return R500_PER_R200 * self.r200

    @property
    def cool(self) -> float:
        """Return how much of a cool core there is, 0 to 1: mergers destroy it, it comes back."""
        harm = np.minimum(self.history.ratio / _DESTRUCTIVE, 1.0)
        left = 1.0 - harm * np.exp(-self.history.time / self.settings.cooling_time)
        return float(self.gas.is_cool[0] * np.prod(left))

    @property
    def counts(self) -> float:
        """Return the expected photons within r_500."""
        settings, excess = self.settings, self.log_mass - MASS_PIVOT
        mean = settings.log_counts + settings.log_counts_slope * excess
        return float(10.0 ** (mean + self.gas.log_excess[0]))

    def labels(self, axes: Array) -> dict[str, float]:
        """Return what its label says, but its history; the same from all directions."""
        return {
            "Z": self.z,
            "LOG_MASS": self.log_mass,
            "R200C": self.r200,
            "R500C": self.r500,
            "BETA": float(self.gas.beta[0]),
            "R_CORE": float(self.gas.core[0]) * self.r500,
            "COOL": self.cool,
            "IS_COOL": int(self.cool > 0.5),
            "GROWTH": float(self.gas.growth[0]),
            "N_CLUMPS": len(self.clumps[1]),
            "COUNTS": self.counts,
        }

    def bodies(self) -> Iterator[Body]:
        """Yield body, cool core, small clumps, and the partner of the last merger until it sinks.

        Body and cool core together have all counts, what else there is comes on top.
        """
        settings, beta = self.settings, float(self.gas.beta[0])
        core, centre = float(self.gas.core[0]) * self.r500, np.zeros(3)
        cool = settings.cool_light * self.cool
        yield Body(1.0 - cool, core, beta, centre)
        if cool > 0.0:
            yield Body(cool, settings.cool_size * core, beta, centre)
        for place, own in zip(*self.clumps, strict=True):
            yield Body(float(own), settings.clump_size * core, beta, place * self.r500)
        offset = self.history.separation(self.mergers)
        if offset is not None:
            ratio = self.history.last_ratio
            size = ratio ** (1.0 / 3.0)
            yield Body(ratio**_LIGHT_SLOPE, size * core, beta, offset * self.r200)

    def expected(self, axes: Array, imaging: ImagingSettings, scale: float) -> Array:
        """Return expected counts per pixel with the background.

        Args:
            axes: Rotation of its own axes to the sky, (3, 3).
            imaging: Pixels, PSF and background.
            scale: [arcsec/px].

        Returns:
            (side, side).
        """
        arcsec = float(physics.arcsec_per_kpc(self.z))
        side, kpc = imaging.side, scale / arcsec
        shape = physics.ellipse(axes @ self.axes, float(self.gas.axis_ratio[0]))
        width = (side + 2 * _BORDER) * _FINER
        grid = (np.arange(width) - 0.5 * (width - 1)) * kpc / _FINER
        light = np.zeros((width, width))
        for body in self.bodies():
            x, y, _ = axes @ body.place
            unit = beta_model((grid - x, grid[:, None] - y), body, shape, self.r500)
            light += body.light * unit
        sigma = imaging.fwhm / scale / _FWHM_PER_SIGMA * _FINER
        light = gaussian_filter(light, sigma, mode="nearest")
        light = light.reshape(side + 2 * _BORDER, _FINER, -1, _FINER).mean((1, 3))
        inner = slice(_BORDER, -_BORDER)
        seen: Array = self.counts * kpc**2 * light[inner, inner] + imaging.sky[XRAY]
        return seen


def beta_model(
    grid: tuple[Array, Array], body: Body, shape: tuple[float, float], radius: float
) -> Array:
    """Return the surface brightness of a body of unit light within a radius.

    Its isophotes are ellipses of the area of circles, and the light that of the round model.

    Args:
        grid: x, (n,), and y, (n, 1), from its centre [kpc].
        body: Core radius and slope.
        shape: Axis ratio, and position angle of the major axis [rad from +x].
        radius: Within which the light is 1 [kpc].

    Returns:
        (n, n) [1 / kpc^2].
    """
    (x, y), (ratio, angle) = grid, shape
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    r2 = (along**2 * ratio + across**2 / ratio) / body.core**2
    power = 0.5 - 3.0 * body.beta
    # Integral of 2 pi R (1 + R^2 / r_c^2)^power from 0 to the radius.
    edge = (1.0 + (radius / body.core) ** 2) ** (power + 1.0)
    total = math.pi * body.core**2 * (edge - 1.0) / (power + 1.0)
    brightness: Array = (1.0 + r2) ** power / total
    return brightness


def make_clusters(settings: GalaxySettings, streams: Streams, epoch: Epoch) -> Iterator[Cluster]:
    """Yield the clusters of a suite at one snapshot."""
    how = settings.cluster
    assert how is not None
    gas = draw_gas(how, streams.uniform(epoch.numbers, "gas", 8))
    for k, number in enumerate(epoch.numbers.tolist()):
        rng = streams(number, "clumps")
        yield Cluster(
            settings=how,
            mergers=settings.mergers,
            gas=gas.one(k),
            axes=rotation(rng),
            clumps=_draw_clumps(how, int(gas.n_clumps[k]), rng),
            z=float(epoch.z[k]),
            z_last=float(epoch.z_last[k]),
            history=epoch.past[k],
        )


def _draw_clumps(
    settings: ClusterSettings, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw places of small clumps, (n, 3) [r_500], and their light, (n,) [that within r_500]."""
    direction = rng.standard_normal((n, 3))
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    places = direction * np.sqrt(rng.random(n))[:, None]
    return places, quantile(settings.distribution("clump_light"), rng.random(n))
