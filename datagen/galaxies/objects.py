"""Settings of groups and of clusters; the values stand in `conf/galaxy/*.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from datagen.checks import check_range
from datagen.distributions import Drawn


@dataclass
class GroupSettings(Drawn):
    """A brightest galaxy (BCG) with satellites in an NFW halo.

    Args:
        log_mass: Distribution of M_200c [log10 Msun].
        concentration: Distribution of r_200 / r_s of the satellites.
        n_satellites: Mean number at M_200c = 10^13.5 Msun.
        n_satellites_slope: The mean grows with M_200c to this power.
        satellite_mass: Distribution of their stellar mass [that of the BCG].
        quenching: Share of satellites that the group quenches.
        log_bcg_mass: Mean stellar mass of the BCG at M_200c = 10^13.5 Msun [log10 Msun].
        log_bcg_mass_slope: Its slope in log M_200c.
        log_bcg_mass_scatter: Scatter about it [dex].
        halo_share: Light between the galaxies over that of the BCG; mergers add to it.
        halo_size: Half-light radius of that light over that of the BCG.
    """

    NAME: ClassVar[str] = "galaxy.group"

    log_mass: str
    concentration: str
    n_satellites: float
    n_satellites_slope: float
    satellite_mass: str
    quenching: float
    log_bcg_mass: float
    log_bcg_mass_slope: float
    log_bcg_mass_scatter: float
    halo_share: float
    halo_size: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {
            "log_mass": (12.5, 15.0),
            "concentration": (1.0, 20.0),
            "satellite_mass": (0.001, 1.0),
        }

    def __post_init__(self) -> None:
        for name, (low, high) in {
            "n_satellites": (0.0, 200.0),
            "n_satellites_slope": (0.0, 2.0),
            "quenching": (0.0, 1.0),
            "log_bcg_mass": (10.0, 12.0),
            "log_bcg_mass_slope": (0.0, 1.0),
            "log_bcg_mass_scatter": (0.0, 0.5),
            "halo_share": (0.0, 1.0),
            "halo_size": (1.0, 20.0),
        }.items():
            check_range(f"galaxy.group.{name}", getattr(self, name), low, high)
        self.check_distributions()


@dataclass
class ClusterSettings(Drawn):
    """Hot gas in X-rays: beta models with cool cores and clumps.

    Args:
        log_mass: Distribution of M_200c at the last snapshot [log10 Msun].
        growth: Distribution of a in M(z) ~ exp(-a z) (Wechsler et al. 2002).
        beta: Distribution of the slope of the surface brightness,
            S ~ (1 + R^2 / r_c^2)^(1/2 - 3 beta).
        core: Core radius r_c [r_500].
        core_scatter: Scatter of r_c [dex].
        axis_ratio: Distribution of the shortest over the longest axis.
        cool_share: Share of clusters with a cool core, if they do not merge.
        cool_light: Light of a full cool core over all light within r_500.
        cool_size: Core radius of a cool core [r_c].
        cooling_time: Time in which a cool core comes back after a merger [Gyr].
        n_clumps: Mean number of small clumps.
        clump_light: Distribution of the light of a small clump over all light within r_500.
        clump_size: Core radius of a small clump [r_c].
        log_counts: Mean number of photons within r_500 at M_200c = 10^14.5 Msun at any redshift
            [log10]; distant clusters are exposed longer.
        log_counts_slope: Its slope in log M_200c.
        log_counts_scatter: Scatter about it [dex].
    """

    NAME: ClassVar[str] = "galaxy.cluster"

    log_mass: str
    growth: str
    beta: str
    core: float
    core_scatter: float
    axis_ratio: str
    cool_share: float
    cool_light: float
    cool_size: float
    cooling_time: float
    n_clumps: float
    clump_light: str
    clump_size: float
    log_counts: float
    log_counts_slope: float
    log_counts_scatter: float

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {
            "log_mass": (13.5, 15.7),
            "growth": (0.0, 3.0),
            "beta": (0.52, 1.2),
            "axis_ratio": (0.3, 1.0),
            "clump_light": (0.0, 0.1),
        }

    def __post_init__(self) -> None:
        for name, (low, high) in {
            "core": (0.01, 1.0),
            "core_scatter": (0.0, 0.5),
            "cool_share": (0.0, 1.0),
            "cool_light": (0.0, 0.9),
            "cool_size": (0.05, 1.0),
            "cooling_time": (0.1, 13.0),
            "n_clumps": (0.0, 50.0),
            "clump_size": (0.05, 1.0),
            "log_counts": (0.0, 8.0),
            "log_counts_slope": (0.0, 3.0),
            "log_counts_scatter": (0.0, 1.0),
        }.items():
            check_range(f"galaxy.cluster.{name}", getattr(self, name), low, high)
        self.check_distributions()
