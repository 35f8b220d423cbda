"""Timesteps that are not evenly spaced."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import unsample as us
from unsample.core.spacing import karras, log_snr, power

SCHEDULES = {
    "linear": us.Schedule.from_betas(us.Schedule.linear_betas()),
    "scaled": us.Schedule.from_betas(us.Schedule.scaled_linear_betas()),
    "cosine": us.Schedule.from_betas(us.Schedule.cosine_betas()),
    "zero snr": us.Schedule.from_betas(us.Schedule.linear_betas(), zero_terminal_snr=True),
    "short": us.Schedule.from_betas(us.Schedule.linear_betas(count=7)),
}
SPACINGS = {"power": power, "karras": karras, "log_snr": log_snr}
schedules, spacings = st.sampled_from(list(SCHEDULES)), st.sampled_from(list(SPACINGS))


def ratios(schedule):
    table = np.array(schedule.alpha_bar)
    return np.sqrt(1 / table - 1)


@given(schedules, spacings, st.integers(1, 1000))
def test_timesteps_rise_strictly_and_end_at_the_noisiest(schedule, spacing, steps):
    trained = SCHEDULES[schedule]
    steps = min(steps, len(trained))
    timesteps = SPACINGS[spacing](trained, steps)
    assert len(timesteps) == steps
    assert all(type(t) is int for t in timesteps)
    assert (timesteps[0] >= 0, timesteps[-1]) == (True, len(trained) - 1)
    assert us.Grid.from_timesteps(trained, timesteps).steps == steps
    assert timesteps == sorted(set(timesteps))
    assert steps == 1 or timesteps[0] == 0
    assert steps < len(trained) or timesteps == list(range(steps))


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("spacing", "there", "again"), [(karras, lambda s: s ** (1 / 7), lambda z: z**7), (log_snr, np.log, np.exp)]
)
def test_levels_are_the_trained_ones_nearest_to_the_formula(name, spacing, there, again):
    """Reference: the even spacing itself; nearest in log S by search over the table, where no two wishes coincide."""
    schedule, table = SCHEDULES[name], ratios(SCHEDULES[name])
    for steps in (2, 3, 4):
        wished = again(np.linspace(there(table[0]), there(table[-1]), steps))
        nearest = [int(np.abs(np.log(table) - np.log(s)).argmin()) for s in wished]
        assert len(set(nearest)) == steps
        assert spacing(schedule, steps) == nearest


def test_power_is_the_formula_and_one_is_even():
    """Reference: t_k = t_1 + (t_K - t_1) ((k-1)/(K-1))^g."""
    schedule = SCHEDULES["linear"]
    for exponent in (1.0, 1.05, 1.5):
        expected = [round(1 + 998 * (k / 49) ** exponent) for k in range(50)]
        assert power(schedule, 50, exponent, first=1) == expected
    assert us.Grid.from_timesteps(schedule, power(schedule, 10, 1.0)) == us.Grid.of(schedule, 10, spacing="linspace")


def test_log_snr_evens_out_the_ratio_of_the_moves():
    """The worst r of a grid of 20 falls from the leading grid's 17.6 to what the first trained timesteps allow."""
    schedule = SCHEDULES["linear"]

    def worst(grid):
        return max(step.dst.ratio / step.src.ratio for step in grid.up(1))

    even = us.Grid.from_timesteps(schedule, log_snr(schedule, 20))
    assert worst(us.Grid.of(schedule, 20)) == pytest.approx(17.6, abs=0.1)
    assert worst(even) < 1.8


@pytest.mark.parametrize("spacing", SPACINGS.values())
@pytest.mark.parametrize("steps", [0, 8, True])
def test_impossible_numbers_of_steps_are_refused(spacing, steps):
    with pytest.raises(us.ArgumentError, match="1 to 7"):
        spacing(SCHEDULES["short"], steps)


def test_impossible_shapes_are_refused():
    with pytest.raises(us.ArgumentError, match="positive exponent"):
        power(SCHEDULES["short"], 3, exponent=0.0)
    with pytest.raises(us.ArgumentError, match="positive rho"):
        karras(SCHEDULES["short"], 3, rho=-1.0)
    with pytest.raises(us.ArgumentError, match="do not fit between timesteps 5 and 6"):
        power(SCHEDULES["short"], 3, first=5)
