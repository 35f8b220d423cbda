"""Step by step against diffusers' FlowMatchEulerDiscreteScheduler, which rounds its levels and states to float32."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

import unsample as us
from unsample.models.scheduler_config import flow_schedule_of

SHIFTS, STEPS = (1.0, 3.0), (1, 4, 28)


def velocity(x, t):
    """Any smooth, bounded, nonlinear function of state and time."""
    return torch.tanh(x * (0.5 + t / 2000)) + 0.3 * torch.sin(3 * x + t / 100)


def model(schedule):
    def network(x, t, condition):
        return velocity(x, t.reshape(-1, 1, 1, 1))

    return us.Model(network, schedule, (1, 3, 3), prediction="flow")


def noise(dtype=torch.float64):
    return torch.randn((4, 1, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def their_walk(theirs, x):
    states = []
    for t in theirs.timesteps:
        x = theirs.step(velocity(x, t), t, x).prev_sample
        states.append(x)
    return states


@pytest.mark.parametrize("shift", [*SHIFTS, 0.7])
@pytest.mark.parametrize("steps", [*STEPS, 50, 999])
def test_levels_and_timesteps_are_those_of_diffusers(shift, steps):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    levels = flow_schedule_of(theirs.config)
    grid = us.Grid.of(levels, steps)
    times = [level.t for level in grid.levels[:0:-1]]
    np.testing.assert_allclose(times, theirs.timesteps.double(), rtol=3e-7)
    np.testing.assert_allclose([level.sigma for level in grid.levels[::-1]], theirs.sigmas.double(), rtol=3e-7)


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sampling_by_ddim_is_their_euler(shift, steps, dtype):
    theirs = FlowMatchEulerDiscreteScheduler(shift=shift)
    theirs.set_timesteps(steps)
    ours = model(flow_schedule_of(theirs.config))
    expected = their_walk(theirs, noise())
    found = [moved.x for moved in us.walk(ours.denoiser(), noise(dtype), ours.grid(steps).down(), us.DDIM())]
    assert {x.dtype for x in found} == {dtype}
    worst = float((torch.stack(found) - torch.stack(expected)).abs().max())
    assert worst < (1e-6 if dtype == torch.float64 else 5e-6)
    assert torch.equal(us.sample(ours, noise(dtype), steps=steps).images, found[-1])


CONFIGS = {
    "fixed": {"shift": 3.0},
    "none": {"shift": 1.0},
    "exponential": {"shift": 3.0, "use_dynamic_shifting": True},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "of another size": {"use_dynamic_shifting": True, "base_shift": 0.2, "max_shift": 2.0, "max_image_seq_len": 1024},
    "of fewer trained": {"shift": 2.0, "num_train_timesteps": 500},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("tokens", [256, 3072, 8192])
@pytest.mark.parametrize("even", [True, False], ids=["FLUX", "SD3"])
def test_levels_are_those_that_the_pipelines_ask_for(config, tokens, even):
    """Reference: the scheduler, set as the pipelines of FLUX and Stable Diffusion 3 set it."""
    theirs = FlowMatchEulerDiscreteScheduler(**CONFIGS[config])
    schedule = flow_schedule_of(theirs.config, tokens=tokens, even=even)
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(tokens, *(theirs.config[name] for name in names))
    for steps in (*STEPS, 50, 200):
        if even:
            theirs.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)
        else:
            theirs.set_timesteps(steps, mu=mu)
        grid = us.Grid.of(schedule, steps)
        np.testing.assert_allclose([level.t for level in grid.levels[:0:-1]], theirs.timesteps.double(), rtol=4e-7)
        np.testing.assert_allclose([level.sigma for level in grid.levels[::-1]], theirs.sigmas.double(), rtol=4e-7)


@pytest.mark.parametrize("even", [True, False])
def test_sampling_with_a_dynamic_shift_is_their_euler(even):
    theirs = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    ours = model(flow_schedule_of(theirs.config, tokens=4096, even=even))
    theirs.set_timesteps(**({"sigmas": np.linspace(1.0, 1 / 28, 28)} if even else {"num_inference_steps": 28}), mu=1.15)
    expected = their_walk(theirs, noise())[-1]
    torch.testing.assert_close(us.sample(ours, noise(), steps=28).images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("k", [1, 5, 28])
def test_a_forward_start_is_their_scale_noise(k):
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(28)
    grid = us.Grid.of(us.FlowSchedule(shift=3.0), 28)
    x0, drawn = noise().clamp(-1, 1), us.ItemNoise(0, range(4)).draw((4, 1, 3, 3), dtype=torch.float64)
    expected = theirs.scale_noise(x0, theirs.timesteps[28 - k].reshape(1), drawn)
    found = us.ForwardNoise(steps=k).place(x0, grid, us.ItemNoise(0, range(4)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
