import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.core.schedule import Level

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())


def spaced(spacing, n, offset=0):
    """Reference: the numpy expressions of diffusers' set_timesteps."""
    if spacing == "leading":
        return ((np.arange(0, n) * (1000 // n)).round() + offset).astype(int)
    if spacing == "linspace":
        return np.linspace(0, 999, n).round().astype(int)
    return np.sort(np.round(np.arange(1000, 0, -1000 / n)).astype(int) - 1)[-n:]


@given(
    n=st.integers(1, 1000),
    spacing=st.sampled_from(["leading", "trailing", "linspace"]),
    clean=st.sampled_from(["one", "first"]),
)
def test_any_number_of_steps_has_the_timesteps_of_diffusers(n, spacing, clean):
    grid = us.Grid.of(SCHEDULE, n, spacing=spacing, clean=clean)
    assert grid.steps == n == len(grid) - 1
    assert [level.t for level in grid.levels[1:]] == spaced(spacing, n).tolist()
    assert [level.index for level in grid.levels] == list(range(n + 1))
    for level in grid.levels[1:]:
        assert level.alpha == math.sqrt(SCHEDULE.alpha_bar[int(level.t)])
    assert grid[0].alpha == (1.0 if clean == "one" else math.sqrt(SCHEDULE.alpha_bar[0]))
    assert (grid[0].t, grid[0].index) == (0, 0)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_every_number_of_steps_makes_a_grid(spacing):
    for n in range(1, 1001):
        timesteps = us.core.spacing.even(1000, n, spacing)
        assert len(timesteps) == n
        assert timesteps[0] >= 0
        assert timesteps[-1] <= 999
        assert all(b > a for a, b in itertools.pairwise(timesteps))


@pytest.mark.parametrize("offset", [0, 1, 5])
def test_offset_shifts_leading_timesteps(offset):
    assert [x.t for x in us.Grid.of(SCHEDULE, 30, steps_offset=offset).levels[1:]] == spaced("leading", 30, offset).tolist()


@given(n=st.integers(1, 60), data=st.data())
def test_up_and_down_are_the_same_moves_backwards(n, data):
    grid = us.Grid.of(SCHEDULE, n)
    low = data.draw(st.integers(0, n))
    high = data.draw(st.integers(low, n))
    up, down = list(grid.up(low, high)), list(grid.down(high, low))
    assert len(up) == high - low
    assert [(s.dst, s.src) for s in reversed(up)] == [(s.src, s.dst) for s in down]
    assert all(step.is_up for step in up)
    assert not any(step.is_up for step in down)
    for a, b in itertools.pairwise(up):
        assert a.dst is b.src


def test_whole_walks_by_default():
    grid = us.Grid.of(SCHEDULE, 4)
    assert [(s.src.index, s.dst.index) for s in grid.up()] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [(s.src.index, s.dst.index) for s in grid.down()] == [(4, 3), (3, 2), (2, 1), (1, 0)]
    assert list(grid.up(4)) == list(grid.down(0)) == []


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, "10"])
def test_impossible_numbers_of_steps_are_refused(steps, untyped):
    with pytest.raises(us.ArgumentError, match="whole number from 1 to 1000"):
        us.Grid.of(SCHEDULE, steps)


def test_offset_beyond_the_table_is_refused():
    with pytest.raises(us.ArgumentError, match="smaller offset"):
        us.Grid.of(SCHEDULE, 1000, steps_offset=1)
    with pytest.raises(us.ArgumentError, match="smaller offset"):
        us.Grid.of(SCHEDULE, 10, steps_offset=-1)


def test_unknown_names_are_refused(untyped):
    with pytest.raises(us.UnknownNameError, match=r"unknown spacing 'trailin'.*did you mean 'trailing'"):
        us.Grid.of(SCHEDULE, 10, spacing="trailin")
    with pytest.raises(us.UnknownNameError, match="unknown clean level"):
        us.Grid.of(SCHEDULE, 10, clean="zero")


@pytest.mark.parametrize("timesteps", [[], [5, 5], [9, 3], [-1, 4], [4, 1000]])
def test_custom_timesteps_must_rise_within_the_table(timesteps):
    with pytest.raises(us.ArgumentError):
        us.Grid.from_timesteps(SCHEDULE, timesteps)


def test_custom_timesteps():
    assert [level.t for level in us.Grid.from_timesteps(SCHEDULE, [3, 4, 900]).levels] == [0, 3, 4, 900]


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (0, 11), (11, 11)])
def test_moves_beyond_the_grid_are_refused_at_once(start, stop):
    grid = us.Grid.of(SCHEDULE, 10)
    with pytest.raises(us.ArgumentError, match=r"outside this grid of levels 0\.\.10"):
        grid.up(start, stop)
    with pytest.raises(us.ArgumentError, match=r"outside this grid of levels 0\.\.10"):
        grid.down(stop, start)


def test_levels_must_be_numbered_and_run_from_clean_to_noisy():
    quiet, noisy = Level(0, 0, 1.0, 0.0), Level(1, 9, 0.8, 0.6)
    with pytest.raises(us.ArgumentError, match="at least one move"):
        us.Grid((quiet,))
    with pytest.raises(us.ArgumentError, match="numbered"):
        us.Grid((noisy, quiet))
    with pytest.raises(us.ArgumentError, match="clean to noisy"):
        us.Grid((Level(0, 9, 0.8, 0.6), Level(1, 0, 1.0, 0.0)))


def test_grids_of_flow_levels_are_grids():
    levels = tuple(Level(i, t, 1 - t, t, is_flow=True) for i, t in enumerate([0.0, 0.25, 0.5, 0.9]))
    assert us.Grid(levels).steps == 3


@pytest.mark.parametrize("timesteps", [[10.2, 10.9, 427.99], [3, 250.5], [0.5], [np.float64(7.25)]])
def test_timesteps_between_those_of_a_table_are_refused_with_the_whole_ones(timesteps):
    """They were cut to whole ones, so that one level came twice and another was not the one meant."""
    between = next(t for t in timesteps if t % 1)
    says = rf"whole numbers, such as {math.floor(between)} and {math.ceil(between)}, given {between}"
    with pytest.raises(us.ArgumentError, match=says) as error:
        us.Grid.from_timesteps(SCHEDULE, timesteps)
    assert "\n" not in str(error.value)
    with pytest.raises(us.ArgumentError, match=says):
        SCHEDULE.level(between)


def test_whole_timesteps_of_any_type_are_those_of_a_table(untyped):
    for timesteps in ([3.0, 7.0], np.array([3, 7]), np.array([3.0, 7.0])):
        levels = us.Grid.from_timesteps(SCHEDULE, list(timesteps)).levels
        assert [(type(level.t), level.t) for level in levels[1:]] == [(int, 3), (int, 7)]
    assert us.Grid.from_timesteps(us.FlowSchedule(), [10.2, 10.9])[1].t == 10.2


def test_a_level_between_two_of_a_grid():
    grid = us.Grid.of(SCHEDULE, 10)
    for t in (0, 300, 900):
        assert grid.at(t) is grid[t // 100 + 1]
    assert (grid.at(950), grid.at(250)) == (grid[10], SCHEDULE.level(250, 3))
    with pytest.raises(us.ArgumentError, match="made by hand has no levels but its own"):
        us.Grid(grid.levels).at(250)
    assert us.Grid(grid.levels) == grid
