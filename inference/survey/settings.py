"""How a prediction on survey tiles runs; the values stand in `conf/predict/survey.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from datagen.errors import ConfigError

BLENDS = ("crop", "taper")


@dataclass(frozen=True)
class PredictSettings:
    """How a prediction on survey tiles runs.

    Args:
        cached_data_path: Folder of the survey tiles.
        weight_save_path: Checkpoint of the encoder.
        output_dir: Where scores and catalogues go.
        batch_size: Windows in one forward pass.
        num_workers: Loader processes of each rank; 0 reads in the main process.
        prefetch: Batches that a thread of each loader reads ahead; 0 reads them when their turn
            has come.
        devices: Number of devices, or a list of their indices.
        accelerator: Lightning's word for the kind of device.
        strategy: Lightning's word for how several devices work together.
        num_nodes: Number of machines.
        precision: Lightning's word, such as 32-true or bf16-mixed.
        compile: Compile the encoder for the shape of the windows before the first one.
        n_threads: CPU threads of each rank; fixed because sums depend on it in the last bits.
        overwrite: Compute finished survey tiles again, and accept other settings than before.
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

    cached_data_path: str
    weight_save_path: str
    output_dir: str
    batch_size: int
    num_workers: int
    prefetch: int
    devices: Any
    accelerator: str
    strategy: str
    num_nodes: int
    precision: str
    compile: bool
    n_threads: int
    overwrite: bool
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
        for name in ("batch_size", "num_nodes", "n_threads", "window_px", "stride_px", "min_cells"):
            _at_least(name, getattr(self, name), 1)
        for name in (
            "num_workers",
            "prefetch",
            "halo_px",
            "separation_cells",
            "merge_radius_arcmin",
        ):
            _at_least(name, getattr(self, name), 0)
        for name in ("threshold", "prevalence"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                _refuse(f"predict.{name}", value, "null or a number between 0 and 1")
        if self.blend not in BLENDS:
            _refuse("predict.blend", self.blend, " | ".join(BLENDS))

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which scores and catalogues depend."""
        names = ("batch_size", "n_threads", "precision", "threshold", "prevalence")
        windows = ("window_px", "stride_px", "halo_px", "blend")
        candidates = ("separation_cells", "min_cells")
        # Only where it is used: results of runs before it was there stay valid.
        compiled = ("compile",) if self.compile else ()
        return {name: getattr(self, name) for name in names + windows + candidates + compiled}


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        _refuse(f"predict.{name}", value, f"a number >= {least}")


def _refuse(name: str, value: object, allowed: str) -> None:
    raise ConfigError(
        f"expected {name} to be {allowed}, but got {name} = {value}", value=value, allowed=allowed
    )
