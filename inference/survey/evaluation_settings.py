"""What a user may set in an evaluation; all values come from `conf/evaluate.yaml`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from datagen.errors import ConfigError
from inference.survey.matching import PREFERENCES


@dataclass(frozen=True)
class EvaluateSettings:
    """How candidates are compared with a catalogue.

    Args:
        prediction_dir: Output folder of a prediction.
        output_dir: Where tables and plots go.
        reference: Truth or reference catalogue.
        columns: Our column names -> names in the catalogue; None where they are recognised.
        sources: Source catalogue of a survey tile below the prediction's input folder, with
            `{tile}`; cell metrics are left out where it does not exist.
        match_radius_arcmin: Largest separation of a match [arcmin].
        preference: Which partner wins: one of `PREFERENCES`.
        redshift_window: Largest |z_candidate - z_reference| / (1 + z_reference) of a match, where
            both are known; null for any.
        richness_min: Reference clusters below it do not count; null for all.
        purity_richness_min: Candidates may match any reference cluster down to this richness,
            labelled or not; null: the labelled ones down to `richness_min`.
        redshift_range: Reference clusters outside do not count; null for all.
        score_min: Candidates below it do not count; null for all.
        richness_bins: Edges for completeness (reference) and purity (candidates).
        redshift_bins: Likewise.
        score_bins: Edges for the purity.
        n_plots: Survey tiles to plot.
    """

    prediction_dir: str
    output_dir: str
    reference: str
    sources: str
    match_radius_arcmin: float
    preference: str
    redshift_window: float | None
    richness_min: float | None
    purity_richness_min: float | None
    redshift_range: list[float] | None
    score_min: float | None
    richness_bins: list[float]
    redshift_bins: list[float]
    score_bins: list[float]
    n_plots: int
    columns: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.match_radius_arcmin <= 0:
            _refuse("match_radius_arcmin", self.match_radius_arcmin, "a number > 0 [arcmin]")
        if self.preference not in PREFERENCES:
            _refuse("preference", self.preference, " | ".join(PREFERENCES))
        if self.redshift_window is not None and not self.redshift_window > 0:
            _refuse("redshift_window", self.redshift_window, "null or a number > 0")
        if self.redshift_range is not None and not _rises(self.redshift_range, 2):
            _refuse("redshift_range", self.redshift_range, "null or [low, high]")
        for name in ("richness_bins", "redshift_bins", "score_bins"):
            if not _rises(getattr(self, name), None):
                _refuse(name, getattr(self, name), "two or more rising edges")
        if self.n_plots < 0:
            _refuse("n_plots", self.n_plots, "a number >= 0")


def _rises(edges: list[float], length: int | None) -> bool:
    enough = len(edges) >= 2 if length is None else len(edges) == length
    return enough and all(a < b for a, b in itertools.pairwise(edges))


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"expected evaluate.{name} to be {allowed}, but got evaluate.{name} = {value}",
        value=value,
        allowed=allowed,
    )
