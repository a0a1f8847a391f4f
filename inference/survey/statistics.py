"""Completeness and purity of candidates, in bins and against the score threshold."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from datagen.errors import ConfigError
from datagen.seeds import stream
from datagen.tiles.geometry import pixel_to_sky
from inference.survey.matching import (
    Pairs,
    SkyCatalog,
    cross_match,
    multiple_match,
    wilson_interval,
)
from inference.survey.merge import TileFootprint
from inference.survey.references import ReferenceCatalog
from inference.survey.scores import ScoreMap

_N_STEPS = 41
_N_CHANCE = 20
_NEAREST = "angular_proximity"
CHANCE_PURITY, CHANCE_COMPLETENESS = "chance_purity", "chance_completeness"


@dataclass(frozen=True)
class MatchRule:
    """When a candidate and a cluster are the same.

    Args:
        radius_arcmin: Largest separation [arcmin].
        preference: Which partner wins.
        redshift_window: Largest |z - z of the cluster| / (1 + z of the cluster), where both are
            known, as ClEvaR's `delta_z` for the reference alone; None for any.
    """

    radius_arcmin: float
    preference: str
    redshift_window: float | None = None


@dataclass(frozen=True)
class Fraction:
    """A fraction of counts in one bin.

    Args:
        quantity: What it is, such as completeness or purity.
        variable: What the bin is in; `all` for one bin.
        low: Lower edge.
        high: Upper edge.
        n_matched: Numerator.
        n: Denominator.
    """

    quantity: str
    variable: str
    low: float
    high: float
    n_matched: int
    n: int

    @property
    def value(self) -> float:
        """The fraction, NaN without counts."""
        return self.n_matched / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson interval of 68 %."""
        low, high = wilson_interval(self.n_matched, self.n)
        return float(low), float(high)


@dataclass(frozen=True)
class Area:
    """Cells of one survey tile.

    Args:
        wcs: WCS of the survey tile.
        cell_px: Side of a cell [px].
        cells: Row and column of each cell, shape (n, 2).
    """

    wcs: WCS
    cell_px: int
    cells: NDArray[np.int64]


def candidate_sky(table: Table) -> SkyCatalog:
    """Return candidates as a catalogue to match; their score ranks them."""
    names = ("ra", "dec", "score", "redshift")
    return SkyCatalog(*(np.asarray(table[name], np.float64) for name in names))


def match(candidates: SkyCatalog, clusters: SkyCatalog, rule: MatchRule) -> NDArray[np.int64]:
    """Return for each candidate the row of its cluster, or -1."""
    return cross_match(candidates, clusters, within(candidates, clusters, rule), rule.preference)


def within(candidates: SkyCatalog, clusters: SkyCatalog, rule: MatchRule) -> Pairs:
    """Return all pairs that a rule allows."""
    return multiple_match(candidates, clusters, rule.radius_arcmin, rule.redshift_window)


def check_redshifts(candidates: SkyCatalog, clusters: SkyCatalog, rule: MatchRule) -> None:
    """Make sure that both catalogues have the redshifts that a rule asks for.

    A preference for redshifts needs all of them; a window leaves those alone that are unknown, but
    would be no window if all were.

    Raises:
        ConfigError: One catalogue lacks them.
    """
    by_redshift = rule.preference == "redshift_proximity"
    if not by_redshift and rule.redshift_window is None:
        return
    cause = f"redshift_window = {rule.redshift_window}"
    cause = f"preference = {rule.preference}" if by_redshift else cause
    for name, catalog, help_ in (
        ("candidates", candidates, "an encoder with a redshift head gives them"),
        ("reference clusters", clusters, "evaluate.columns.redshift=NAME names their column"),
    ):
        n_unknown = int(np.isnan(catalog.redshift).sum())
        if n_unknown and (by_redshift or n_unknown == len(catalog)):
            raise ConfigError(
                f"evaluate.{cause} needs redshifts, but {n_unknown} of {len(catalog)} {name} have "
                f"none; {help_}; evaluate.preference=angular_proximity with "
                "evaluate.redshift_window=null needs none",
                value=rule.preference if by_redshift else rule.redshift_window,
                allowed="angular_proximity | more_massive, null",
            )


