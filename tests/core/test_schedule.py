import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.core.betas import MIN_ALPHA_BAR
from unsample.core.schedule import Level

BETAS = st.lists(st.floats(1e-6, 0.9), min_size=2, max_size=40)


@given(betas=BETAS)
def test_table_is_the_cumulative_product(betas):
    """Reference: math.prod of 1 - beta, level by level."""
    schedule = us.Schedule.from_betas(betas)
    for t in (0, len(betas) // 2, len(betas) - 1):
        product = math.prod(1 - beta for beta in betas[: t + 1])
        level = schedule.level(t, index=3)
        assert level.alpha == pytest.approx(math.sqrt(product), rel=1e-12)
        assert level.sigma == pytest.approx(math.sqrt(1 - product), rel=1e-9)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, rel=1e-14)
        assert (level.index, level.t, level.ratio) == (3, t, level.sigma / level.alpha)


@given(betas=BETAS)
def test_zero_terminal_snr_keeps_the_first_level_and_ends_almost_at_zero(betas):
    """Reference: Lin et al. 2023, algorithm 1: sqrt(alpha_bar) shifted to end at 0 and scaled to begin where it did."""
    plain = np.sqrt(us.Schedule.from_betas(betas).alpha_bar)
    table = us.Schedule.from_betas(betas, zero_terminal_snr=True).alpha_bar
    expected = (plain - plain[-1]) * plain[0] / (plain[0] - plain[-1])
    assert np.sqrt(table[:-1]) == pytest.approx(expected[:-1], rel=1e-12)
    assert table[0] == pytest.approx(plain[0] ** 2)
    assert 0 < table[-1] <= MIN_ALPHA_BAR


def test_schedules_by_name_match_their_formulas():
    """Reference: Ho et al. 2020; Rombach et al. 2022; Nichol and Dhariwal 2021, eq. 17."""
    t = np.arange(1000)
    linear = 1e-4 + (0.02 - 1e-4) * t / 999
    scaled = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * t / 999) ** 2
    assert us.Schedule.linear_betas() == pytest.approx(linear, rel=1e-12)
    assert us.Schedule.scaled_linear_betas() == pytest.approx(scaled, rel=1e-12)
    f = np.cos((np.arange(1001) / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    cosine = us.Schedule.from_betas(us.Schedule.cosine_betas()).alpha_bar
    assert cosine[:-1] == pytest.approx(f[1:-1] / f[0], rel=1e-9)
    assert us.Schedule.cosine_betas()[-1] == 0.999


def test_digest_names_the_exact_values():
    a, b = us.Schedule.from_betas([0.1, 0.2]), us.Schedule.from_betas([0.1, 0.2])
    assert a.digest == b.digest
    assert a.digest != us.Schedule.from_betas([0.1, 0.2 + 1e-15]).digest
    assert repr(a) == f"Schedule(timesteps=2, digest={a.digest!r})"
    assert len(us.Schedule.from_betas(us.Schedule.linear_betas())) == 1000


@pytest.mark.parametrize("table", [(), (0.5, 0.5), (0.5, 0.6), (0.5, 0.0), (1.1, 0.5), (0.5, float("nan")), ((0.5,), (0.4,))])
def test_tables_that_do_not_fall_are_refused(table, untyped):
    with pytest.raises(us.ArgumentError, match="alpha_bar must"):
        us.Schedule(table)


@pytest.mark.parametrize("betas", [[], [0.0], [1.0], [-0.1, 0.2], [0.1, float("nan")], [[0.1]]])
def test_betas_outside_0_1_are_refused(betas, untyped):
    with pytest.raises(us.ArgumentError, match="strictly between 0 and 1"):
        us.Schedule.from_betas(betas)


def test_zero_terminal_snr_needs_two_timesteps():
    with pytest.raises(us.ArgumentError, match="at least two timesteps"):
        us.Schedule.from_betas([0.5], zero_terminal_snr=True)


@pytest.mark.parametrize("t", [-1, 1000])
def test_timesteps_outside_the_table_are_refused(t):
    with pytest.raises(us.ArgumentError, match=r"outside the trained range 0\.\.999"):
        us.Schedule.from_betas(us.Schedule.linear_betas()).level(t)


def test_level_may_be_of_any_family():
    """A flow level: alpha = 1 - t, sigma = t."""
    assert Level(1, 0.2, 0.8, 0.2).ratio == pytest.approx(0.25)
