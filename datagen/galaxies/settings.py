"""Settings of a suite of galaxies, groups or clusters; the values stand in `conf/galaxy/*.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from datagen.checks import build_checked, check_keys, check_positive, check_range, check_subset
from datagen.distributions import Drawn, check_distribution
from datagen.errors import ConfigError
from datagen.galaxies.objects import ClusterSettings, GroupSettings
from datagen.galaxies.version import BANDS, XRAY

# Snapshots lie in these redshifts, where galaxies have colours in the tables.
REDSHIFTS = (0.03, 1.2)
# Mergers are drawn as a sequence of at most so many.
MOST_MERGERS = 64


@dataclass
class ImagingSettings:
    """Pixels, PSF and noise.

    Args:
        bands: Bands of galaxies and groups, out of g, r, i, z; `[xray]` for clusters.
        side: Side of an image [px].
        pixel_scale: [arcsec/px]; null where `pixel_kpc` says it.
        pixel_kpc: Size of a pixel at the redshift of the object [kpc]; null where `pixel_scale`
            says it.
        fwhm: Of the PSF [arcsec].
        moffat: Slope beta of its wings (Moffat 1969); the PSF of X-rays is Gaussian.
        sky: Noise of the sky per pixel and band [nanomaggies]; of X-rays the mean background
            [counts per pixel].
        gain: Electrons per nanomaggy; they make the noise of bright pixels.
    """

    bands: list[str]
    side: int
    pixel_scale: float | None
    pixel_kpc: float | None
    fwhm: float
    moffat: float
    sky: dict[str, float]
    gain: float

    def __post_init__(self) -> None:
        allowed = (XRAY,) if XRAY in self.bands else BANDS
        check_subset("galaxy.imaging.bands", self.bands, allowed)
        check_range("galaxy.imaging.side", self.side, 16, 2048)
        if (self.pixel_scale is None) == (self.pixel_kpc is None):
            got = f"{self.pixel_scale} and {self.pixel_kpc}"
            raise ConfigError(
                "expected one of galaxy.imaging.pixel_scale and pixel_kpc to be a number and the "
                f"other null, but got {got}",
                value=got,
                allowed="one number and null",
            )
        if self.pixel_scale is not None:
            check_range("galaxy.imaging.pixel_scale", self.pixel_scale, 0.01, 100.0)
        if self.pixel_kpc is not None:
            check_range("galaxy.imaging.pixel_kpc", self.pixel_kpc, 0.01, 1000.0)
        check_range("galaxy.imaging.fwhm", self.fwhm, 0.01, 100.0)
        check_range("galaxy.imaging.moffat", self.moffat, 1.5, 10.0)
        check_positive("galaxy.imaging.gain", self.gain)
        check_keys("galaxy.imaging.sky", self.sky, self.bands, (*BANDS, XRAY))
        for band, value in self.sky.items():
            check_positive(f"galaxy.imaging.sky.{band}", value)


@dataclass
class MergerSettings(Drawn):
    """Hidden histories: mergers are a Poisson process in time.

    Args:
        rate: Mergers of an object [1/Gyr].
        window: Time before the last snapshot in which they are drawn [Gyr].
        ratio: Distribution of the mass of the smaller over that of the larger partner.
        sinking_time: Time in which the smaller one is still seen apart, nearer and nearer [Gyr].
        distance: Where it starts: of galaxies [half-light radii], of groups and clusters [r_200].
        fading_time: Time in which the share of tidal light falls to 1/e [Gyr].
    """

    NAME: ClassVar[str] = "galaxy.mergers"

    rate: float
    window: float
    ratio: str
    sinking_time: float
    distance: float
    fading_time: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"ratio": (0.01, 1.0)}

    def __post_init__(self) -> None:
        check_range("galaxy.mergers.window", self.window, 0.1, 13.0)
        # So that hardly ever more of them are drawn than a sequence holds.
        check_range("galaxy.mergers.rate", self.rate, 0.0, 0.4 * MOST_MERGERS / self.window)
        check_positive("galaxy.mergers.sinking_time", self.sinking_time)
        check_positive("galaxy.mergers.distance", self.distance)
        check_positive("galaxy.mergers.fading_time", self.fading_time)
        self.check_distributions()


@dataclass
class GalaxiesSettings(Drawn):
    """How galaxies are: of galaxies all, of groups also their members.

    Args:
        log_mass: Distribution of the stellar mass M [log10 Msun].
        quenching_mass: Mass at which half of them are quenched [log10 Msun].
        quenching_slope: The quenched share is 1 / (1 + 10^(-slope (log M - quenching_mass))).
        log_ssfr_quenched: Mean of log10 SFR / M of quenched ones [1/yr].
        log_ssfr: The same of star-forming ones at log M = 10.5.
        log_ssfr_slope: Its slope in log M.
        log_ssfr_scatter: Scatter about both [dex].
        log_size_late: Mean half-light radius of star-forming ones at log M = 10.7 [log10 kpc].
        log_size_late_slope: Its slope in log M.
        log_size_late_scatter: Scatter about it [dex].
        log_size_early: Mean half-light radius of quenched ones at log M = 10.7 [log10 kpc].
        log_size_early_slope: Its slope in log M.
        log_size_early_scatter: Scatter about it [dex].
        log_size_shift: Added to all sizes [dex].
        bulge_quenched: Light of the bulge over all light, B/T, of quenched ones.
        bulge: B/T of star-forming ones at log M = 10.4.
        bulge_slope: Its slope in log M.
        bulge_shift: Added to all B/T.
        bulge_growth: Share of the disc that a merger of ratio 1 turns into bulge.
        bulge_size: Half-light radius of bulges over that of discs.
        disc_thickness: Axis ratio q0 of discs seen edge-on.
        bulge_thickness: The same of bulges.
        clump_share: Light of clumps over that of the disc, at log sSFR = -9.9; it grows as sSFR.
        n_clumps: Clumps of a disc.
        clump_size: Standard deviation of a clump's Gaussian profile [kpc].
        tidal_share: Share of the light in tidal features just after a merger of ratio 1.
    """

    NAME: ClassVar[str] = "galaxy.galaxies"

    log_mass: str
    quenching_mass: float
    quenching_slope: float
    log_ssfr_quenched: float
    log_ssfr: float
    log_ssfr_slope: float
    log_ssfr_scatter: float
    log_size_late: float
    log_size_late_slope: float
    log_size_late_scatter: float
    log_size_early: float
    log_size_early_slope: float
    log_size_early_scatter: float
    log_size_shift: float
    bulge_quenched: float
    bulge: float
    bulge_slope: float
    bulge_shift: float
    bulge_growth: float
    bulge_size: float
    disc_thickness: float
    bulge_thickness: float
    clump_share: float
    n_clumps: int
    clump_size: float
    tidal_share: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"log_mass": (8.0, 11.8)}

    def __post_init__(self) -> None:
        ranges = {
            "quenching_mass": (5.0, 15.0),
            "quenching_slope": (0.0, 10.0),
            "log_ssfr_quenched": (-14.0, -8.0),
            "log_ssfr": (-14.0, -8.0),
            "log_size_late": (-1.0, 2.0),
            "log_size_early": (-1.0, 2.0),
            "log_size_shift": (-1.0, 1.0),
            "bulge_shift": (-1.0, 1.0),
            "bulge_size": (0.05, 1.0),
            "disc_thickness": (0.05, 1.0),
            "bulge_thickness": (0.05, 1.0),
            "clump_size": (0.001, 10.0),
            "n_clumps": (0.0, 100.0),
            **dict.fromkeys(("bulge_quenched", "bulge", "bulge_growth"), (0.0, 1.0)),
            **dict.fromkeys(("clump_share", "tidal_share"), (0.0, 0.5)),
            **dict.fromkeys(("log_ssfr_slope", "bulge_slope"), (-2.0, 2.0)),
            **dict.fromkeys(("log_size_late_slope", "log_size_early_slope"), (-2.0, 2.0)),
            **dict.fromkeys(("log_size_late_scatter", "log_size_early_scatter"), (0.0, 1.0)),
            "log_ssfr_scatter": (0.0, 1.0),
        }
        for name, (low, high) in ranges.items():
            check_range(f"galaxy.galaxies.{name}", getattr(self, name), low, high)
        self.check_distributions()


@dataclass
class SystematicsSettings:
    """What a survey adds.

    Args:
        is_on: Whether any of it is added.
        fwhm_scatter: Scatter of the PSF's width between images, of its natural logarithm.
        ellipticity: Standard deviation of each of the two ellipticities g of the PSF.
        depth_scatter: Scatter of the sky's noise between images, of its natural logarithm.
        zero_point: Error of the zero point of each band [mag].
        reddening: Mean E(B-V) of the Milky Way, exponentially distributed [mag].
        background: Standard deviation of what is left of the sky, and of its slope from the
            centre to the edge [noise of the sky per pixel].
        neighbours: Unrelated galaxies down to this i magnitude lie in the image; null: none.
    """

    is_on: bool
    fwhm_scatter: float
    ellipticity: float
    depth_scatter: float
    zero_point: float
    reddening: float
    background: float
    neighbours: float | None

    def __post_init__(self) -> None:
        for name, high in (
            ("fwhm_scatter", 0.5),
            ("ellipticity", 0.1),
            ("depth_scatter", 1.0),
            ("zero_point", 0.5),
            ("reddening", 1.0),
            ("background", 10.0),
        ):
            check_range(f"galaxy.systematics.{name}", getattr(self, name), 0.0, high)
        if self.neighbours is not None:
            check_range("galaxy.systematics.neighbours", self.neighbours, 18.0, 26.0)


@dataclass
class GalaxySettings:
    """A suite of galaxies, of groups (`group` is given) or of clusters (`cluster` is given).

    Args:
        name: Name of the suite.
        realization: Which set of objects; suites with the same number and seed share them.
        snapshots: Distribution of the redshift at which the objects of each snapshot are seen, by
            the number of the snapshot. The largest number is the last in time.
        imaging: Pixels, PSF, noise.
        mergers: Hidden histories.
        galaxies: How galaxies are; null for clusters.
        group: How groups are; null for others.
        cluster: How clusters are; null for others.
        systematics: What a survey adds.
    """

    name: str
    realization: int
    snapshots: dict[int, str]
    imaging: ImagingSettings
    mergers: MergerSettings
    galaxies: GalaxiesSettings | None
    group: GroupSettings | None
    cluster: ClusterSettings | None
    systematics: SystematicsSettings

    def __post_init__(self) -> None:
        check_range("galaxy.realization", self.realization, 0)
        if not self.snapshots or min(self.snapshots) < 0 or max(self.snapshots) > 999:
            raise ConfigError(
                "expected galaxy.snapshots to hold numbers in [0, 999], at least one, but got "
                f"{list(self.snapshots)}",
                value=list(self.snapshots),
                allowed="numbers in [0, 999]",
            )
        for number, text in self.snapshots.items():
            check_distribution(f"galaxy.snapshots.{number}", text, *REDSHIFTS)
        self._check_kind()

    @property
    def kind(self) -> str:
        """Return galaxies, groups or clusters."""
        if self.cluster is not None:
            return "clusters"
        return "galaxies" if self.group is None else "groups"

    def _check_kind(self) -> None:
        """Raise `ConfigError` unless what is given fits together."""
        is_xray = XRAY in self.imaging.bands
        clusters = self.cluster is not None and self.galaxies is None and self.group is None
        galaxies = self.cluster is None and self.galaxies is not None
        if clusters and is_xray and not self.systematics.is_on:
            return
        if galaxies and not is_xray:
            return
        given = [name for name in ("galaxies", "group", "cluster") if getattr(self, name)]
        got = f"{' and '.join(given) or 'none'} with bands {', '.join(self.imaging.bands)}"
        raise ConfigError(
            "expected galaxy to hold galaxies alone, galaxies and group, each in bands out of "
            f"{', '.join(BANDS)}, or cluster alone in xray without systematics, but got {got}"
            f" and systematics.is_on = {str(self.systematics.is_on).lower()}",
            value=got,
            allowed="galaxies | galaxies and group | cluster",
        )


_PARTS: dict[str, Any] = {
    "imaging": ImagingSettings,
    "mergers": MergerSettings,
    "galaxies": GalaxiesSettings,
    "group": GroupSettings,
    "cluster": ClusterSettings,
    "systematics": SystematicsSettings,
}


def galaxy_settings(values: Mapping[str, Any]) -> GalaxySettings:
    """Build a suite from plain nested values, as YAML holds them.

    Raises:
        ConfigError: A key is unknown or missing, or a value is out of range.
    """
    built = dict(values)
    for name, part in _PARTS.items():
        if isinstance(built.get(name), Mapping):
            built[name] = build_checked(part, built[name], f"galaxy.{name}")
    settings: GalaxySettings = build_checked(GalaxySettings, built, "galaxy")
    return settings