def covered(
    maps: Sequence[ScoreMap], ra: NDArray[np.float64], dec: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which sky positions [deg] lie on a cell that was seen in any score map, shape (n,)."""
    result = np.zeros(len(ra), bool)
    for scores in maps:
        footprint = TileFootprint.of(scores)
        result |= footprint.contains(ra, dec) & footprint.shows(ra, dec)
    return result


def binned(
    quantity: str,
    variable: str,
    values: NDArray[np.float64],
    is_matched: NDArray[np.bool_],
    edges: Sequence[float],
) -> list[Fraction]:
    """Return the matched fraction in bins [low, high) of a variable."""
    result = []
    for low, high in itertools.pairwise(edges):
        mine = (values >= low) & (values < high)
        n_matched = int((mine & is_matched).sum())
        result.append(Fraction(quantity, variable, low, high, n_matched, int(mine.sum())))
    return result


def overall(quantity: str, is_matched: NDArray[np.bool_]) -> Fraction:
    """Return the matched fraction of all."""
    n_matched = int(is_matched.sum())
    return Fraction(quantity, "all", -np.inf, np.inf, n_matched, len(is_matched))


def chance_fractions(
    areas: Sequence[Area],
    candidates: SkyCatalog,
    complete: SkyCatalog,
    pure: SkyCatalog,
    rule: MatchRule,
) -> list[Fraction]:
    """Return purity and completeness of the candidates at random positions: what is to be beaten.

    A wide radius gives a high purity by chance, many candidates a high completeness.

    Args:
        areas: Where positions may lie.
        candidates: Their number and their redshifts count.
        complete: Clusters that should be found.
        pure: Clusters that candidates may match.
        rule: When they are the same; the nearest wins, whatever its preference.
    """
    n, rule = len(candidates), replace(rule, preference=_NEAREST)
    rng = stream(0, 0, "chance")
    n_real = n_found = 0
    for _ in range(_N_CHANCE if n else 0):
        ra, dec = random_positions(areas, n, rng)
        sky = SkyCatalog(ra, dec, rng.random(n), candidates.redshift)
        n_real += int((match(sky, pure, rule) >= 0).sum())
        n_found += int((match(sky, complete, rule) >= 0).sum())
    n_clusters = len(complete) if n else 0
    return [
        Fraction(CHANCE_PURITY, "all", -np.inf, np.inf, n_real, n * _N_CHANCE),
        Fraction(CHANCE_COMPLETENESS, "all", -np.inf, np.inf, n_found, n_clusters * _N_CHANCE),
    ]


def random_positions(
    areas: Sequence[Area], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `n` sky positions (ra, dec) [deg], uniform over the cells of the areas."""
    weight = np.array([len(area.cells) for area in areas], float)
    which = rng.choice(len(areas), size=n, p=weight / weight.sum())
    ra, dec = np.empty(n), np.empty(n)
    for number, area in enumerate(areas):
        mine = np.flatnonzero(which == number)
        if not len(mine):
            continue
        cell = area.cells[rng.integers(len(area.cells), size=len(mine))]
        y, x = ((cell + rng.random(cell.shape)) * area.cell_px - 0.5).T
        ra[mine], dec[mine] = pixel_to_sky(area.wcs, x, y)
    return ra, dec


def threshold_curve(
    candidates: SkyCatalog, complete: ReferenceCatalog, pure: ReferenceCatalog, rule: MatchRule
) -> Table:
    """Return completeness and purity of the candidates above rising score thresholds.

    Args:
        candidates: Candidates, score as mass.
        complete: Clusters that should be found.
        pure: Clusters that candidates may match.
        rule: When they are the same.

    Returns:
        Columns threshold, n_candidates, completeness, purity.
    """
    rows = []
    steps = np.unique(candidates.mass)
    if len(steps) > _N_STEPS:
        steps = np.unique(np.quantile(steps, np.linspace(0, 1, _N_STEPS)))
    for step in steps:
        keep = candidates.mass >= step
        kept = SkyCatalog(
            candidates.ra[keep],
            candidates.dec[keep],
            candidates.mass[keep],
            candidates.redshift[keep],
        )
        found = int((match(kept, complete.sky, rule) >= 0).sum())
        real = int((match(kept, pure.sky, rule) >= 0).sum())
        rate = found / len(complete) if len(complete) else np.nan
        rows.append((float(step), len(kept), rate, real / len(kept)))
    names = ["threshold", "n_candidates", "completeness", "purity"]
    return Table(rows=rows or None, names=names, dtype=[float, int, float, float])


def to_table(fractions: Sequence[Fraction], numerator: str = "n_matched") -> Table:
    """Return fractions as a table with their Wilson intervals (68 %).

    Args:
        fractions: The rows.
        numerator: Name of the column `n_matched`.
    """
    table = Table()
    for name in ("quantity", "variable", "low", "high", "n_matched", "n", "value"):
        table[name] = [getattr(fraction, name) for fraction in fractions]
    table.rename_column("n_matched", numerator)
    table["wilson_low"] = [fraction.interval[0] for fraction in fractions]
    table["wilson_high"] = [fraction.interval[1] for fraction in fractions]
    return table
