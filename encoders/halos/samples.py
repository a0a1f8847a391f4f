"""Answers of an encoder beside what the files say of the maps, whatever a training was told."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.halos.collection import Halos
from encoders.halos.losses import UNLABELLED
from encoders.halos.metrics import Answers
from encoders.halos.sets import CLASS, HELD_OUT, Numbers, Wanted

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Groups:
    """Maps of one set and one cross-section, which are shown and counted together.

    Args:
        sets: Number of the set of each group (G,).
        cross_sections: Of each group [cm^2/g], NaN where unknown (G,).
        names: What they are called.
        number: Group of each map (n,).
    """

    sets: Numbers
    cross_sections: Array
    names: list[str]
    number: Numbers


@dataclass(frozen=True)
class Sample:
    """Answers to some maps.

    Args:
        answers: Of the encoder (n,).
        halo: Number of the halo of each map, the same in all sets of one collection (n,).
        cross_section: True one [cm^2/g], NaN where the files have none (n,).
        classes: Numbers of the true classes, -1 where there is none (n,).
        sets: All sets of the collection.
    """

    answers: Answers
    halo: Numbers
    cross_section: Array
    classes: Numbers
    sets: Sequence[Wanted]

    @classmethod
    def of(cls, halos: Halos, answers: Answers) -> Sample:
        """Look the maps of some answers up."""
        numbers = halos.numbers_of(answers.sets.numpy(), answers.index.numpy())
        names = np.unique(halos.halo, return_inverse=True)[1].reshape(-1)
        wanted, true = [one.wanted for one in halos.sets], halos.cross_section[numbers]
        is_class = np.array([one.labels == CLASS for one in wanted])[answers.sets.numpy()]
        by_truth = classes_of(true, halos.classes.cross_sections)
        classes = np.where(is_class, answers.classes.numpy(), by_truth)
        return cls(answers, names[numbers], true, classes, wanted)

    def __len__(self) -> int:
        return len(self.halo)

    @property
    def z(self) -> Array:
        """Latents (n, L)."""
        return np.asarray(self.answers.z.numpy())

    @property
    def is_held_out(self) -> NDArray[np.bool_]:
        """Whether a map is of a set that is only tested (n,)."""
        held_out = np.array([one.labels == HELD_OUT for one in self.sets], dtype=bool)
        return np.asarray(held_out[self.answers.sets.numpy()])

    @functools.cached_property
    def groups(self) -> Groups:
        """Sets and true cross-sections of the maps, in the order of the sets."""
        # NaN, which is unequal to itself, comes last as one group.
        pairs = np.stack((self.answers.sets.numpy(), np.nan_to_num(self.cross_section, nan=np.inf)))
        found, number = np.unique(pairs.T, axis=0, return_inverse=True)
        sets, sigmas = found[:, 0].astype(np.int64), found[:, 1]
        names = [
            f"{self.sets[k].name} {sigma:g}" if np.isfinite(sigma) else self.sets[k].name
            for k, sigma in zip(sets.tolist(), sigmas.tolist(), strict=True)
        ]
        known = np.where(np.isfinite(sigmas), sigmas, np.nan)
        return Groups(sets, known, names, number.reshape(-1).astype(np.int64))


def classes_of(cross_section: Array, known: Sequence[float | None] | Array) -> Numbers:
    """Return the number of the class of each true cross-section, -1 where it is none of them.

    Args:
        cross_section: True ones [cm^2/g], NaN where unknown (n,).
        known: Of each class, NaN or None where unknown (K,).
    """
    values = np.asarray(known, np.float64)
    is_same = cross_section[:, None] == values
    # Without classes there is nothing to choose from.
    best = is_same.argmax(axis=1) if len(values) else np.zeros(len(is_same))
    return np.where(is_same.any(axis=1), best, UNLABELLED).astype(np.int64)
