"""What maps truly are, and by how much an encoder is right, whatever its training was told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.halos.collection import open_halos
from encoders.halos.judge import Judge
from encoders.halos.judgement import Judged, Trio, group_rows
from encoders.halos.metrics import Answers
from encoders.halos.samples import Sample, classes_of
from encoders.halos.sets import parse_sets


def test_classes_are_those_of_the_cross_section() -> None:
    found = classes_of(np.array([0.1, np.nan, 0.0, 0.3]), [0.0, 0.1, None])
    assert found.tolist() == [1, -1, 0, -1]
    assert classes_of(np.array([0.1, np.nan]), []).tolist() == [-1, -1]


def test_accuracy_asks_the_files_and_not_the_training(halos_dir: Path) -> None:
    """Sets b and c are unlabelled and held out; 0.1 of a is a class of its own, called `one`."""
    one = {"labels": "class", "folder": "a", "cross_sections": [0.1]}
    known = {"labels": "known", "cross_sections": [0.0, 1.0]}
    sets = parse_sets({"a": known, "one": one, "b": "none", "c": "held_out"})
    halos = open_halos(halos_dir, sets, ["mass"], 0.01)
    assert halos.classes.names == ["0", "1", "one"]
    n = len(halos)
    # The encoder says 0 of everything, and `one` of what was shown as that.
    said = np.where(halos.set_number == 1, 2, 0)
    z = torch.zeros(n, 2, dtype=torch.float64)
    numbers = (halos.labels, halos.targets, halos.set_number, halos.index, halos.halo_number)
    answers = Answers(z, torch.eye(3).double()[said], *(torch.from_numpy(x) for x in numbers))
    sample, nothing = Sample.of(halos, answers), np.full(n, np.nan)
    groups = len(sample.groups.names)
    judged = Judged(nothing, nothing, nothing, np.zeros(n), 1.0, np.full((groups, groups), np.nan))
    trio = Trio(sample, sample, sample, None, Judge(None, (), np.inf, (), 1.0))
    rows = {(r["set"], r["cross_section"]): r["accuracy"] for r in group_rows(trio, judged)}
    expected = {("a", 0.0): 1.0, ("a", 1.0): 0.0, ("one", 0.1): 1.0}
    expected |= {(name, s): (1.0, np.nan, 0.0)[k]
                 for name in "bc" for k, s in enumerate((0.0, 0.1, 1.0))}  # fmt: skip
    assert rows == pytest.approx(expected, nan_ok=True)
