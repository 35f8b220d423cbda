"""Our schedulers in the place of diffusers' own: against our walks, against their samplers, and in their pipelines.

What the guide (docs/schedulers.md) says of diffusers' `DDIMInverseScheduler` and `DDIMScheduler` is asserted here.
"""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
)
from diffusers.pipelines.flux.pipeline_flux import retrieve_timesteps

import unsample as us
from unsample.models.inversion_schedulers import DDIMInversionScheduler, FlowMatchInversionScheduler
from unsample.models.scheduler_config import read_scheduler, schedule_of

from . import tiny
from .agreement import grid_of, pictures
from .test_flux import flux
from .test_stable_diffusion import stable_diffusion

GUIDE = Path(__file__).parents[2] / "docs" / "schedulers.md"

BETAS = {
    "num_train_timesteps": 40,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.02,
    "beta_end": 0.3,
    "clip_sample": False,
}
"""A shorter table than usual, as noisy at its end: few steps reach what needs many with 1000 timesteps."""

ON_GRID = [
    ("leading", 0, 1),
    ("leading", 0, 7),
    ("leading", 1, 12),
    ("trailing", 0, 1),
    ("trailing", 0, 10),
    ("linspace", 0, 1),
]

OFF_GRID = [("leading", 1, 24), ("trailing", 0, 7), ("trailing", 0, 12), ("linspace", 0, 7), ("linspace", 0, 12)]
"""Where `DDIMScheduler` leaves its own grid; with the first one only if its clean end has alpha_bar 1."""

SPACINGS = ON_GRID + OFF_GRID

PREDICTIONS = ("epsilon", "v_prediction", "sample")

EVAL_AT = ("target", "target_time", "source")


def config(spacing="leading", offset=0, *, to_one=True, prediction="epsilon", zero_snr=False):
    settings = {"timestep_spacing": spacing, "steps_offset": offset, "set_alpha_to_one": to_one}
    return {**BETAS, **settings, "prediction_type": prediction, "rescale_betas_zero_snr": zero_snr}


def leaves(spacing, offset, n, to_one):
    """Whether `DDIMScheduler` ever is at another level than it takes itself to be."""
    return (spacing, offset, n) in OFF_GRID and (to_one or spacing != "leading")


