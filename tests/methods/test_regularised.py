"""Pix2Pix-Zero: its two statistics by naive loops, what its steps do to them, and where it differs from DDIM."""

import math

import pytest
import torch

import unsample as us
from unsample.methods.regularised import Pix2PixZero, normal_divergence, regularised
from unsample.methods.renoise import autocorrelation
from unsample.models.analytic import bench_field

from .exact import draw, smooth


def naive_correlation(item):
    """Pyramid, rolls and channels one at a time; the mean over shifts in place of the authors' random one."""
    total = 0.0
    for field in item:
        field = field[None, None]
        while True:
            for axis in (2, 3):
                shifts = range(1, field.shape[axis] // 2)
                total = total + sum((field * field.roll(s, axis)).mean() ** 2 for s in shifts) / len(shifts)
            if field.shape[2] <= 8:
                break
            field = torch.nn.functional.avg_pool2d(field, 2)
    return total


def naive_divergence(item):
    return item.var() + item.mean() ** 2 - 1 - torch.log(item.var() + 1e-7)


def naive(eps, rounds, rolls, correlation, divergence):
    """One item at a time, by autograd on the loops above, with the step sizes of a map of 4x64x64."""
    items = []
    for item in eps:
        channels, height, width = item.shape
        losses = [(naive_correlation, correlation / rolls * height * width / 4096)] * rolls
        losses += [(naive_divergence, divergence * channels * height * width / 16384)]
        for loss, size in losses * rounds:
            item = item.detach().requires_grad_()
            (slope,) = torch.autograd.grad(loss(item), item)
            item = item.detach() - size * slope
        items.append(item)
    return torch.stack(items)


def test_the_divergence_is_twice_that_of_a_gaussian_of_the_same_moments():
    """Reference: torch.distributions, with the unbiased variance."""
    eps = 0.3 + 1.7 * draw(3, 2, 8, 8)
    for item, value in zip(eps, normal_divergence(eps), strict=True):
        fitted = torch.distributions.Normal(item.mean(), item.std())
        theirs = 2 * torch.distributions.kl_divergence(fitted, torch.distributions.Normal(0.0, 1.0))
        assert float(value) == pytest.approx(float(theirs), rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (2, 1, 32, 16), (1, 2, 32, 32)])
def test_regularising_equals_a_loop_over_items_and_channels(shape):
    eps = smooth(*shape) * torch.linspace(0.5, 2, shape[0], dtype=torch.float64)[:, None, None, None] + 0.1
    ours = regularised(eps, 3, 2, 400.0, 300.0)
    torch.testing.assert_close(ours, naive(eps, 3, 2, 400.0, 300.0), rtol=1e-9, atol=1e-11)
    assert float((ours - eps).abs().max()) > 0.01


@pytest.mark.parametrize("shape", [(3, 32, 32), (4, 64, 64), (1, 4, 4)])
@pytest.mark.parametrize(
    ("scale", "shift"), [(1.5, 0.0), (5.0, 0.0), (0.1, 1.0)], ids=["large", "very large", "almost constant"]
)
def test_the_published_steps_decrease_both_statistics_and_stay_finite(shape, scale, shift):
    eps = scale * smooth(2, *shape) + shift
    better = regularised(eps)
    assert bool((autocorrelation(better) < autocorrelation(eps)).all())
    assert bool((normal_divergence(better) < normal_divergence(eps)).all())
    assert float(better.abs().max()) <= 1.05 * float(eps.abs().max())


def test_each_step_decreases_its_own_statistic():
    eps = 0.7 * smooth(2, 3, 32, 32)
    assert bool((autocorrelation(regularised(eps, 1, 1, 4.0, 0.0)) < autocorrelation(eps)).all())
    assert bool((normal_divergence(regularised(eps, 1, 1, 0.0, 20.0)) < normal_divergence(eps)).all())
    assert torch.equal(regularised(eps, correlation=0.0, divergence=0.0), eps)
    assert torch.equal(regularised(eps, rounds=0), eps)


def test_true_noise_is_left_almost_alone():
    noise = draw(2, 4, 64, 64)
    assert float((regularised(noise) - noise).abs().max()) < 0.01


def test_items_do_not_mix_and_no_graph_is_kept():
    eps = smooth(3, 2, 16, 16) * torch.tensor([0.2, 1.0, 2.0])[:, None, None, None]
    with torch.no_grad():
        together = regularised(eps, correlation=500.0, divergence=500.0)
        for i in range(3):
            alone = regularised(eps[i : i + 1], correlation=500.0, divergence=500.0)[0]
            torch.testing.assert_close(alone, together[i], rtol=1e-9, atol=1e-12)
    kept = eps.clone().requires_grad_()
    assert not regularised(kept).requires_grad
    assert not together.requires_grad
    assert kept.grad is None


def test_maps_without_a_lag_are_refused():
    with pytest.raises(us.ArgumentError, match="at least 4x4"):
        regularised(draw(1, 1, 3, 8))


@pytest.mark.parametrize("eval_at", ["target", "source"])
def test_up_it_is_ddim_with_regularised_eps_and_down_it_is_ddim(eval_at):
    model, _ = bench_field()
    denoiser, grid = model.denoiser(), model.grid(10)
    x, step = draw(2, 1, 16, 16), us.Step(grid[2], grid[3])
    eps = regularised(denoiser(x, step.dst if eval_at == "target" else step.src))
    moved = Pix2PixZero(eval_at=eval_at).step(denoiser, x, step)
    assert torch.equal(moved.eps, eps)
    assert torch.equal(moved.x, us.transfer(x, eps, step))
    back = us.Step(grid[3], grid[2])
    assert torch.equal(Pix2PixZero(eval_at=eval_at).step(denoiser, x, back).x, us.DDIM().step(denoiser, x, back).x)
    plain = us.DDIM(eval_at).step(denoiser, x, step)
    assert torch.equal(Pix2PixZero(rounds=0, eval_at=eval_at).step(denoiser, x, step).x, plain.x)


def test_more_steps_do_not_bring_it_closer_to_ddim():
    """What the docstring says: the regularisation of a move does not shrink with the move."""
    model, _ = bench_field()
    images = draw(2, 1, 16, 16).clamp(-1, 1) / 2
    gaps = []
    for steps in (10, 40):
        ways = [us.invert(model, images, steps=steps, method=method).latent for method in (Pix2PixZero(), us.DDIM())]
        gaps.append(float((ways[0] - ways[1]).square().mean().sqrt()))
    assert gaps[1] > 0.5 * gaps[0] > 0


@pytest.mark.parametrize(
    "options", [{"eval_at": "here"}, {"rounds": -1}, {"rolls": 0}, {"correlation": -1.0}, {"divergence": math.nan}]
)
@pytest.mark.usefixtures("untyped")
def test_options_out_of_range_are_refused(options):
    with pytest.raises(us.ArgumentError):
        Pix2PixZero(**options)
