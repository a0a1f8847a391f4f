"""How a prediction on survey tiles runs; the values stand in `conf/predict/survey.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.settings import RunSettings, at_least, refuse

BLENDS = ("crop", "taper")


@dataclass(frozen=True)
class PredictSettings(RunSettings):
    """How a prediction on survey tiles runs; an input of the encoder is a window.

    Args:
        prefetch: Batches that a thread of each loader reads ahead; 0 reads them when their turn
            has come.
        compile: Compile the encoder for the shape of the windows before the first one.
        threshold: Cells with a greater probability form candidates; null takes the tuned one.
        prevalence: Fraction of cells with members in the survey; null keeps the training's.
        window_px: Side of a window [px].
        stride_px: Step from one window to the next [px].
        halo_px: Border of a window whose scores are not used where another window has them [px].
        blend: crop (each cell from the window in which it is farthest from the edge) or taper.
        separation_cells: Peaks in one group of cells that are this far apart are two candidates.
        min_cells: Smallest number of cells of a candidate.
        merge_radius_arcmin: Candidates of different tiles within it, or whose circles come within
            1.5 cells of each other, are the same one.
        regions: Also write a DS9 region file for each survey tile.
    """

    prefetch: int
    compile: bool
    threshold: float | None
    prevalence: float | None
    window_px: int
    stride_px: int
    halo_px: int
    blend: str
    separation_cells: float
    min_cells: int
    merge_radius_arcmin: float
    regions: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window_px", "stride_px", "min_cells"):
            at_least(name, getattr(self, name), 1)
        for name in ("prefetch", "halo_px", "separation_cells", "merge_radius_arcmin"):
            at_least(name, getattr(self, name), 0)
        for name in ("threshold", "prevalence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                refuse(f"predict.{name}", value, "null or a number between 0 and 1")
        if self.blend not in BLENDS:
            refuse("predict.blend", self.blend, " | ".join(BLENDS))

    @property
    def batch(self) -> str:
        """What decides how much memory a forward pass needs, as users know it."""
        return f"{super().batch} windows of predict.window_px = {self.window_px}"

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which scores and catalogues depend."""
        names = ("batch_size", "n_threads", "precision", "threshold", "prevalence")
        windows = ("window_px", "stride_px", "halo_px", "blend")
        candidates = ("separation_cells", "min_cells")
        # Only where it is used: results of runs before it was there stay valid.
        compiled = ("compile",) if self.compile else ()
        return {name: getattr(self, name) for name in names + windows + candidates + compiled}
