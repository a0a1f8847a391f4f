"""How maps of halos are predicted on; the values stand in `conf/predict/halos.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from encoders.data import SPLITS
from inference.settings import RunSettings, at_least, refuse


@dataclass(frozen=True)
class HaloSettings(RunSettings):
    """How maps of halos are predicted on.

    Args:
        sets: Folders below `cached_data_path`; null for all.
        split: Only maps of the halos of this split; null for all.
        ensemble: Checkpoints of further trainings like the first one, which answer together.
        summarise: Whether to say what each set tells as a whole.
        n_compared: Maps of a set that are compared with those of the training.
        n_permutations: Of the tests that compare them.
        evaluate: Compare with the truth where it is known.
    """

    sets: list[str] | None
    split: str | None
    ensemble: list[str]
    summarise: bool
    n_compared: int
    n_permutations: int
    evaluate: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("n_compared", self.n_compared, 4)
        at_least("n_permutations", self.n_permutations, 1)
        if self.split is not None and self.split not in SPLITS:
            refuse("predict.split", self.split, f"null | {' | '.join(SPLITS)}")
        if self.sets is not None and not self.sets:
            refuse("predict.sets", self.sets, "null or names of sets")
        if self.weight_save_path in self.ensemble or len(set(self.ensemble)) < len(self.ensemble):
            refuse("predict.ensemble", self.ensemble, "checkpoints that are not named twice")

    def result_settings(self) -> dict[str, Any]:
        """Return the settings on which the numbers in the table depend."""
        names = ("batch_size", "n_threads", "precision")
        return {name: getattr(self, name) for name in names}
