"""Settings of what a scene holds: main lens, source, lens light and substructure.

The values stand in `conf/lens/*.yaml`. Numbers that are drawn are distributions, see
`datagen/lenses/distributions.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datagen.checks import check_choice, check_positive, check_range
from datagen.distributions import Drawn, check_distribution
from datagen.errors import ConfigError
from datagen.lenses.scene import PROFILES
from datagen.lenses.version import CLASSES

POSITIONS = ("caustic", "polar", "square")
MAX_REDSHIFT = 6.0  # where the table of distances ends


@dataclass
class MacroSettings(Drawn):
    """The main lens: a singular isothermal ellipsoid with external shear.

    Args:
        theta_e: Einstein radius of all mass [arcsec].
        q: Minor / major axis.
        angle_deg: Position angle of the major axis [deg].
        x: Centre along columns [arcsec].
        y: Centre along rows [arcsec].
        gamma: Size of the external shear.
        gamma_angle_deg: Position angle along which the shear stretches [deg].
        z_lens: Redshift of the lens.
        z_source: Redshift of the source, drawn under the condition of the next key.
        min_redshift_gap: The source lies at least so far behind the lens.
        multipole_3: Amplitude of the m = 3 multipole of the lens, in units of theta_e; 0: none.
        multipole_4: The same for m = 4.
        by_class: Distributions that one class alone has; only the flaw of a public set.
    """

    NAME: ClassVar[str] = "lens.macro"

    theta_e: str
    q: str
    angle_deg: str
    x: str
    y: str
    gamma: str
    gamma_angle_deg: str
    z_lens: str
    z_source: str
    min_redshift_gap: float
    multipole_3: str
    multipole_4: str
    by_class: dict[str, dict[str, str]]

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {
            "theta_e": (0.01, 30.0),
            "angle_deg": (-360.0, 360.0),
            "q": (0.05, 1.0),
            "x": (-30.0, 30.0),
            "y": (-30.0, 30.0),
            "gamma": (0.0, 0.5),
            "gamma_angle_deg": (-360.0, 360.0),
            "multipole_3": (0.0, 0.2),
            "multipole_4": (-0.2, 0.2),
            "z_lens": (0.01, MAX_REDSHIFT - self.min_redshift_gap),
            "z_source": (0.01, MAX_REDSHIFT),
        }

    def __post_init__(self) -> None:
        check_positive("lens.macro.min_redshift_gap", self.min_redshift_gap)
        self.check_distributions()
        furthest_lens = self.distribution("z_lens").bounds()[1]
        furthest_source = self.distribution("z_source").bounds()[1]
        if furthest_lens + self.min_redshift_gap > furthest_source + 1e-9:
            raise ConfigError(
                "expected lens.macro.z_source to reach z_lens + min_redshift_gap, but got "
                f"z_lens = {self.z_lens}, min_redshift_gap = {self.min_redshift_gap:g} and "
                f"z_source = {self.z_source}",
                value=self.z_source,
            )
        limits = self.limits()
        for name, values in self.by_class.items():
            check_choice("lens.macro.by_class", name, CLASSES)
            for key, text in values.items():
                check_choice(f"lens.macro.by_class.{name}", key, limits)
                check_distribution(f"lens.macro.by_class.{name}.{key}", text, *limits[key])


@dataclass
class SourceSettings(Drawn):
    """The lensed galaxy: one elliptic Sersic profile and, if wanted, clumps.

    Args:
        position: `caustic` (uniform inside the tangential caustic), `polar` (`offset` is the
            distance from the origin, in any direction) or `square` (`offset` is x, and y).
        offset: Offset of the source [arcsec]; not used with `caustic`.
        n: Sersic index.
        r_eff: Half-light radius [arcsec].
        q: Minor / major axis.
        angle_deg: Position angle [deg].
        colours: Flux of each band, relative to the first one.
        n_clumps: Clumps (round exponential profiles) on top of the main profile.
        clump_flux: Share of all clumps in the flux of the first band.
        clump_r_eff: Half-light radius of a clump, in units of r_eff.
        clump_colours: Flux of the clumps in each band, relative to the first one.
    """

    NAME: ClassVar[str] = "lens.source"

    position: str
    offset: str
    n: str
    r_eff: str
    q: str
    angle_deg: str
    colours: dict[str, float]
    n_clumps: int
    clump_flux: str
    clump_r_eff: str
    clump_colours: dict[str, float]

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {
            "offset": (0.0 if self.position == "polar" else -30.0, 30.0),
            "n": (0.3, 8.0),
            "r_eff": (0.005, 10.0),
            "q": (0.05, 1.0),
            "angle_deg": (-360.0, 360.0),
            "clump_flux": (0.0, 0.95),
            "clump_r_eff": (0.01, 1.0),
        }

    def __post_init__(self) -> None:
        check_choice("lens.source.position", self.position, POSITIONS)
        self.check_distributions()
        check_range("lens.source.n_clumps", self.n_clumps, 0, 50)


@dataclass
class LensLightSettings(Drawn):
    """Light of the main lens, a Sersic profile with its centre, axis ratio and angle.

    Args:
        flux_ratio: Its flux in units of the flux of the lensed source in the image; 0: none.
        n: Sersic index.
        r_eff: Half-light radius [arcsec].
    """

    NAME: ClassVar[str] = "lens.lens_light"

    flux_ratio: str
    n: str
    r_eff: str

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"flux_ratio": (0.0, 1e3), "n": (0.3, 8.0), "r_eff": (0.005, 30.0)}

    def __post_init__(self) -> None:
        self.check_distributions()


@dataclass
class CdmSettings(Drawn):
    """Subhalos of cold dark matter.

    Args:
        mass_fraction: Their share in the mass inside `extent`; null: masses as they are drawn.
        n_subhalos: Their mean number (Poisson); null: what mass_fraction asks for.
        m_min: Smallest mass [Msun].
        m_max: Largest mass [Msun].
        slope: Number per mass goes like m^-slope.
        profile: `point`, `sis` (truncated isothermal) or `tnfw`.
        radius_arcsec: Distance from the lens [arcsec]; null: uniform in area inside `extent`.
        host_radius_kpc: Typical distance from the host's centre, for tidal truncation [kpc].
    """

    NAME: ClassVar[str] = "lens.substructure.cdm"

    mass_fraction: str | None
    n_subhalos: float | None
    m_min: float
    m_max: float
    slope: float
    profile: str
    radius_arcsec: str | None
    host_radius_kpc: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"mass_fraction": (0.0, 0.5), "radius_arcsec": (0.0, 30.0)}

    def __post_init__(self) -> None:
        name = self.NAME
        if self.mass_fraction is None and self.n_subhalos is None:
            raise ConfigError(
                f"expected {name}.mass_fraction or {name}.n_subhalos, but got null for both"
            )
        self.check_distributions()
        if self.n_subhalos is not None:
            check_range(f"{name}.n_subhalos", self.n_subhalos, 0.0, 1e4)
        check_range(f"{name}.m_min", self.m_min, 1e4, 1e12)
        check_range(f"{name}.m_max (above m_min)", self.m_max, 1.001 * self.m_min, 1e13)
        check_range(f"{name}.slope", self.slope, 0.0, 4.0)
        check_choice(f"{name}.profile", self.profile, PROFILES)
        check_positive(f"{name}.host_radius_kpc", self.host_radius_kpc)


@dataclass
class RodSettings(Drawn):
    """The vortex: a rod of uniform line mass.

    A toy, as in the public sets: vortices of wave dark matter really are under-densities.

    Args:
        mass_fraction: Its share in the mass inside `extent`; null: `mass_msun`.
        mass_msun: Its mass [Msun]; null: what mass_fraction asks for.
        length: Its length [arcsec].
        is_centred: It sits at the origin instead of anywhere inside `extent`.
        is_compensated: A disc of equal negative mass lies around it.
    """

    NAME: ClassVar[str] = "lens.substructure.rod"

    mass_fraction: str | None
    mass_msun: str | None
    length: str
    is_centred: bool
    is_compensated: bool

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"mass_fraction": (0.0, 0.5), "mass_msun": (0.0, 1e13), "length": (0.01, 30.0)}

    def __post_init__(self) -> None:
        name = self.NAME
        if (self.mass_fraction is None) == (self.mass_msun is None):
            raise ConfigError(f"expected one of {name}.mass_fraction and {name}.mass_msun")
        self.check_distributions()


@dataclass
class LineOfSightSettings:
    """Halos in front of and behind the lens, in all classes alike.

    Args:
        n_halos: Their mean number (Poisson) inside `extent`; 0: none.
    """

    n_halos: float

    def __post_init__(self) -> None:
        check_range("lens.substructure.line_of_sight.n_halos", self.n_halos, 0.0, 1000.0)


@dataclass
class SubstructureSettings:
    """What distinguishes the classes.

    Args:
        extent: Radius in which mass is counted and substructure placed [theta_e].
        is_compensated: The main lens gives up the mass that substructure adds inside its ring.
        has_delta_chi2: Delta chi2 is computed for the truth.
        min_delta_chi2: Substructure is drawn again until its Delta chi2 is as large; 0: never.
        max_draws: At most so many draws; the one with the largest Delta chi2 stays.
        n_judged: Draws are compared by the Delta chi2 of so many of their heaviest subhalos.
        cdm: Subhalos of the class cdm.
        rod: The rod of the class vortex.
        line_of_sight: Halos of all classes.
    """

    extent: float
    is_compensated: bool
    has_delta_chi2: bool
    min_delta_chi2: float
    max_draws: int
    n_judged: int
    cdm: CdmSettings
    rod: RodSettings
    line_of_sight: LineOfSightSettings

    def __post_init__(self) -> None:
        check_range("lens.substructure.extent", self.extent, 0.1, 20.0)
        check_range("lens.substructure.min_delta_chi2", self.min_delta_chi2, 0.0)
        check_range("lens.substructure.max_draws", self.max_draws, 1, 1000)
        check_range("lens.substructure.n_judged", self.n_judged, 1)
        if self.min_delta_chi2 > 0.0 and not self.has_delta_chi2:
            raise ConfigError(
                "expected lens.substructure.has_delta_chi2 = true with min_delta_chi2 > 0, but got "
                f"has_delta_chi2 = false and min_delta_chi2 = {self.min_delta_chi2:g}",
                value=self.min_delta_chi2,
            )
