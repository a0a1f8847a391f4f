"""Settings of subhalos and mergers; the values stand in `conf/halo/*.yaml`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from datagen.checks import check_range
from datagen.distributions import Drawn
from datagen.errors import ConfigError
from datagen.halos.power_laws import moment


@dataclass
class SubstructureSettings(Drawn):
    """Subhalos and mergers; their mass is taken from the host.

    Args:
        n_subhalos: Mean number of subhalos.
        slope: Their mass function dN / dm ~ m^-slope.
        share_min: Least mass of a subhalo [M_200].
        share_max: Largest mass of a subhalo [M_200].
        merger_share: Share of clusters that merge with another halo.
        merger_mass: Distribution of its mass [M_200].
        merger_distance: Distribution of its distance in three dimensions [kpc].
        is_evaporated: Whether self-interaction takes mass from subhalos.
    """

    NAME: ClassVar[str] = "halo.substructure"

    n_subhalos: float
    slope: float
    share_min: float
    share_max: float
    merger_share: float
    merger_mass: str
    merger_distance: str
    is_evaporated: bool

    def limits(self) -> dict[str, tuple[float, float]]:
        """See `Drawn`."""
        return {"merger_mass": (0.01, 0.4), "merger_distance": (50.0, 5000.0)}

    def __post_init__(self) -> None:
        check_range("halo.substructure.n_subhalos", self.n_subhalos, 0.0, 100.0)
        check_range("halo.substructure.slope", self.slope, 1.0, 3.0)
        check_range("halo.substructure.share_min", self.share_min, 1e-5, 0.05)
        check_range("halo.substructure.share_max", self.share_max, self.share_min, 0.05)
        check_range("halo.substructure.merger_share", self.merger_share, 0.0, 1.0)
        self.check_distributions()
        self._check_mass()

    def _check_mass(self) -> None:
        """Raise `ConfigError` if a halo may have less mass than its subhalos and merger."""
        mean, squared = (
            self.n_subhalos * moment(power, self.share_min, self.share_max, self.slope)
            for power in (1.0, 2.0)
        )
        # The mass of a Poisson number of subhalos hardly ever exceeds its mean by so much.
        most = mean + 6.0 * math.sqrt(squared)
        merger = self.distribution("merger_mass").bounds()[1] if self.merger_share else 0.0
        if most + merger > 1.0:
            raise ConfigError(
                "expected halo.substructure to leave mass to the host, but with n_subhalos = "
                f"{self.n_subhalos:g}, share_min = {self.share_min:g}, share_max = "
                f"{self.share_max:g} and merger_mass = {self.merger_mass} subhalos may hold "
                f"{most:.2f} of it and a merger {merger:.2f}; take fewer or lighter ones",
                value=most + merger,
                allowed="<= 1",
            )