def drawn(seed, dtype=torch.float64, shape=(2, 4, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def answer(x, t):
    """Any smooth, bounded, nonlinear function of state and time."""
    t = torch.as_tensor(t, dtype=torch.float64).reshape(-1, 1, 1, 1).to(x.dtype)
    return torch.tanh(x * (0.5 + t / 2000)) + 0.3 * torch.sin(3 * x + t / 100)


def looped(scheduler, x, network, first=0):
    """The states of the loop of diffusers' pipelines, from a move on."""
    states = []
    for t in scheduler.timesteps[first:]:
        x = scheduler.step(network(x, t), t, x, return_dict=False)[0]
        states.append(x)
    return states


def tables(theirs, schedule):
    """Their scheduler with our table, which is in float64."""
    theirs.alphas_cumprod = torch.tensor(schedule.alpha_bar, dtype=torch.float64)
    end = torch.ones((), dtype=torch.float64) if theirs.config.set_alpha_to_one else theirs.alphas_cumprod[0]
    theirs.final_alpha_cumprod = theirs.initial_alpha_cumprod = end
    return theirs


def pair(n, **settings):
    """Their sampler, its inversion and the grid, of n steps."""
    own = {name: settings.pop(name) for name in ("moves", "eval_at", "forward_steps") if name in settings}
    theirs = DDIMScheduler(**config(**settings))
    grid = grid_of(theirs, n)
    ours = DDIMInversionScheduler.from_config(theirs.config, **own)
    for scheduler in (tables(theirs, schedule_of(theirs.config)), ours):
        scheduler.set_timesteps(n)
    return theirs, ours, grid


def walked(grid, first=0, eval_at="target"):
    """The last state of our walk up the grid, from a level on."""
    *_, last = us.walk(lambda x, level: answer(x, level.t), drawn(0), grid.up(first), us.DDIM(eval_at=eval_at))
    return last.x


def always(eps, schedule, prediction):
    """A network whose eps is the same everywhere."""

    def network(x, t):
        level = schedule.level(int(t))
        if prediction == "v_prediction":
            return (eps - level.sigma * x) / level.alpha
        return eps if prediction == "epsilon" else (x - level.sigma * eps) / level.alpha

    return network


def gap(a, b):
    return float((a - b).abs().max())


# Our core is the reference


@pytest.mark.parametrize(("prediction", "zero_snr"), [*((each, False) for each in PREDICTIONS), ("v_prediction", True)])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize(("spacing", "offset", "n"), SPACINGS)
def test_up_is_our_walk_bit_by_bit(spacing, offset, n, to_one, prediction, zero_snr):
    """Reference: `walk` with `DDIM` on the model's own grid, itself compared with diffusers' arithmetic in this folder."""
    for eval_at, dtype in itertools.product(EVAL_AT, (torch.float32, torch.float64)):
        if prediction == "sample" and to_one and eval_at != "target":
            continue  # no eps at a level without noise: test_a_clean_level_...
        settings = {"to_one": to_one, "prediction": prediction, "zero_snr": zero_snr, "eval_at": eval_at}
        _, ours, grid = pair(n, spacing=spacing, offset=offset, **settings)
        denoiser = us.NetworkDenoiser(lambda x, t, _: answer(x, t), prediction)
        expected = [moved.x for moved in us.walk(denoiser, drawn(0, dtype), grid.up(), us.DDIM(eval_at=eval_at))]
        found = looped(ours, drawn(0, dtype), answer)
        given = grid.levels[:-1] if eval_at == "source" else grid.levels[1:]
        assert ours.timesteps.tolist() == [level.t for level in given]
        assert ours.timesteps.dtype == torch.long
        assert found[-1].dtype == dtype
        assert torch.equal(torch.stack(found), torch.stack(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eval_at", EVAL_AT)
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("n", [1, 4, 28])
def test_up_a_flow_is_our_walk_bit_by_bit(n, shift, eval_at, dtype):
    """Reference: as above; timesteps are float32, as pipelines hold them."""
    ours = FlowMatchInversionScheduler(shift=shift, eval_at=eval_at)
    ours.set_timesteps(n)
    denoiser = us.NetworkDenoiser(lambda x, t, _: answer(x, t.float()), "flow")
    grid = us.Grid.of(us.FlowSchedule(shift=shift), n)
    expected = [moved.x for moved in us.walk(denoiser, drawn(0, dtype), grid.up(), us.DDIM(eval_at=eval_at))]
    found = looped(ours, drawn(0, dtype), answer)
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_half_precision_is_computed_in_float32():
    """Reference: the same loop in float32, rounded after each move."""
    _, ours, _ = pair(10)
    x, found = drawn(0, torch.bfloat16), looped(ours, drawn(0, torch.bfloat16), answer)
    _, ours, _ = pair(10)
    for t in ours.timesteps:
        x = ours.step(answer(x, t).float(), t, x.float()).prev_sample.to(torch.bfloat16)
    assert found[-1].dtype == torch.bfloat16
    assert torch.equal(found[-1], x)


def test_a_learned_variance_is_dropped():
    """Reference: the output without it."""
    _, ours, _ = pair(4)
    t, x = ours.timesteps[0], drawn(0)
    both = ours.step(torch.cat([answer(x, t), drawn(1)], dim=1), t, x).prev_sample
    ours.set_timesteps(4)
    assert torch.equal(both, ours.step(answer(x, t), t, x).prev_sample)


@pytest.mark.parametrize("kind", [PNDMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler, DDPMScheduler])
@pytest.mark.parametrize("settings", [{}, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}])
def test_from_the_config_of_any_scheduler_of_betas(kind, settings):
    """Reference: `read_scheduler`, which reads it as `DDIMScheduler.from_config` does."""
    if kind is DDPMScheduler:
        settings = {**settings, "clip_sample": False}
    theirs = kind(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, **settings)
    ours = DDIMInversionScheduler.from_config(theirs.config, forward_steps=1)
    ours.set_timesteps(8)
    denoiser = us.NetworkDenoiser(lambda x, t, _: answer(x, t), read_scheduler(theirs)["prediction"])
    *_, last = us.walk(denoiser, drawn(0), grid_of(theirs, 8).up(1), us.DDIM())
    assert torch.equal(looped(ours, drawn(0), answer)[-1], last.x)
    assert len(ours) == ours.config.num_train_timesteps == 1000
    assert (ours.order, ours.init_noise_sigma) == (1, 1.0)
    assert ours.scale_model_input(last.x, 3) is last.x


# Levels and round trips: diffusers is the reference


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize(("spacing", "offset", "n"), SPACINGS)
def test_latents_are_where_they_should_be(spacing, offset, n, to_one, prediction):
    """Reference: diffusers' alphas_cumprod (float32) at its noisiest timestep: alpha x0 + sigma eps, if eps never changes."""
    theirs = DDIMScheduler(**config(spacing, offset, to_one=to_one, prediction=prediction))
    theirs.set_timesteps(n)
    _, ours, grid = pair(n, spacing=spacing, offset=offset, to_one=to_one, prediction=prediction)
    x0, eps = drawn(0), drawn(1)
    clean = grid[0].alpha * x0 + grid[0].sigma * eps
    found = looped(ours, clean, always(eps, schedule_of(theirs.config), prediction))[-1]
    top = theirs.alphas_cumprod[int(theirs.timesteps[0])].double()
    assert gap(found, top.sqrt() * x0 + (1 - top).sqrt() * eps) < 3e-6


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("moves", ["grid", "ddim"])
@pytest.mark.parametrize(("spacing", "offset", "n"), SPACINGS)
def test_their_sampler_leads_back(spacing, offset, n, moves, to_one, prediction):
    """Reference: `DDIMScheduler` of the same config, on its grid; off it, what `moves="ddim"` is for."""
    settings = {"spacing": spacing, "offset": offset, "to_one": to_one, "prediction": prediction, "moves": moves}
    theirs, ours, grid = pair(n, **settings)
    network = always(drawn(1), schedule_of(theirs.config), prediction)
    back = looped(theirs, looped(ours, drawn(0), network)[-1], network)[-1]
    if moves == "ddim" or not leaves(spacing, offset, n, to_one):
        assert gap(back, drawn(0)) < 1e-10
    else:
        assert gap(back, drawn(0)) > 0.01
        exact = us.transfer(drawn(0), drawn(1), us.Step(grid[0], grid[n]))
        assert gap(looped(theirs, exact, network)[-1], back) < 1e-10, "their sampler does not lead back from the true latent"


def test_zero_terminal_snr_leads_back():
    """Reference: `DDIMScheduler`, whose last alpha_bar is exactly 0 where ours is 2^-24: a share 2^-12 of x0 is left."""
    settings = config("trailing", prediction="v_prediction", zero_snr=True)
    theirs, ours = DDIMScheduler(**settings), DDIMInversionScheduler.from_config(settings)
    x0, eps = drawn(0), drawn(1)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(10)
    schedule = schedule_of(settings)
    latent = looped(ours, x0, always(eps, schedule, "v_prediction"))[-1]

    def true(x, t):
        return schedule.level(int(t)).alpha * eps - schedule.level(int(t)).sigma * x0

    share = 1.01 * 2**-12 * float(x0.abs().max())
    assert gap(latent, eps) < share
    assert gap(looped(theirs, latent, true)[-1], x0) < share


@pytest.mark.parametrize("n", [7, 10, 12])
def test_a_sampler_that_stays_on_the_grid_leads_back(n):
    """Reference: `DPMSolverMultistepScheduler` of order 1, which is DDIM from level to level; its table is float32."""
    settings = config("trailing")
    theirs = DPMSolverMultistepScheduler.from_config(settings, solver_order=1, final_sigmas_type="zero")
    ours = DDIMInversionScheduler.from_config(theirs.config)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(n)
    assert ours.timesteps.tolist() == theirs.timesteps.tolist()[::-1]
    latent = looped(ours, drawn(0), lambda x, t: drawn(1))[-1]
    assert gap(looped(theirs, latent, lambda x, t: drawn(1))[-1], drawn(0)) < 2e-5


FLOWS = [{}, {"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "time_shift_type": "linear"}]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("n", [1, 4, 28])
def test_flow_levels_and_round_trip_are_those_of_diffusers(n, even, flow):
    """Reference: `FlowMatchEulerDiscreteScheduler`, in float32, set as by FLUX's pipeline (even) or SD3's; one velocity."""
    theirs = FlowMatchEulerDiscreteScheduler(**flow)
    given = {"sigmas": np.linspace(1.0, 1 / n, n)} if even else {"num_inference_steps": n}
    for eval_at in ("target_time", "source"):
        ours = FlowMatchInversionScheduler.from_config(theirs.config, eval_at=eval_at)
        falling, _ = retrieve_timesteps(theirs, device="cpu", mu=0.9, **given)
        rising, steps = retrieve_timesteps(ours, device="cpu", mu=0.9, **given)
        assert steps == n
        assert rising.dtype == torch.float32
        expected = [0.0, *falling.tolist()[:0:-1]] if eval_at == "source" else falling.tolist()[::-1]
        np.testing.assert_allclose(rising, expected, rtol=3e-7)
        x0, velocity = drawn(0), drawn(1)
        latent = looped(ours, x0, lambda x, t, v=velocity: v)[-1]
        assert gap(latent, x0 + velocity) < 1e-6
        assert gap(looped(theirs, latent, lambda x, t, v=velocity: v)[-1], x0) < 5e-6


@pytest.mark.parametrize(("eval_at", "level"), [("source", 0), ("target_time", 1)])
def test_up_a_flow_is_euler_at_either_time(eval_at, level):
    """Reference: the published move, x + (t_dst - t_src) v(x, t), with t the source's or the target's."""
    ours = FlowMatchInversionScheduler(shift=3.0, eval_at=eval_at)
    ours.set_timesteps(6)
    levels = us.Grid.of(us.FlowSchedule(shift=3.0), 6).levels
    x = drawn(0)
    for i, found in enumerate(looped(ours, x, answer)):
        x = x + (levels[i + 1].t - levels[i].t) / 1000 * answer(x, ours.timesteps[i])
        assert gap(found, x) < 1e-6
    assert ours.timesteps[0] == torch.tensor(levels[level].t, dtype=torch.float32)


# What diffusers' own inverse scheduler does


def test_finding_theirs_takes_no_linspace():
    inverse = DDIMInverseScheduler.from_config(config("linspace"))
    with pytest.raises(ValueError, match="linspace is not supported"):
        inverse.set_timesteps(10)


@pytest.mark.parametrize(("spacing", "offset", "n"), [each for each in SPACINGS if each[0] != "linspace"])
@pytest.mark.parametrize("to_one", [True, False])
def test_finding_theirs_leads_back_but_leaves_the_grid_with_the_sampler(spacing, offset, n, to_one):
    """With one eps all the way it undoes `DDIMScheduler`, off the grid too; but there its latent is at another level."""
    theirs, ours, grid = pair(n, spacing=spacing, offset=offset, to_one=to_one)
    inverse = tables(DDIMInverseScheduler.from_config(theirs.config), schedule_of(theirs.config))
    inverse.set_timesteps(n)
    latent = looped(inverse, drawn(0), lambda x, t: drawn(1))[-1]
    assert gap(looped(theirs, latent, lambda x, t: drawn(1))[-1], drawn(0)) < 1e-10
    true = us.transfer(drawn(0), drawn(1), us.Step(grid[0], grid[n]))
    off = gap(latent, true)
    assert off > 1e-3 if leaves(spacing, offset, n, to_one) else off < 1e-10
    assert gap(looped(ours, drawn(0), lambda x, t: drawn(1))[-1], true) < 1e-10


@pytest.mark.parametrize("kind", [EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_finding_theirs_clips_if_the_config_does_not_say(kind):
    """Schedulers without `clip_sample`: theirs takes its own default, True, and does not lead back; ours never clips."""
    settings = kind(timestep_spacing="leading").config
    sampler = DDIMScheduler.from_config(settings, clip_sample=False)
    gaps = {}
    for inversion in (DDIMInverseScheduler, DDIMInversionScheduler):
        up = inversion.from_config(settings)
        for scheduler in (up, sampler):
            scheduler.set_timesteps(10)
        latent = looped(up, drawn(0), lambda x, t: drawn(1))[-1]
        gaps[inversion] = gap(looped(sampler, latent, lambda x, t: drawn(1))[-1], drawn(0))
    assert gaps[DDIMInverseScheduler] > 1
    assert gaps[DDIMInversionScheduler] < 1e-4


def test_finding_trailing_with_a_step_too_many():
    """For 62 numbers of steps, from 61 on, diffusers has one timestep more: -1, which is the noisiest level of the table."""
    for kind in (DDIMScheduler, DDIMInverseScheduler):
        theirs = kind(timestep_spacing="trailing", clip_sample=False)
        theirs.set_timesteps(61)
        assert len(theirs.timesteps) == 62
        assert int(theirs.timesteps.min()) == -1
    ours = DDIMInversionScheduler.from_config(theirs.config)
    ours.set_timesteps(61)
    assert len(ours.timesteps) == 61
    assert ours.timesteps.tolist() == sorted(theirs.timesteps.tolist())[1:]
    wrong = [n for n in range(1, 1001) if len(np.arange(1000, 0, -1000 / n)) != n]
    assert (len(wrong), wrong[0]) == (62, 61)


def test_a_clean_level_without_noise_has_no_eps_for_a_network_that_predicts_x0():
    """Theirs divides 0 by 0; ours is evaluated at the target, or says what to do."""
    settings = config(prediction="sample")
    inverse = DDIMInverseScheduler.from_config(settings)
    inverse.set_timesteps(4)
    assert not torch.isfinite(looped(inverse, drawn(0), answer)[0]).all()
    _, ours, _ = pair(4, prediction="sample")
    assert torch.isfinite(looped(ours, drawn(0), answer)[0]).all()
    _, ours, _ = pair(4, prediction="sample", eval_at="source")
    with pytest.raises(us.ArgumentError, match="use eval_at='target', a forward start"):
        looped(ours, drawn(0), answer)


# Which move it is


def test_moves_are_counted_where_a_timestep_comes_twice():
    _, ours, grid = pair(10, eval_at="source")
    assert ours.timesteps.tolist()[:3] == [0, 0, 4]
    assert (ours.step_index, ours.begin_index) == (None, None)
    assert torch.equal(looped(ours, drawn(0), answer)[-1], walked(grid, eval_at="source"))
    assert ours.step_index == 10


@pytest.mark.parametrize("given", [True, False])
def test_a_loop_may_begin_in_the_middle(given):
    """Reference: our walk from there; found by the timestep, or given by `set_begin_index`."""
    _, ours, grid = pair(10, forward_steps=1)
    if given:
        ours.set_begin_index(3)
    assert torch.equal(looped(ours, drawn(0), answer, first=3)[-1], walked(grid, first=4))


def test_a_loop_may_begin_at_the_second_of_two_equal_timesteps():
    """Reference: our walk from there. Without `set_begin_index` it would be taken for the first."""
    _, ours, grid = pair(10, eval_at="source")
    ours.set_begin_index(1)
    assert torch.equal(looped(ours, drawn(0), answer, first=1)[-1], walked(grid, first=1, eval_at="source"))


def test_set_timesteps_begins_again():
    _, ours, _ = pair(5)
    once = looped(ours, drawn(0), answer)
    with pytest.raises(us.ArgumentError, match="all 5 moves are made: call set_timesteps"):
        ours.step(once[-1], ours.timesteps[0], once[-1])
    ours.set_begin_index(2)
    ours.set_timesteps(5)
    assert torch.equal(looped(ours, drawn(0), answer)[-1], once[-1])


# The forward start


@pytest.mark.parametrize("eval_at", ["target", "source"])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("k", [0, 1, 2, 10])
def test_a_forward_start_is_that_of_invert(k, to_one, eval_at):
    """Reference: `ForwardNoise(steps=k)` on the same grid with the same noise."""
    _, ours, grid = pair(10, to_one=to_one, forward_steps=k, eval_at=eval_at)
    noise = us.ItemNoise(0, range(2))
    expected = us.ForwardNoise(steps=k).place(drawn(0), grid, noise)
    found = ours.forward_start(drawn(0), noise.draw((2, 4, 3, 3), dtype=torch.float64))
    assert torch.equal(found, expected)
    assert len(ours.timesteps) == 10 - k
    moves = us.walk(lambda x, level: answer(x, level.t), found, grid.up(k), us.DDIM(eval_at))
    assert torch.equal([found, *looped(ours, found, answer)][-1], [found, *(moved.x for moved in moves)][-1])


def test_noising_to_the_first_timestep_is_the_slip():
    """Reference: `ForwardNoise(at_next_level=True)`, the off-by-one of published code."""
    _, ours, grid = pair(10, forward_steps=2)
    draw = us.ItemNoise(0, range(2))
    noise = draw.draw((2, 4, 3, 3), dtype=torch.float64)
    slip = us.ForwardNoise(steps=2, at_next_level=True).place(drawn(0), grid, draw)
    assert gap(ours.add_noise(drawn(0), noise, ours.timesteps[:1]), slip) < 1e-12
    assert gap(ours.forward_start(drawn(0), noise), slip) > 0.01


@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_forward_start_of_a_flow_is_that_of_invert(k):
    """Reference: `ForwardNoise(steps=k)`, and their `scale_noise` at the sampler's timestep (float32)."""
    ours, theirs = FlowMatchInversionScheduler(shift=3.0, forward_steps=k), FlowMatchEulerDiscreteScheduler(shift=3.0)
    ours.set_timesteps(8)
    theirs.set_timesteps(8)
    noise = us.ItemNoise(0, range(2))
    values = noise.draw((2, 4, 3, 3), dtype=torch.float64)
    found = ours.forward_start(drawn(0), values)
    assert torch.equal(found, us.ForwardNoise(steps=k).place(drawn(0), us.Grid.of(us.FlowSchedule(shift=3.0), 8), noise))
    if k:
        assert gap(found, theirs.scale_noise(drawn(0), theirs.timesteps[[-k, -k]], values)) < 1e-6


@pytest.mark.parametrize("times", [[20], [0, 39]])
def test_noise_at_given_timesteps_is_that_of_diffusers(times):
    """Reference: `add_noise` of `DDIMScheduler`, `scale_noise` of the flow scheduler; one timestep, or one per item."""
    theirs, ours, _ = pair(10)
    found = ours.add_noise(drawn(0), drawn(1), torch.tensor(times))
    assert gap(found, theirs.add_noise(drawn(0), drawn(1), torch.tensor(times))) < 1e-12
    flow = FlowMatchInversionScheduler()
    their_flow = FlowMatchEulerDiscreteScheduler()
    at = their_flow.timesteps[[1000 - 10 * max(t, 1) for t in times]]
    assert gap(flow.scale_noise(drawn(0), at, drawn(1)), their_flow.scale_noise(drawn(0), at, drawn(1))) < 1e-6


# In pipelines


@torch.no_grad()
def latents_of(model):
    images = pictures(model)
    return images, model.codec.encode(images)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize("scheduler", [{}, {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}], ids=str)
def test_a_pipeline_inverts(scheduler, k, guidance):
    """Reference: `invert` on the model of the same pipeline, with `DDIM()`, from the same state."""
    pipeline = stable_diffusion(tiny.ddim(**scheduler))
    model = us.load(pipeline)
    images, x0 = latents_of(model)
    settings = {"steps": 7, "method": us.DDIM(), "condition": tiny.PROMPTS, "guidance": guidance}
    expected = us.invert(model, images, start=us.ForwardNoise(steps=k), **settings).latent
    inversion = DDIMInversionScheduler.from_config(pipeline.scheduler.config, forward_steps=k)
    inversion.set_timesteps(7)
    start = inversion.forward_start(x0, us.ItemNoise(0, range(2)).draw(x0.shape))
    pipeline.scheduler = inversion
    found = pipeline(
        list(tiny.PROMPTS), latents=start, num_inference_steps=7, guidance_scale=guidance, output_type="latent"
    ).images
    assert gap(found, expected) < 1e-5
    assert gap(found, start) > 0.1


@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_an_image_to_image_pipeline_starts_at_the_right_level(strength):
    """Reference: our walk from `ForwardNoise`'s level, not from the one that the pipeline's first timestep names."""
    pipeline = stable_diffusion()
    model, (_, x0) = us.load(pipeline), latents_of(us.load(pipeline))
    grid, k = model.grid(10), 10 - int(10 * strength)
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(5))
    start = grid[k].alpha * x0 + grid[k].sigma * noise if k else x0
    *_, last = us.walk(model.denoiser(tiny.PROMPTS), start, grid.up(k), us.DDIM())
    pipeline = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMInversionScheduler.from_config(pipeline.scheduler.config)
    found = pipeline(
        list(tiny.PROMPTS),
        image=x0,
        strength=strength,
        num_inference_steps=10,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(5),
        output_type="latent",
    ).images
    assert gap(found, last.x) < 1e-5


@pytest.mark.parametrize("scheduler", [{"shift": 3.0}, {"use_dynamic_shifting": True}], ids=str)
def test_a_flux_pipeline_inverts(scheduler):
    """Reference: `invert` on the model of the same pipeline, with `DDIM()`, from the same state."""
    pipeline = flux(guided=False, scheduler=scheduler)
    model = us.load(pipeline, size=(16, 24))
    images, x0 = latents_of(model)
    expected = us.invert(model, images, start=us.FromImage(), steps=5, method=us.DDIM(), condition=tiny.PROMPTS).latent
    pipeline.scheduler = FlowMatchInversionScheduler.from_config(pipeline.scheduler.config)
    height, width = model.image_size
    found = pipeline(
        list(tiny.PROMPTS),
        height=height,
        width=width,
        latents=pipeline._pack_latents(x0, *x0.shape),
        num_inference_steps=5,
        output_type="latent",
    ).images
    assert gap(found, pipeline._pack_latents(expected, *x0.shape)) < 1e-5


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMInversionScheduler.from_config(config("trailing", prediction="v_prediction"), forward_steps=2, moves="ddim"),
        FlowMatchInversionScheduler.from_config({"shift": 3.0, "use_dynamic_shifting": True}, eval_at="source"),
    ],
    ids=["ddim", "flow"],
)
def test_saved_and_loaded(scheduler, tmp_path):
    scheduler.save_pretrained(tmp_path)
    loaded = type(scheduler).from_pretrained(tmp_path)
    assert loaded.config.eval_at == scheduler.config.eval_at
    assert {**loaded.config, "_use_default_values": 0} == {**scheduler.config, "_use_default_values": 0}
    for each in (scheduler, loaded):
        each.set_timesteps(10, **({"mu": 1.0} if "shift" in scheduler.config else {}))
    assert torch.equal(loaded.timesteps, scheduler.timesteps)
    assert torch.equal(looped(loaded, drawn(0), answer)[-1], looped(scheduler, drawn(0), answer)[-1])


def test_their_samplers_can_be_made_of_ours():
    theirs = DDIMScheduler(**config("trailing", prediction="v_prediction"), thresholding=True)
    with pytest.warns(UserWarning, match="leaves out thresholding: what it clips cannot be undone"):
        ours = DDIMInversionScheduler.from_config(theirs.config)
    again = DDIMScheduler.from_config(ours.config)
    own = {name: value for name, value in theirs.config.items() if name != "_use_default_values"}
    assert {name: again.config[name] for name in own} == own
    flow = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True, max_shift=1.1)
    again = FlowMatchEulerDiscreteScheduler.from_config(FlowMatchInversionScheduler.from_config(flow.config).config)
    assert (again.config.shift, again.config.max_shift, again.config.use_dynamic_shifting) == (3.0, 1.1, True)


# Arguments that cannot be


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDIMInversionScheduler(forward_steps=-1), "forward_steps must be a whole number from 0 on, given -1"),
        (lambda: DDIMInversionScheduler(forward_steps=0.04), "forward_steps must be a whole number from 0 on, given 0.04"),
        (lambda: DDIMInversionScheduler(eval_at="middle"), "unknown eval_at 'middle'"),
        (
            lambda: DDIMInversionScheduler(moves="ddpm"),
            "unknown moves 'ddpm': did you mean 'ddim'?",
        ),
        (lambda: DDIMInversionScheduler(prediction_type="score"), "unknown prediction type 'score'"),
        (lambda: DDIMInversionScheduler(beta_schedule="sigmoid"), "unknown beta_schedule 'sigmoid'"),
        (lambda: DDIMInversionScheduler().set_timesteps(1001), "number from 1 to 1000"),
        (lambda: DDIMInversionScheduler(timestep_spacing="even").set_timesteps(5), "unknown spacing 'even'"),
        (
            lambda: DDIMInversionScheduler(forward_steps=6).set_timesteps(5),
            "asks for a level beyond a grid of 5 steps",
        ),
        (lambda: DDIMInversionScheduler().step(drawn(0), 0, drawn(0)), "no timesteps yet: call set_timesteps first"),
        (lambda: DDIMInversionScheduler().forward_start(drawn(0), drawn(1)), "call set_timesteps first"),
        (lambda: pair(5)[1].step(drawn(0), 3, drawn(0)), "timestep 3 is none of this scheduler's"),
        (lambda: pair(5)[1].step(drawn(0)[:1], 0, drawn(0)), "expected an output of the sample's shape"),
        (lambda: pair(5, forward_steps=1)[1].forward_start(drawn(0), drawn(1)[:1]), "expected noise of the shape"),
        (lambda: pair(5)[1].add_noise(drawn(0), drawn(1), torch.tensor([1, 2, 3])), "2 items, 3 timesteps"),
        (lambda: pair(5)[1].add_noise(drawn(0), drawn(1), 40), "timestep 40 is outside the trained range"),
        (lambda: FlowMatchInversionScheduler(time_shift_type="cubic"), "unknown time_shift_type 'cubic'"),
        (lambda: FlowMatchInversionScheduler(shift=0.0), "positive shift"),
        (lambda: FlowMatchInversionScheduler().set_timesteps(), "steps must be a whole number from 1 on, given None"),
        (lambda: FlowMatchInversionScheduler().set_timesteps(sigmas=[0.5, 1.0]), "expected some sigmas that fall"),
        (lambda: FlowMatchInversionScheduler().set_timesteps(sigmas=[]), "expected some sigmas that fall"),
        (lambda: FlowMatchInversionScheduler().set_timesteps(sigmas=[1.5, 1.0]), "sigmas that fall within"),
        (lambda: FlowMatchInversionScheduler().set_timesteps(3, sigmas=[1.0, 0.5]), "expected 3 sigmas that fall"),
        (lambda: FlowMatchInversionScheduler(use_dynamic_shifting=True).set_timesteps(4), "expected mu"),
        (lambda: FlowMatchInversionScheduler(forward_steps=5).set_timesteps(4), "use a smaller start"),
    ],
)
def test_bad_arguments(make, message, untyped):
    with pytest.raises(us.ArgumentError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (DDIMInversionScheduler, FlowMatchEulerDiscreteScheduler().config, "expected a scheduler config with 'beta_schedule'"),
        (DDIMInversionScheduler, {**config(), "use_flow_sigmas": True}, "predicts a flow velocity"),
        (DDIMInversionScheduler, {**config(), "prediction_type": "flow_prediction"}, "predicts a flow velocity"),
        (FlowMatchInversionScheduler, DDIMScheduler().config, "expected a config of FlowMatchEulerDiscreteScheduler"),
        (FlowMatchInversionScheduler, {"shift": 1.0, "use_karras_sigmas": True}, "with use_karras_sigmas is not supported"),
        (FlowMatchInversionScheduler, {"shift": 1.0, "shift_terminal": 0.1}, "with shift_terminal is not supported"),
    ],
)
def test_bad_configs(kind, settings, message):
    with pytest.raises(us.ModelError, match=message):
        kind.from_config(settings)


# The guide


def test_the_guide_runs(tmp_path, monkeypatch):
    """Its Python as printed, with a pipeline of random weights in the place of the one that it downloads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(StableDiffusionPipeline, "from_pretrained", classmethod(lambda cls, name: stable_diffusion()))
    from PIL import Image

    Image.new("RGB", (40, 30), "teal").save("photo.jpg")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    assert names["noise"].shape == names["x0"].shape
    assert names["images"][0].size == (16, 16)


def test_links_of_the_guide_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", GUIDE.read_text())
    assert links
    for link in links:
        assert (GUIDE.parent / link).exists(), link
