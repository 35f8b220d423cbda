"""What networks are taught, against the definitions."""

import dataclasses

import numpy as np
import objectives
import pytest
import torch
from objectives import LEVELS, add_noise, alpha_bar, balance, by_band, draw, noising, target_of

import unsample as us
from unsample.core.prediction import to_eps

CPU = torch.device("cpu")


def levels_of(recipe, count=50):
    return noising(recipe, (torch.arange(count) + 0.5) / count, alpha_bar(recipe))


def test_the_table_is_that_of_linear_betas(recipe):
    """Reference: unsample's own table."""
    own = us.Schedule.from_betas(us.Schedule.linear_betas(recipe.beta_start, recipe.beta_end, recipe.timesteps))
    torch.testing.assert_close(alpha_bar(recipe), torch.tensor(own.alpha_bar).float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_a_network_that_hits_its_target_has_told_the_noise(recipe, prediction):
    """Reference: unsample, which turns what a network predicts into eps at the level with the same time."""
    recipe = dataclasses.replace(recipe, prediction=prediction)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(50, 3, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    levels = levels_of(recipe)
    noisy, target = add_noise(x0, noise, levels), target_of(prediction, x0, noise, levels)
    flow = prediction == "flow"
    schedule = us.FlowSchedule() if flow else us.Schedule.from_betas(us.Schedule.linear_betas())
    assert levels.t.is_floating_point() == flow
    for i, t in enumerate(levels.t.tolist()):
        level = schedule.level(t)
        assert (levels.alpha[i].item(), levels.sigma[i].item()) == pytest.approx((level.alpha, level.sigma), rel=1e-4)
        eps = to_eps(target[i], noisy[i], level, prediction)
        torch.testing.assert_close(eps.double(), noise[i], rtol=0, atol=1e-3)


def test_targets_are_the_definitions(recipe):
    """Reference: eps, alpha eps - sigma x0 and eps - x0, by hand, item by item."""
    x0, noise = torch.randn(2, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0)).unbind()
    levels = levels_of(recipe, 5)
    wanted = {"epsilon": noise, "flow": torch.stack([noise[i] - x0[i] for i in range(5)])}
    v = [levels.alpha[i] * noise[i] - levels.sigma[i] * x0[i] for i in range(5)]
    for prediction, target in {**wanted, "v_prediction": torch.stack(v)}.items():
        torch.testing.assert_close(target_of(prediction, x0, noise, levels), target)


def test_draws_are_a_function_of_seed_and_step_and_cover_the_levels_evenly(recipe):
    recipe = dataclasses.replace(recipe, class_drop=0.5)
    for one, other in zip(draw(recipe, 3, 100, CPU), draw(recipe, 3, 100, CPU), strict=True):
        assert torch.equal(one, other)
    noise, places, drop = draw(recipe, 3, 100, CPU)
    for changed in (draw(recipe, 4, 100, CPU), draw(dataclasses.replace(recipe, seed=1), 3, 100, CPU)):
        assert not torch.equal(changed[0], noise)
        assert not torch.equal(changed[1], places)
    assert (100 * places).long().tolist() == list(range(100))
    assert noise.shape == (100, 3, 8, 8)
    assert 20 < drop.sum() < 80


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
def test_bands_divide_the_levels_evenly(recipe, prediction):
    recipe = dataclasses.replace(recipe, prediction=prediction)
    assert levels_of(recipe, 4 * LEVELS).band.tolist() == np.repeat(np.arange(LEVELS), 4).tolist()
    ends = noising(recipe, torch.tensor([0.0, 1.0]), alpha_bar(recipe))
    assert ends.band.tolist() == [0, LEVELS - 1]


def test_means_by_band():
    """Reference: numpy, band by band."""
    losses, band = torch.rand(40, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 7
    mean, count = by_band(losses, band)
    for which in range(LEVELS):
        items = losses[band == which].numpy()
        assert count[which] == len(items)
        assert mean[which].item() == pytest.approx(items.mean() if len(items) else 0)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow"])
def test_balanced_weights_make_every_level_count_alike(recipe, prediction):
    """Reference: losses that are a known function of the level."""
    levels = levels_of(dataclasses.replace(recipe, prediction=prediction), 200)
    losses, known = torch.exp(-8 * (torch.arange(200) + 0.5) / 200), torch.zeros(LEVELS)
    for _ in range(300):
        known, weights = balance(known, losses, levels.band)
    parts, _ = by_band(weights * losses, levels.band)
    torch.testing.assert_close(parts, torch.ones(LEVELS), rtol=1e-3, atol=0)


def test_the_running_mean_forgets_slowly_and_skips_bands_without_items():
    """Reference: the recursion by hand."""
    band = torch.tensor([2, 2])
    known, _ = balance(torch.zeros(LEVELS), torch.tensor([1.0, 3.0]), band)
    assert known.nonzero().tolist() == [[2]]
    assert known[2] == 2
    known, weights = balance(known, torch.tensor([5.0, 5.0]), band)
    assert known[2].item() == pytest.approx(2 + objectives.MEMORY * 3)
    assert weights.tolist() == pytest.approx([1 / known[2].item()] * 2)
