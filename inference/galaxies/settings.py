"""How stamps are predicted on; the values stand in `conf/predict/galaxies.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.settings import RunSettings, at_least, refuse


@dataclass(frozen=True)
class GalaxySettings(RunSettings):
    """How stamps are predicted on.

    Args:
        suites: Folders below `cached_data_path`; null for all.
        scale_tolerance: Largest relative difference between the median pixel scale of a suite and
            that of the training; null allows any.
        evaluate: Compare with labels where there are any.
        n_evaluated: Stamps of a suite that are compared, at most.
    """

    suites: list[str] | None
    scale_tolerance: float | None
    evaluate: bool
    n_evaluated: int

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("n_evaluated", self.n_evaluated, 2)
        if self.suites is not None and not self.suites:
            refuse("predict.suites", self.suites, "null or names of suites")
        if self.scale_tolerance is not None and not self.scale_tolerance > 0:
            refuse("predict.scale_tolerance", self.scale_tolerance, "null or a number > 0")

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which the numbers in the table depend."""
        names = ("batch_size", "n_threads", "precision")
        return {name: getattr(self, name) for name in names}
