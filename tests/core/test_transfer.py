import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.core.schedule import Level

SCHEDULE = us.Schedule.from_betas(us.Schedule.linear_betas())
VP = st.integers(0, 999).map(lambda t: SCHEDULE.level(t))
FLOW = st.floats(0.0, 0.99).map(lambda t: Level(0, t, 1 - t, t, is_flow=True))
LEVELS = st.one_of(VP, FLOW)


def pair(seed):
    rng = torch.Generator().manual_seed(seed)
    return (torch.randn((2, 3), generator=rng, dtype=torch.float64) for _ in range(2))


def near(a, b, *levels):
    loose = 1e-13 * max(1 / level.alpha for level in levels) ** 2
    torch.testing.assert_close(a, b, rtol=0, atol=loose)


@given(src=LEVELS, dst=LEVELS, seed=st.integers(0, 99))
def test_a_move_keeps_x0_and_eps(src, dst, seed):
    """Reference: eq. 1 at both ends, with the same x0 and eps."""
    x0, eps = pair(seed)
    moved = us.transfer(src.alpha * x0 + src.sigma * eps, eps, us.Step(src, dst))
    near(moved, dst.alpha * x0 + dst.sigma * eps, src, dst)


@given(src=LEVELS, dst=LEVELS, seed=st.integers(0, 99))
def test_there_and_back_with_the_same_eps_is_the_identity(src, dst, seed):
    x, eps = pair(seed)
    near(us.transfer(us.transfer(x, eps, us.Step(src, dst)), eps, us.Step(dst, src)), x, src, dst)


@given(levels=st.lists(LEVELS, min_size=3, max_size=6), seed=st.integers(0, 99))
def test_moves_compose_to_the_direct_move(levels, seed):
    x, eps = pair(seed)
    y = x
    for src, dst in itertools.pairwise(levels):
        y = us.transfer(y, eps, us.Step(src, dst))
    near(y, us.transfer(x, eps, us.Step(levels[0], levels[-1])), *levels)


@given(level=LEVELS)
def test_a_move_to_where_it_is_changes_nothing(level):
    x, eps = pair(1)
    near(us.transfer(x, eps, us.Step(level, level)), x, level)


@given(src=VP, dst=VP, seed=st.integers(0, 99), limit=st.floats(0.1, 3))
def test_clipping_clamps_x0_and_keeps_eps(src, dst, seed, limit):
    """Reference: by hand; without anything to clip it is the plain move."""
    x, eps = pair(seed)
    step = us.Step(src, dst)
    x0 = ((x - src.sigma * eps) / src.alpha).clamp(-limit, limit)
    near(us.transfer(x, eps, step, limit), dst.alpha * x0 + dst.sigma * eps, src, dst)
    near(us.transfer(x, eps, step, 1e9), us.transfer(x, eps, step), src, dst)


@given(src=LEVELS, dst=LEVELS)
def test_float32_stays_float32(src, dst):
    x, eps = (y.float() for y in pair(0))
    assert us.transfer(x, eps, us.Step(src, dst)).dtype == torch.float32
