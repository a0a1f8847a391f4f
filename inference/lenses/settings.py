"""How lens images are classified; the values stand in `conf/predict/lenses.yaml`."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from encoders.data import SPLITS
from encoders.lenses.program import check_suffix
from inference.settings import RunSettings, at_least, refuse


@dataclass(frozen=True)
class LensSettings(RunSettings):
    """How lens images are classified.

    Args:
        split: Only the images of this split; null for all.
        images_per_part: Images in one part of the table, where each has a file of its own.
        unsure_threshold: Images whose greatest probability is below it are unsure; null takes the
            one that the checkpoint brings.
        evaluate: Compare with the truth where it is known.
        delta_chi2_bins: Edges of the accuracy against Delta chi2.
        n_examples: Images of each true class in the picture of examples.
        export_path: Where the classifier is written as a program, .pt2 or .onnx; null: nowhere.
    """

    split: str | None
    images_per_part: int
    unsure_threshold: float | None
    evaluate: bool
    delta_chi2_bins: list[float]
    n_examples: int
    export_path: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("images_per_part", self.images_per_part, 1)
        at_least("n_examples", self.n_examples, 0)
        if self.export_path is not None:
            check_suffix(self.export_path)
        if self.split is not None and self.split not in SPLITS:
            refuse("predict.split", self.split, f"null | {' | '.join(SPLITS)}")
        threshold = self.unsure_threshold
        if threshold is not None and not 0 <= threshold <= 1:
            refuse("predict.unsure_threshold", threshold, "null or a number from 0 to 1")
        edges = self.delta_chi2_bins
        if len(edges) < 2 or any(low >= high for low, high in itertools.pairwise(edges)):
            refuse("predict.delta_chi2_bins", edges, "two or more rising edges")

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which the probabilities and the table depend."""
        names = ("batch_size", "n_threads", "precision", "unsure_threshold")
        return {name: getattr(self, name) for name in names}
