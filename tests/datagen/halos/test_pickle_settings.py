"""Settings of `data_gen=halos_pickles` that do not fit are named."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from datagen import pipeline
from datagen.errors import ConfigError, DataNotFoundError
from datagen.halos.pickles_config import HalosPicklesConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channels": ["gas"]}, "expected data_gen.channels to be distinct names out of mass"),
        ({"match": "mass"}, "expected data_gen.match to be one of labels, order"),
        ({"cluster_labels": []}, "expected data_gen.cluster_labels to name a label"),
        ({"norms": "max"}, "expected data_gen.norms to be one of multiply, ignore"),
        ({"factors": {"mass": 1.0}}, "no entry for xray"),
        ({"factors": {"mass": 0.0, "xray": 1.0, "stars": 1.0}}, "data_gen.factors.mass > 0"),
        ({"planes": {3: [0, 1]}}, r"planes.3 to name a plane for each of mass.* but got \[0, 1\]"),
        ({"planes": {3: [0, 1, 3]}}, "3 distinct numbers from 0 to 2"),
        ({"pixel_scale": 0.0}, "expected data_gen.pixel_scale > 0"),
    ],
)
def test_bad_settings_are_named(
    shipped: HalosPicklesConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(shipped, **changes)


def test_a_folder_without_pickles_is_named(config: HalosPicklesConfig) -> None:
    with pytest.raises(DataNotFoundError, match=r"pickles holds no files \*\.pkl"):
        pipeline.run(config)
