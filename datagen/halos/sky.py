"""From what a cluster is to what a map holds: background, noise, and what a telescope sees."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from datagen.halos import fluctuations, observe
from datagen.halos.cosmology import Array, lensing_density, matter_density
from datagen.halos.settings import HaloSettings
from datagen.halos.version import CHANNELS
from datagen.seeds import stream

# Stars and gas in front and behind, over all matter there, and the mass of a particle of either
# over that of a dark one.
_STARS_SHARE, _GAS_SHARE, _BARYON_PARTICLE = 0.005, 0.16, 0.2


@dataclass(frozen=True)
class Sky:
    """Everything random in maps of a cluster from one direction, the same for all cross-sections.

    Args:
        settings: The suite.
        seed: Of all streams.
        number: Of the cluster.
        projection: Number of the direction.
        redshift: Of the cluster.
    """

    settings: HaloSettings
    seed: int
    number: int
    projection: int
    redshift: float

    def rng(self, component: str) -> np.random.Generator:
        """Return the stream of a component of this map."""
        return stream(self.seed, self.number, f"{component}_{self.projection}")

    @cached_property
    def background(self) -> dict[str, Array]:
        """Return each channel, and the gas, where there is no cluster, (side, side) each."""
        settings, imaging = self.settings.background, self.settings.imaging
        white = self.rng("background").standard_normal((2, 2 * imaging.side, 2 * imaging.side))
        density, gas = (fluctuations.correlated(field, settings.slope) for field in white)
        column = float(matter_density(self.redshift)) * settings.overdensity * imaging.depth
        mass = fluctuations.lognormal(column, settings.scatter, density)
        clumping = fluctuations.lognormal(1.0, self.settings.gas.clumping, gas)
        floor = self.settings.gas.floor
        stars, column_of_gas = _STARS_SHARE * mass, _GAS_SHARE * mass
        return {"mass": mass, "xray": floor * clumping, "stars": stars, "gas": column_of_gas}

    def finish(self, cluster: dict[str, Array]) -> Array:
        """Return maps with background and noise, (channels, side, side).

        Args:
            cluster: Each channel, and the surface density of `gas`, without background,
                (side, side).
        """
        background = self.background
        # Gas is as clumpy in the cluster as before it.
        clumping = background["xray"] / self.settings.gas.floor
        smooth = {
            "mass": cluster["mass"] + background["mass"],
            "xray": cluster["xray"] * clumping + background["xray"],
            "stars": cluster["stars"] + background["stars"],
            "gas": cluster["gas"] + background["gas"],
        }
        maps = self._with_content(self._sampled(smooth))
        if self.settings.observation.is_on:
            maps = self._observed(maps)
        return maps[[CHANNELS.index(name) for name in self.settings.imaging.channels]]

    def _sampled(self, smooth: dict[str, Array]) -> Array:
        """Return maps as particles sample them, (3, side, side)."""
        imaging = self.settings.imaging
        maps = np.stack([smooth[name] for name in CHANNELS])
        if imaging.particle_mass == 0.0:
            return maps
        per_mass = imaging.pixel_scale**2 / imaging.particle_mass
        baryons = np.stack([smooth["gas"], smooth["stars"]]) / _BARYON_PARTICLE
        # Noise of X-rays is that of gas, which knows nothing of the cross-section.
        n_pixel = np.concatenate([smooth["mass"][None], baryons]) * per_mass
        white = self.rng("noise").standard_normal(maps.shape)
        return fluctuations.particle_noise(maps, n_pixel + imaging.n_neighbours, white)

    def _with_content(self, maps: Array) -> Array:
        content, side = self.settings.content, self.settings.imaging.side
        if content == "shuffled":
            return fluctuations.shuffled(maps, self.rng("order").permutation(side**2))
        if content == "phases":
            return fluctuations.random_phases(
                maps, self.rng("phases").standard_normal((side, side))
            )
        return maps

    def _observed(self, maps: Array) -> Array:
        """Return a weak-lensing map, photons, and stars as they are."""
        telescope, scale = self.settings.observation, self.settings.imaging.pixel_scale
        pixel = observe.pixel_arcmin(self.redshift, scale)
        noise = observe.shape_noise(telescope.ellipticity, telescope.galaxies, pixel)
        lensing = lensing_density(self.redshift, telescope.z_source)
        white = self.rng("shapes").standard_normal((2, *maps.shape[1:]))
        photons = self.rng("photons").standard_normal(maps.shape[1:])
        effort = telescope.area_cm2 * telescope.exposure_s / telescope.photon_kev
        mass = observe.lensing_map(maps[0], lensing, noise, white)
        counts = observe.photons(maps[1], self.redshift, scale, effort, photons)
        return np.stack([mass, counts, maps[2]])
