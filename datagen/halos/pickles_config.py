"""Settings of `data_gen=halos_pickles`; the values stand in `conf/data_gen/halos_pickles.yaml`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_choice, check_keys, check_positive, check_subset
from datagen.errors import ConfigError
from datagen.halos.version import CHANNELS, FORMAT_VERSION
from datagen.pipeline import JobSettings

if TYPE_CHECKING:
    from datagen.pipeline import Phase

NORMS = ("multiply", "ignore")
ORDER = "order"
MATCHES = ("labels", ORDER)


@dataclass(frozen=True)
class HalosPicklesConfig(JobSettings):
    """Everything that `data_gen=halos_pickles` needs; `nfiles` is the largest number of pickles.

    Args:
        pickles_dir: Folder of the pickles.
        pattern: Which of its files belong to the suite, as in a shell.
        suite: Name of the suite.
        channels: What the maps shall show, in this order.
        planes: Number of channels in a pickle -> which of them the maps take, from 0, in the order
            of `channels`.
        norms: `multiply` the maps by the label `norms`, which undoes their division by it, or
            `ignore` it.
        factors: Channel -> factor that brings the maps to its unit.
        units: Channel -> unit, as FITS writes it.
        mass_factor: What the label `mass` is multiplied by [Msun].
        pixel_scale: Side of a pixel [kpc].
        depth: Length of the line of sight in a map [kpc].
        match: How a halo is recognised in other pickles: by `labels`, or by `order`: the n-th halo
            of a pickle is the n-th of all.
        cluster_labels: Labels that together identify a halo in all pickles. One that a pickle lacks
            leaves its halos unmatched, and its header says so.
        initial_conditions: Name of the initial conditions, for suites that share them and their
            halos; None: those of no other suite.
    """

    pickles_dir: str
    pattern: str
    suite: str
    channels: list[str]
    planes: dict[int, list[int]]
    norms: str
    factors: dict[str, float]
    units: dict[str, str]
    mass_factor: float
    pixel_scale: float
    depth: float
    match: str
    cluster_labels: list[str]
    initial_conditions: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_subset("data_gen.channels", self.channels, CHANNELS)
        check_choice("data_gen.norms", self.norms, NORMS)
        check_choice("data_gen.match", self.match, MATCHES)
        if not self.cluster_labels:
            raise ConfigError("expected data_gen.cluster_labels to name a label, but got []", [])
        for name in ("factors", "units"):
            check_keys(f"data_gen.{name}", getattr(self, name), self.channels, CHANNELS)
        for channel in self.channels:
            check_positive(f"data_gen.factors.{channel}", self.factors[channel])
        for name in ("mass_factor", "pixel_scale", "depth"):
            check_positive(f"data_gen.{name}", getattr(self, name))
        for n_channels, planes in self.planes.items():
            are_there = set(planes) <= set(range(n_channels)) and len(set(planes)) == len(planes)
            if not are_there or len(planes) != len(self.channels):
                allowed = f"{len(self.channels)} distinct numbers from 0 to {n_channels - 1}"
                raise ConfigError(
                    f"expected data_gen.planes.{n_channels} to name a plane for each of "
                    f"{', '.join(self.channels)}, {allowed}, but got {list(planes)}",
                    list(planes),
                    allowed,
                )

    @property
    def identity(self) -> int:
        """Number that maps of the same initial conditions share, kept as their SEED."""
        name = self.initial_conditions or f"suite {self.suite}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") >> 1

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        content = super().content()
        del content["pickles_dir"], content["pattern"]
        return content | {"format_version": FORMAT_VERSION}

    def owned(self) -> list[str]:
        """Return patterns of the maps and of their truth."""
        return ["maps/halos_*", "truth/halos_*"]

    def build_phases(self) -> list[Phase]:
        """Return one job per pickle."""
        from datagen.halos.pickles import build_phases

        return build_phases(self)
