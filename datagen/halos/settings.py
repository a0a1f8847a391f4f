"""Settings of a suite of clusters; the values stand in `conf/halo/*.yaml`."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from datagen.checks import (
    build_checked,
    check_choice,
    check_positive,
    check_range,
    check_subset,
)
from datagen.distributions import Drawn
from datagen.errors import ConfigError
from datagen.halos.substructure import SubstructureSettings
from datagen.halos.version import CHANNELS

ENGINES = ("jeans", "parametric")
CONTENTS = ("halos", "shuffled", "phases", "empty")


@dataclass
class PopulationSettings(Drawn):
    """Which halos there are.

    Args:
        m_min: Least M_200 [Msun].
        m_max: Largest M_200 [Msun].
        slope: Of the mass function dn / dlnM ~ M^-slope.
        redshift: Distribution of the redshift.
        concentration_scatter: Scatter about the mean concentration [dex].
        age: Distribution of the time since the halo formed [Gyr].
        age_correlation: Of age with concentration, as halos that formed early are concentrated.
        axis_ratio: Distribution of the smallest over the largest axis, in three dimensions.
        roundness: Share of the flattening that is gone where particles have scattered.
    """

    NAME: ClassVar[str] = "halo.population"

    m_min: float
    m_max: float
    slope: float
    redshift: str
    concentration_scatter: float
    age: str
    age_correlation: float
    axis_ratio: str
    roundness: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"redshift": (0.02, 1.5), "age": (0.5, 13.0), "axis_ratio": (0.3, 1.0)}

    def __post_init__(self) -> None:
        check_range("halo.population.m_min", self.m_min, 1e13, 1e16)
        check_range("halo.population.m_max", self.m_max, self.m_min, 1e16)
        check_range("halo.population.slope", self.slope, 0.0, 10.0)
        check_range("halo.population.concentration_scatter", self.concentration_scatter, 0.0, 0.4)
        check_range("halo.population.age_correlation", self.age_correlation, 0.0, 1.0)
        check_range("halo.population.roundness", self.roundness, 0.0, 1.0)
        self.check_distributions()


@dataclass
class StarsSettings:
    """Stars: the brightest cluster galaxy (BCG) and satellites.

    Args:
        is_felt: Whether dark matter feels the stars of the BCG (engine jeans only).
        mass: Of the BCG at M_200 = 5e14 [Msun].
        slope: Its mass grows with M_200^slope.
        scatter: About this relation [dex].
        core: Core radius of the BCG [kpc].
        edge: Radius beyond which it falls off, about 4/3 of its projected half-mass radius [kpc].
        satellite_share: Stars of a satellite over the mass that it had at first.
        wobble: Median amplitude of the BCG's motion in the core [half-density radius].
    """

    is_felt: bool
    mass: float
    slope: float
    scatter: float
    core: float
    edge: float
    satellite_share: float
    wobble: float

    def __post_init__(self) -> None:
        for name in ("mass", "core"):
            check_positive(f"halo.stars.{name}", getattr(self, name))
        check_range("halo.stars.mass", self.mass, 1e8, 1e13)
        check_range("halo.stars.edge", self.edge, 1.5 * self.core, 500.0)
        check_range("halo.stars.scatter", self.scatter, 0.0, 0.5)
        check_range("halo.stars.satellite_share", self.satellite_share, 0.0, 0.2)
        check_range("halo.stars.wobble", self.wobble, 0.0, 1.0)


@dataclass
class GasSettings(Drawn):
    """Hot gas, and what feedback does to gas and stars.

    Args:
        fraction: Gas within r_500 over all mass there.
        beta: Distribution of the slope in rho ~ (1 + r^2 / r_c^2)^(-3 beta / 2).
        core: Core radius r_c [r_200].
        core_scatter: Scatter of r_c [dex].
        cool_share: Share of clusters with a cool core.
        agn: Distribution of the strength a of feedback: gas is multiplied by 10^-0.1a, r_c by
            10^0.15a, stars by 10^-0.08a.
        clumping: Scatter of the emission about the smooth model [dex].
        floor: Emission of the sky [Lsun/kpc^2].
    """

    NAME: ClassVar[str] = "halo.gas"

    fraction: float
    beta: str
    core: float
    core_scatter: float
    cool_share: float
    agn: str
    clumping: float
    floor: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"beta": (0.4, 1.2), "agn": (-5.0, 5.0)}

    def __post_init__(self) -> None:
        check_range("halo.gas.fraction", self.fraction, 0.001, 0.3)
        check_range("halo.gas.core", self.core, 0.005, 0.5)
        check_range("halo.gas.core_scatter", self.core_scatter, 0.0, 0.5)
        check_range("halo.gas.cool_share", self.cool_share, 0.0, 1.0)
        check_range("halo.gas.clumping", self.clumping, 0.0, 0.5)
        check_positive("halo.gas.floor", self.floor)
        self.check_distributions()


@dataclass
class BackgroundSettings:
    """Matter in front of and behind a cluster, correlated on the sky.

    Args:
        overdensity: Its mean density [mean density of matter].
        scatter: Standard deviation of the logarithm of its surface density [dex].
        slope: Its fluctuations have the power spectrum k^-slope.
    """

    overdensity: float
    scatter: float
    slope: float

    def __post_init__(self) -> None:
        check_positive("halo.background.overdensity", self.overdensity)
        check_range("halo.background.scatter", self.scatter, 0.0, 1.0)
        check_range("halo.background.slope", self.slope, 0.0, 6.0)


@dataclass
class ImagingSettings:
    """Pixels of a simulation's map.

    Args:
        side: Side of the map [px].
        pixel_scale: [kpc/px].
        depth: Length of the column that is projected, centred on the cluster [kpc].
        channels: Which maps are made.
        supersampling: Points per pixel and axis.
        centre_supersampling: The same near the centre.
        centre: Half side of the square that counts as near the centre [kpc].
        softening: Length below which gravity is softened [kpc].
        particle_mass: Of the simulation's dark matter [Msun]; it makes noise. 0: none.
        n_neighbours: Particles over which maps are smoothed.
    """

    side: int
    pixel_scale: float
    depth: float
    channels: list[str]
    supersampling: int
    centre_supersampling: int
    centre: float
    softening: float
    particle_mass: float
    n_neighbours: int

    def __post_init__(self) -> None:
        check_range("halo.imaging.side", self.side, 8, 1024)
        check_range("halo.imaging.pixel_scale", self.pixel_scale, 0.5, 500.0)
        check_range("halo.imaging.depth", self.depth, 100.0, 1e5)
        check_range("halo.imaging.supersampling", self.supersampling, 1, 10)
        check_range("halo.imaging.centre_supersampling", self.centre_supersampling, 1, 20)
        check_range("halo.imaging.centre", self.centre, 0.0)
        check_range("halo.imaging.softening", self.softening, 0.1, 100.0)
        check_range("halo.imaging.particle_mass", self.particle_mass, 0.0, 1e12)
        check_range("halo.imaging.n_neighbours", self.n_neighbours, 8, 10_000)
        check_subset("halo.imaging.channels", self.channels, CHANNELS)


@dataclass
class ObservationSettings:
    """What a telescope would see instead of the simulation's map.

    Args:
        is_on: Mass becomes a weak-lensing map, X-rays become counts.
        galaxies: Galaxies with measured shapes [arcmin^-2].
        ellipticity: Total rms of their ellipticity, both components.
        z_source: Their redshift.
        area_cm2: Effective area of the X-ray telescope [cm^2].
        exposure_s: Its exposure [s].
        photon_kev: Mean energy of a photon [keV].
    """

    is_on: bool
    galaxies: float
    ellipticity: float
    z_source: float
    area_cm2: float
    exposure_s: float
    photon_kev: float

    def __post_init__(self) -> None:
        for name in ("galaxies", "area_cm2", "exposure_s", "photon_kev", "ellipticity"):
            check_positive(f"halo.observation.{name}", getattr(self, name))
        check_range("halo.observation.z_source", self.z_source, 0.1, 10.0)


@dataclass
class HaloSettings:
    """A suite of clusters.

    Args:
        name: Name of the suite.
        content: `halos`; or maps without a halo: `shuffled` (the pixels of halos in random order),
            `phases` (the power spectrum of halos with random phases), `empty` (background).
        engine: `jeans` or `parametric`: how self-interaction acts.
        cross_sections: sigma/m, each simulated for every cluster [cm^2/g].
        velocity: w in sigma = sigma_0 / (1 + v^2 / w^2) [km/s]; null: no dependence.
        population: Which halos there are.
        stars: BCG and satellites.
        gas: Hot gas.
        substructure: Subhalos and mergers.
        background: Matter in front and behind.
        imaging: Pixels.
        observation: What a telescope would see.
    """

    name: str
    content: str
    engine: str
    cross_sections: list[float]
    velocity: float | None
    population: PopulationSettings
    stars: StarsSettings
    gas: GasSettings
    substructure: SubstructureSettings
    background: BackgroundSettings
    imaging: ImagingSettings
    observation: ObservationSettings

    def __post_init__(self) -> None:
        check_choice("halo.content", self.content, CONTENTS)
        check_choice("halo.engine", self.engine, ENGINES)
        values = self.cross_sections
        is_sorted = all(low < high for low, high in itertools.pairwise(values))
        if not values or not is_sorted or values[0] < 0.0 or values[-1] > 10.0:
            raise ConfigError(
                "expected halo.cross_sections to be rising numbers in [0, 10], but got "
                f"halo.cross_sections = {list(values)}",
                value=list(values),
                allowed="rising numbers in [0, 10]",
            )
        if self.velocity is not None:
            check_positive("halo.velocity", self.velocity)
        if self.engine != "jeans":
            reason = f"with halo.engine = {self.engine}, which has no baryons"
            _check_off("halo.stars.is_felt", self.stars.is_felt, reason)
        if self.content != "halos":
            reason = f"with halo.content = {self.content}"
            _check_off("halo.observation.is_on", self.observation.is_on, reason)
        self._check_sources()
        self._check_reach()

    def _check_sources(self) -> None:
        """Raise `ConfigError` if the galaxies of a lensing map may be nearer than a cluster."""
        nearest = self.population.distribution("redshift").bounds()[1] + 0.1
        z_source = self.observation.z_source
        if self.observation.is_on and z_source < nearest:
            raise ConfigError(
                f"expected halo.observation.z_source >= {nearest:g}, 0.1 above the largest "
                f"redshift of halo.population.redshift = {self.population.redshift}, but got "
                f"halo.observation.z_source = {z_source:g}",
                value=z_source,
                allowed=f">= {nearest:g}",
            )

    def _check_reach(self) -> None:
        """Raise `ConfigError` if a map is wider than what its halos are tabulated for."""
        width = self.imaging.side * self.imaging.pixel_scale
        if width > 10_000.0:
            raise ConfigError(
                "expected halo.imaging.side * pixel_scale <= 10000 kpc, but got "
                f"{self.imaging.side} * {self.imaging.pixel_scale:g} = {width:g}",
                value=width,
                allowed="<= 10000 kpc",
            )


_PARTS: dict[str, Any] = {
    "population": PopulationSettings,
    "stars": StarsSettings,
    "gas": GasSettings,
    "substructure": SubstructureSettings,
    "background": BackgroundSettings,
    "imaging": ImagingSettings,
    "observation": ObservationSettings,
}


def halo_settings(values: Mapping[str, Any]) -> HaloSettings:
    """Build a suite from plain nested values, as YAML holds them.

    Raises:
        ConfigError: A key is unknown or missing, or a value is out of range.
    """
    built = dict(values)
    for name, part in _PARTS.items():
        if isinstance(built.get(name), Mapping):
            built[name] = build_checked(part, built[name], f"halo.{name}")
    settings: HaloSettings = build_checked(HaloSettings, built, "halo")
    return settings


def _check_off(name: str, value: bool, reason: str) -> None:
    if value:
        raise ConfigError(
            f"expected {name} = false {reason}, but got {name} = true", value=True, allowed=False
        )
