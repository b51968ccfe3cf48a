"""How long the rest takes is said once there is something to go by."""

import io

import pytest

from precision_search import progress
from precision_search.progress import Progress


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def steps(clock: Clock, seconds: list[float], skipped: int = 0) -> list[str]:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.begin("rendering", 10)
    for _ in range(skipped):
        shown.step(skipped=True)
    for took in seconds:
        clock.now += took
        shown.step()
    return stream.getvalue().splitlines()


def test_the_start_of_workers_enters_no_estimate(clock: Clock) -> None:
    lines = steps(clock, [300.0, 12.0, 12.0, 12.0])
    assert lines[1:4] == ["rendering 1 of 10", "rendering 2 of 10", "rendering 3 of 10"]
    assert lines[4] == "rendering 4 of 10, at most 1:12 left"


def test_what_was_found_in_the_study_took_no_time(clock: Clock) -> None:
    lines = steps(clock, [20.0, 20.0, 20.0, 20.0], skipped=4)
    assert lines[-1] == "rendering 8 of 10, at most 0:40 left"


def test_another_stage_stops_the_clock_of_the_first(clock: Clock) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    shown.begin("measuring", 6)
    for _ in range(3):
        clock.now += 20
        shown.step()
    with shown.aside("casting", 1):
        clock.now += 1000
        shown.step()
    clock.now += 20
    shown.step()
    assert stream.getvalue().splitlines()[-1] == "measuring 4 of 6, at most 0:40 left"
