"""Progress is shown where a program asks for it: lines now and then without a terminal, a bar with rate and time in one."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from unsample.runs import progress


@pytest.fixture
def clock(monkeypatch):
    """The seconds that have gone by, to be set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def walk(clock, seconds, total, on_step):
    """One move in so many seconds."""
    for done in range(1, total + 1):
        clock[0] += seconds
        on_step(done, total)


def test_nothing_is_shown_unless_it_is_asked_for(clock, capsys):
    with progress.progress_bar("inverting") as on_step:
        walk(clock, 60, 10, on_step)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


@pytest.mark.parametrize(
    ("seconds", "total", "lines"),
    [(0.01, 100, 0), (1, 100, 10), (2, 1000, 66), (60, 5, 5), (3, 20, 5)],
    ids=["short work", "each tenth", "every 30 seconds", "slow moves", "not within 10 seconds"],
)
def test_lines_without_a_terminal(clock, seconds, total, lines):
    said: list[str] = []
    with progress.show_progress(said.append), progress.progress_bar("inverting 1 picture") as on_step:
        walk(clock, seconds, total, on_step)
    assert len(said) == lines
    assert not said or said[-1].startswith("inverting 1 picture: ")


def test_a_line_has_the_rate_and_the_time_left(clock):
    said: list[str] = []
    with progress.show_progress(said.append), progress.progress_bar("inverting") as on_step:
        walk(clock, 10, 4, on_step)
    assert said[0] == "inverting: 1 of 4 moves, 0.1 a second, 30 s left"


def test_the_rate_is_that_of_work_not_of_what_came_before(clock):
    """Reported as nothing done when a model was loaded, and shards that were there were left out."""
    said: list[str] = []
    with progress.show_progress(said.append), progress.pictures_bar("inverting") as on_images:
        clock[0] += 1000
        on_images(0, 4)
        walk(clock, 10, 4, on_images)
    assert said[0] == "inverting: 1 of 4 pictures, 0.1 a second, 30 s left"


def test_a_bar_goes_on_while_the_report_is_drawn(monkeypatch, clock):
    shown = io.StringIO()
    monkeypatch.setattr(progress, "Console", lambda stderr: Console(file=shown, force_terminal=True, width=120))
    with progress.show_progress(lambda text: None), progress.progress_bar("inverting") as on_step:
        walk(clock, 1, 3, on_step)
    assert "3 of 3 moves, 1.0 a second, 0 s left" in shown.getvalue()
    assert progress.WRITING in shown.getvalue()
