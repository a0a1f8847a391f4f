"""Lines in a log where no bar can be seen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from datagen.checks import differences
from datagen.progress import counted


def test_a_simulation_tells_its_jobs_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]

    def jobs() -> Iterator[int]:
        for number in range(6):
            now[0] += 25.0
            yield number

    with caplog.at_level("INFO"):
        done = list(counted(jobs(), 6, "images", clock=lambda: now[0]))
    assert done == list(range(6))
    # The last job is told by what follows.
    assert [record.message for record in caplog.records] == ["images: 3 of 6 jobs done"]


def test_settings_that_differ_are_named_as_users_type_them() -> None:
    before = {"seed": 0, "lens": {"imaging": {"side": 65, "bands": ["i"]}, "name": "fair"}}
    now = {"seed": 1, "lens": {"imaging": {"side": 49, "bands": ["i"]}, "name": "fair"}}
    found = differences(before, now, lambda name: name if name == "lens" else f"data_gen.{name}")
    assert found == ["lens.imaging.side was 65, now 49", "data_gen.seed was 0, now 1"]
    many = differences({}, {str(k): k for k in range(7)}, str)
    assert len(many) == 6
    assert many[-1] == "and 2 more"
