from __future__ import annotations

import io
import itertools
import logging

import pytest

from inference.survey.progress import Progress


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_the_time_left_moves_within_the_first_tile(clock: Clock) -> None:
    progress = Progress(4, "predict", stream=io.StringIO(), clock=clock)
    clock.now += 3
    assert progress.text() == "0/4 tiles, 0.0 tiles/h, 0.0 windows/s, ? left"
    clock.now += 7
    progress.add("A", 2, 10)
    # 2 of 4 x 10 windows in 10 s.
    assert progress.seconds_left == pytest.approx(190)
    assert progress.text() == "0/4 tiles, 72.0 tiles/h, 0.2 windows/s, 0:03:10 left"
    clock.now += 10
    progress.add("A", 8, 10)
    progress.end("A")
    assert progress.text() == "1/4 tiles, 180.0 tiles/h, 0.5 windows/s, 0:01:00 left"
    # A larger survey tile: those to come are as large as both on average.
    progress.add("B", 10, 20)
    assert progress.seconds_left == pytest.approx((10 + 2 * 15) * 20 / 20)
    progress.add("B", 10, 20)
    progress.end("B")
    for name in "CD":
        progress.add(name, 15, 15)
        progress.end(name)
    assert progress.text() == "4/4 tiles, 720.0 tiles/h, 3.0 windows/s, 0:00:00 left"


def test_failed_tiles_are_not_waited_for(clock: Clock) -> None:
    progress = Progress(4, "predict", stream=io.StringIO(), clock=clock)
    clock.now += 10
    progress.end("unreadable")
    progress.add("A", 10, 10)
    progress.end("A")
    assert progress.seconds_left == pytest.approx(20)
    progress.add("damaged", 5, 10)
    progress.end("damaged")
    progress.add("B", 10, 10)
    progress.end("B")
    assert progress.seconds_left == 0
    assert progress.text().startswith("4/4 tiles, ")


def test_fast_runs_are_given_in_tiles_per_second(clock: Clock) -> None:
    progress = Progress(100, "predict", stream=io.StringIO(), clock=clock)
    clock.now += 1
    for number in range(50):
        progress.add(str(number), 4, 4)
        progress.end(str(number))
    assert progress.text() == "50/100 tiles, 50.0 tiles/s, 200.0 windows/s, 0:00:01 left"


def test_a_log_file_gets_a_line_a_minute_and_no_bar(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    stream = io.StringIO()
    progress = Progress(100, "predict", stream=stream, clock=clock)
    seconds = []
    for number in range(100):
        for _ in range(5):
            clock.now += 7
            progress.add(str(number), 1, 5)
            if len(caplog.records) > len(seconds):
                seconds.append(clock.now)
        progress.end(str(number))
    progress.close()
    assert stream.getvalue() == ""
    assert len(caplog.records) == len(seconds) == pytest.approx(3500 / 63, abs=1)
    assert min(b - a for a, b in itertools.pairwise(seconds)) >= 60
    first = caplog.records[0].getMessage()
    assert first == "predict: 1/100 tiles, 102.9 tiles/h, 0.1 windows/s, 0:57:17 left"


def test_a_terminal_gets_a_bar(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    progress = Progress(2, "predict, rank 0 of 2", stream=terminal, clock=clock)
    for name in "AB":
        for _ in range(4):
            clock.now += 100
            progress.add(name, 1, 4)
        progress.end(name)
    progress.close()
    shown = terminal.getvalue().split("\r")
    assert "rank 0 of 2   0%|" in shown[1]
    assert any("25%|" in line and "| 0/2 tiles, 9.0 tiles/h" in line for line in shown)
    assert "100%|" in shown[-1]
    assert "2/2 tiles" in shown[-1]
    assert caplog.records == []


def test_other_ranks_say_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    terminal = Terminal()
    progress = Progress(1, "predict", is_shown=False, stream=terminal, clock=clock)
    clock.now += 1000
    progress.add("A", 1, 1)
    progress.end("A")
    progress.close()
    assert terminal.getvalue() == ""
    assert caplog.records == []
