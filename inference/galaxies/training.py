"""What the objects of stamps were in the training of an encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from datagen.prepared.splitting import UNKNOWN, assign, identities, numbers_of

OBJECT = "object"


@dataclass(frozen=True)
class Training:
    """How the objects of a training were split.

    Args:
        suites: Names of the suites that took part.
        by: `object`, or the column whose values stamps of one object share; None where the card of
            the encoder does not say.
        seed: Of the split.
        fractions: Share of each split.
    """

    suites: tuple[str, ...]
    by: str | None
    seed: int
    fractions: Mapping[str, float]

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Training:
        """Return what the card of an encoder says."""
        is_known = {"splits", "split_seed", "split_by"} <= card.keys()
        by = str(card["split_by"]) if is_known else None
        seed, fractions = card.get("split_seed", 0), card.get("splits", {})
        return cls(tuple(card.get("suites", ())), by, int(seed), fractions)

    def knows(self, names: list[str]) -> bool:
        """Tell whether splits follow from the columns of a table."""
        return self.by is not None and self.by in (OBJECT, *names)

    def look_up(self, suite: str, table: Table) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
        """Return what the object of each stamp is, and what it was in the training.

        Args:
            suite: Name of the suite.
            table: Of the stamps (n,).

        Returns:
            Numbers that stamps of one object share, as in `prepared.fits`, and splits, empty where
            a stamp had no part in the training or that cannot be known.

        Raises:
            DataFormatError: The column holds no ids.
        """
        own = identities(np.asarray(table["OBJECT"]), "OBJECT")
        if not self.knows(table.colnames):
            ids = np.full(len(own), UNKNOWN)
        else:
            ids = own if self.by == OBJECT else identities(np.asarray(table[self.by]), str(self.by))
        # Numbers of objects are none of the ids that link them.
        numbers = numbers_of(np.where(ids == UNKNOWN, np.char.add("object ", own), ids))
        if suite not in self.suites or not self.fractions:
            return numbers, np.full(len(own), "")
        splits = assign(numbers, self.seed, self.fractions)
        return numbers, np.where(ids == UNKNOWN, "", splits)
