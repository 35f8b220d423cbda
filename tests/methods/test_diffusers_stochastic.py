"""Samplers that add noise, step by step against diffusers' in float64: DDIM with eta, DDPM, sde-dpmsolver++.

Their noise levels are float32 and are replaced by ours, as in the other parity tests. Both sides are given the same noise.
"""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

import unsample as us
from unsample.methods.stochastic import Ancestral, SDEDPMSolverPP

from .exact import DENOISER, TIGHT, USUAL, network, worst


def draws(count, seed=0):
    return torch.randn((count, 2, 1, 3, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def our_walk(moves, method, x, noise):
    """Mean + spread * noise, by hand from what a stepper states."""
    states, added = [], iter(noise)
    correct = lambda moved: moved.x + method.spread(moved.step) * next(added)  # noqa: E731
    for moved in us.walk(DENOISER, x, moves, method, correct=correct):
        states.append(moved.x)
    return torch.stack(states)


# DDIM with eta, DDPM


@pytest.mark.parametrize("eta", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_ancestral_equals_ddim_with_eta(spacing, to_one, eta):
    """Reference: DDIMScheduler.step(eta=, variance_noise=), every state of a walk of 20."""
    theirs = DDIMScheduler(clip_sample=False, set_alpha_to_one=to_one, timestep_spacing=spacing)
    theirs.alphas_cumprod = torch.tensor(USUAL.alpha_bar, dtype=torch.float64)
    theirs.final_alpha_cumprod = torch.ones((), dtype=torch.float64) if to_one else theirs.alphas_cumprod[0]
    theirs.set_timesteps(20)
    start, *noise = draws(21)
    x, states = start, []
    for t, drawn in zip(theirs.timesteps, noise, strict=True):
        x = theirs.step(network(x, t), t, x, eta=eta, variance_noise=drawn).prev_sample
        states.append(x)
    grid = us.Grid.of(USUAL, 20, spacing=spacing, clean="one" if to_one else "first")
    assert worst(our_walk(grid.down(), Ancestral(eta), start, noise), torch.stack(states)) < TIGHT


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_ancestral_with_eta_1_is_ddpm(spacing):
    """Reference: DDPMScheduler, mean and variance of every move ("fixed_small"; it holds the variance above 1e-20)."""
    theirs = DDPMScheduler(clip_sample=False, timestep_spacing=spacing)
    theirs.alphas_cumprod = torch.tensor(USUAL.alpha_bar, dtype=torch.float64)
    theirs.one = torch.ones((), dtype=torch.float64)
    theirs.set_timesteps(20)
    grid, method = us.Grid.of(USUAL, 20, spacing=spacing), Ancestral()
    for t, step, x in zip(theirs.timesteps, grid.down(), draws(20), strict=True):
        spread = method.spread(step)
        assert float(theirs._get_variance(t)) == pytest.approx(max(spread**2, 1e-20), rel=1e-10)
        moved = theirs.step(network(x, t), t, x, generator=torch.Generator().manual_seed(7)).prev_sample
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        ours = method.step(DENOISER, x, step).x + max(spread, 1e-10 * (int(t) > 0)) * drawn
        assert worst(ours, moved) < TIGHT


# sde-dpmsolver++


def sde_walks(steps, order, final, spacing, **config):
    """Every state of their walk, and of ours on the same levels with the same noise."""
    theirs = DPMSolverMultistepScheduler(
        algorithm_type="sde-dpmsolver++",
        solver_order=order,
        solver_type="midpoint",
        final_sigmas_type=final,
        timestep_spacing=spacing,
        **config,
    )
    theirs.set_timesteps(steps)
    clean = "one" if final == "zero" else "first"
    grid = us.Grid.from_timesteps(USUAL, theirs.timesteps.tolist()[::-1], clean=clean)
    ratios = np.array([level.ratio for level in grid.levels[::-1]])
    np.testing.assert_allclose(theirs.sigmas.numpy(), ratios, rtol=1e-3)
    theirs.sigmas = torch.from_numpy(ratios)
    start, *noise = draws(steps + 1)
    x, states = start, []
    for t, drawn in zip(theirs.timesteps, noise, strict=True):
        x = theirs.step(network(x, t), t, x, variance_noise=drawn).prev_sample
        states.append(x)
    return our_walk(grid.down(), SDEDPMSolverPP(order), start, noise), torch.stack(states)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("final", ["zero", "sigma_min"])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize("order", [1, 2])
def test_sde_equals_the_scheduler(order, spacing, final):
    """Reference: DPMSolverMultistepScheduler as it is set up by default, every state; its last move to both last levels."""
    assert worst(*sde_walks(20, order, final, spacing)) < TIGHT


@pytest.mark.usefixtures("double")
def test_sde_walks_of_few_moves_differ_in_the_last_where_it_is_not_to_a_level_without_noise():
    """Known deviation: below 15 moves diffusers makes the last one with order 1 (`lower_order_final`)."""
    assert worst(*sde_walks(10, 2, "zero", "leading")) < TIGHT
    assert worst(*sde_walks(10, 2, "sigma_min", "leading", lower_order_final=False)) < TIGHT
    ours, theirs = sde_walks(10, 2, "sigma_min", "leading")
    assert worst(ours[:-1], theirs[:-1]) < TIGHT
    assert worst(ours[-1], theirs[-1]) > 1e-3
