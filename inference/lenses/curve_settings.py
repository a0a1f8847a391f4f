"""How trainings are compared; the values stand in `conf/evaluate/learning_curve.yaml`."""

from __future__ import annotations

from dataclasses import dataclass

from datagen.errors import ConfigError


@dataclass(frozen=True)
class CurveSettings:
    """How trainings with different numbers of images are compared.

    Args:
        runs_dir: Folder below which the runs are.
        output_dir: Where tables and picture go.
        reference: Model to which the others are compared image by image; null for none.
        confidence: Of the intervals.
    """

    runs_dir: str
    output_dir: str
    reference: str | None
    confidence: float

    def __post_init__(self) -> None:
        if not 0 < self.confidence < 1:
            raise ConfigError(
                "expected evaluate.confidence to be a number between 0 and 1, but got "
                f"evaluate.confidence = {self.confidence}",
                value=self.confidence,
                allowed="0 to 1",
            )
