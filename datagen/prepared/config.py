"""Settings of `data_gen=prepared`; the values stand in `conf/data_gen/prepared.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from datagen.checks import check_choice, check_positive, check_range
from datagen.errors import ConfigError
from datagen.pipeline import JobSettings
from datagen.prepared.matching import STRATEGIES
from datagen.prepared.splitting import check_fractions
from datagen.prepared.version import FORMAT_VERSION

if TYPE_CHECKING:
    from datagen.pipeline import Phase

__all__ = ["CleanSettings", "MatchSettings", "PreparedConfig", "SplitSettings", "StretchSettings"]


# The nested classes are not frozen: OmegaConf makes nested frozen classes read-only before it
# merges values into them.
@dataclass
class CleanSettings:
    """Which rows stay.

    Args:
        finite: Fields that must be known: rows with nan or inf in one of them are dropped.
        ranges: Field -> [lowest, highest] value that stays, ends included; None is an open end.
            None cuts nothing.
    """

    finite: list[str]
    ranges: dict[str, list[float | None]] | None

    def __post_init__(self) -> None:
        for name, ends in (self.ranges or {}).items():
            known = [end for end in ends if end is not None]
            if len(ends) != 2 or not known or (len(known) == 2 and not known[0] <= known[1]):
                raise ConfigError(
                    f"expected data_gen.clean.ranges.{name} to be [lowest, highest], with null for "
                    f"one open end, but got {list(ends)}",
                    list(ends),
                )


@dataclass
class SplitSettings:
    """Which split an object belongs to.

    Args:
        by: `object`, or a column of ids that link the snapshots of an object.
        seed: Another seed gives another assignment.
        fractions: Share of the objects in each of train, val, test and domain.
    """

    by: str
    seed: int
    fractions: dict[str, float]

    def __post_init__(self) -> None:
        check_range("data_gen.split.seed", self.seed, 0)
        self.fractions = check_fractions(self.fractions)


@dataclass
class MatchSettings:
    """Which rows of other suites are paired with those of one suite.

    Args:
        source: The suite in which partners are looked for; None matches nothing.
        targets: Suites whose rows get a partner; each has the whole source for itself.
        tolerance: Field -> largest difference of partners, in the unit of the field;
            None where nothing is matched.
        strategy: `random`, `nearest` or `max`.
        within_splits: Pair only rows of the same split.
    """

    source: str | None
    targets: list[str]
    tolerance: dict[str, float] | None
    strategy: str
    within_splits: bool

    def __post_init__(self) -> None:
        check_choice("data_gen.match.strategy", self.strategy, STRATEGIES)
        for name, value in (self.tolerance or {}).items():
            check_positive(f"data_gen.match.tolerance.{name}", value)
        if self.source is None and self.targets:
            raise ConfigError(
                f"expected data_gen.match.source to name a suite for targets = {self.targets}, but "
                "got source = null",
                None,
            )
        if self.source is None:
            return
        are_others = len(set(self.targets)) == len(self.targets) and self.source not in self.targets
        if not self.targets or not are_others:
            raise ConfigError(
                "expected data_gen.match.targets to name suites other than source = "
                f"{self.source}, each once, but got targets = {self.targets}",
                self.targets,
            )
        if not self.tolerance:
            raise ConfigError(
                "expected data_gen.match.tolerance to have a field, such as {z: 0.01}, but got "
                f"tolerance = {self.tolerance}",
                self.tolerance,
            )


@dataclass
class StretchSettings:
    """How pixels are brought to a range for a network: asinh(pixel / softening).

    Args:
        softening: [unit of the pixels]; None takes `sigmas` times the noise of the sky.
        sigmas: The softening in units of the noise of the sky.
        suite: Whose sky counts; None takes all suites.
        n_stamps: Stamps in which the noise is measured where no column SKYSIGMA tells it.
    """

    softening: float | None
    sigmas: float
    suite: str | None
    n_stamps: int

    def __post_init__(self) -> None:
        if self.softening is not None:
            check_positive("data_gen.stretch.softening", self.softening)
        check_positive("data_gen.stretch.sigmas", self.sigmas)
        check_range("data_gen.stretch.n_stamps", self.n_stamps, 1)


@dataclass(frozen=True)
class PreparedConfig(JobSettings):
    """Everything that `data_gen=prepared` needs; `nfiles` is the most files of each suite.

    Args:
        stamps_dir: Folder that holds a folder of stamps for each suite.
        suites: Their names; None takes all that there are.
        bands: Bands that every suite has to have; None asks for the same bands in all.
        scale_tolerance: Largest relative difference between median pixel scales of suites; None
            allows any.
        clean: Which rows stay.
        split: Which split an object belongs to.
        match: Which rows are paired.
        stretch: How pixels are brought to a range.
    """

    stamps_dir: str
    suites: list[str] | None
    bands: list[str] | None
    scale_tolerance: float | None
    clean: CleanSettings
    split: SplitSettings
    match: MatchSettings
    stretch: StretchSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("suites", "bands"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) < len(values)):
                raise ConfigError(
                    f"expected data_gen.{name} to be distinct names, or null, but got {values}",
                    values,
                )
        if self.scale_tolerance is not None:
            check_range("data_gen.scale_tolerance", self.scale_tolerance, 0)

    def check_suites(self, there: list[str]) -> None:
        """Raise `ConfigError` where a setting names a suite that is not prepared."""
        wanted = [("match.targets", name) for name in self.match.targets]
        wanted += [(key, name) for key, name in (("match.source", self.match.source),
                                                 ("stretch.suite", self.stretch.suite))
                   if name is not None]  # fmt: skip
        for key, name in wanted:
            if name not in there:
                raise ConfigError(
                    f"expected data_gen.{key} to be among the prepared suites "
                    f"{', '.join(there)}, but got {name}",
                    name,
                    there,
                )

    def content(self) -> dict[str, Any]:
        """Return the settings that determine the bytes of the outputs."""
        content = super().content()
        del content["stamps_dir"]
        content["suites"] = sorted(self.suites) if self.suites is not None else None
        return content | {"format_version": FORMAT_VERSION}

    def owned(self) -> list[str]:
        """Return the names of the outputs."""
        from datagen.prepared.format import NAMES

        return list(NAMES)

    def build_phases(self) -> list[Phase]:
        """Return the only job."""
        from datagen.prepared.jobs import build_phases

        return build_phases(self)
