"""Schedules from the configs of diffusers' schedulers."""

import math

import pytest

import unsample as us
from unsample.models.scheduler_config import flow_schedule_of, schedule_of

MODEL_CONFIG = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0}


def test_from_config_reads_what_diffusers_writes():
    s = us.Schedule
    assert schedule_of({"beta_schedule": "linear"}) == s.from_betas(s.linear_betas())
    given = {"beta_schedule": "scaled_linear", "beta_start": 0.1, "beta_end": 0.2, "num_train_timesteps": 5}
    assert schedule_of(given) == s.from_betas(s.scaled_linear_betas(0.1, 0.2, 5))
    assert schedule_of({"beta_schedule": "linear", "trained_betas": [0.1, 0.3]}) == s.from_betas([0.1, 0.3])
    zero = schedule_of({"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True})
    assert zero == s.from_betas(s.cosine_betas(), zero_terminal_snr=True)


def test_config_without_betas_or_with_unknown_ones():
    with pytest.raises(us.ModelError, match="given one with shift; use flow_schedule_of"):
        schedule_of({"shift": 3.0})
    with pytest.raises(us.UnknownNameError, match="did you mean 'scaled_linear'"):
        schedule_of({"beta_schedule": "scaled_linea"})


def test_configs():
    assert flow_schedule_of(MODEL_CONFIG) == us.FlowSchedule(1000, 3.0)
    assert flow_schedule_of({"shift": 2}) == us.FlowSchedule(1000, 2.0)
    assert flow_schedule_of(MODEL_CONFIG, tokens=99, even=True) == us.FlowSchedule(1000, 3.0, "even")


def test_a_dynamic_shift_grows_with_the_number_of_tokens():
    """Reference: mu is 0.5 for 256 tokens and 1.15 for 4096, as FLUX dev has it, or what the config says."""
    dynamic = {**MODEL_CONFIG, "use_dynamic_shifting": True}
    for tokens, mu in ((256, 0.5), (2176, 0.825), (4096, 1.15)):
        assert flow_schedule_of(dynamic, tokens=tokens).shift == pytest.approx(math.exp(mu))
        linear = flow_schedule_of({**dynamic, "time_shift_type": "linear"}, tokens=tokens, even=True)
        assert (linear.shift, linear.least) == (pytest.approx(mu), "even")
    own = {"base_shift": 1.0, "max_shift": 3.0, "base_image_seq_len": 0, "max_image_seq_len": 100}
    assert flow_schedule_of({**dynamic, **own}, tokens=50) == us.FlowSchedule(1000, math.exp(2.0), "trained")
    with pytest.raises(us.ArgumentError, match="use_dynamic_shifting shifts by the image's size: give its tokens"):
        flow_schedule_of(dynamic)


@pytest.mark.parametrize(
    "change",
    [
        {"shift_terminal": 0.02},
        {"use_karras_sigmas": True},
        {"use_exponential_sigmas": True},
        {"use_beta_sigmas": True},
        {"invert_sigmas": True},
        {"stochastic_sampling": True},
        {"_class_name": "FlowMatchHeunDiscreteScheduler"},
    ],
    ids=str,
)
def test_configs_of_other_levels_are_refused(change):
    name, value = next(iter(change.items()))
    with pytest.raises(us.ModelError, match=value if isinstance(value, str) else name):
        flow_schedule_of({**MODEL_CONFIG, **change})
    if not isinstance(value, str):
        assert flow_schedule_of({**MODEL_CONFIG, name: None}).shift == 3


def test_a_table_is_not_read_from_the_config_of_a_flow_model():
    with pytest.raises(us.ModelError, match=r"flow_schedule_of"):
        schedule_of(MODEL_CONFIG)
    for option in ({"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}):
        with pytest.raises(us.ModelError, match="flow velocity"):
            schedule_of({"beta_schedule": "linear", **option})
    with pytest.raises(us.ModelError, match="given one of FlowMatchEulerDiscreteScheduler with beta_schedule"):
        flow_schedule_of({"beta_schedule": "linear"})
