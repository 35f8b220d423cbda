import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.methods.starts import parse_start

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())
GRID = us.Grid.of(SCHEDULE, 50)


@given(fraction=st.floats(0, 1), n=st.integers(1, 200))
def test_a_fraction_is_a_share_of_the_moves_at_least_one(fraction, n):
    k = us.ForwardNoise(fraction=fraction).index(us.Grid.of(SCHEDULE, n))
    assert 0 <= k <= n
    assert (k == 0) == (fraction == 0)
    assert abs(k - fraction * n) <= 0.5 + 1e-9 or k == 1


@given(sigma=st.floats(0, 0.99))
def test_sigma_is_the_first_level_as_noisy(sigma):
    k = us.ForwardNoise(sigma=sigma).index(GRID)
    assert GRID[k].sigma >= sigma
    assert k == 0 or GRID[k - 1].sigma < sigma


def test_no_steps_and_no_start_are_the_image_itself():
    x0, noise = torch.ones((1, 1, 2, 2)), us.ItemNoise(0, [0])
    for start in (us.FromImage(), us.ForwardNoise(steps=0), us.ForwardNoise(fraction=0.0), us.ForwardNoise(sigma=0.0)):
        assert start.index(GRID) == 0
        assert start.place(x0, GRID, noise) is x0
        assert isinstance(start, us.Start)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"steps": 1, "fraction": 0.1},
        {"steps": -1},
        {"steps": 1.5},
        {"fraction": 1.5},
        {"fraction": -0.1},
        {"fraction": float("nan")},
        {"sigma": -1.0},
        {"sigma": float("nan")},
        {"sigma": float("inf")},
    ],
)
def test_impossible_starts_are_refused(settings, untyped):
    with pytest.raises(us.ArgumentError):
        us.ForwardNoise(**settings)


def test_a_start_that_decides_by_itself_is_another(untyped):
    with pytest.raises(us.ArgumentError, match=r"given 'auto'; us.AutoStart\(\) finds the number"):
        us.ForwardNoise(steps="auto")


@pytest.mark.parametrize(
    "start",
    [us.ForwardNoise(steps=51), us.ForwardNoise(steps=50, at_next_level=True), us.ForwardNoise(sigma=1.5)],
)
def test_starts_beyond_the_grid_are_refused(start):
    with pytest.raises(us.ArgumentError, match="use a smaller start"):
        start.index(GRID)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("0", us.FromImage()),
        (" 2 ", us.ForwardNoise(steps=2)),
        ("4%", us.ForwardNoise(fraction=0.04)),
        ("sigma=0.1", us.ForwardNoise(sigma=0.1)),
    ],
)
def test_parse(text, start):
    assert parse_start(text) == start


@pytest.mark.parametrize("text", ["", "two", "-1", "1.5", "140%", "nan%", "sigma=", "sigma=-1", "sigma=inf", "%"])
def test_parse_refuses(text):
    with pytest.raises(us.ArgumentError):
        parse_start(text)
