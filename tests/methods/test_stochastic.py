"""Samplers that add noise, and the methods that store it, against closed forms of Gaussian data."""

import itertools
import math

import pytest
import torch

import unsample as us
from unsample.core.corrections import Corrected
from unsample.core.schedule import level_of
from unsample.methods.drawn_paths import CycleDiffusion, EditFriendly, LEditsPP, noise_maps
from unsample.methods.stochastic import Ancestral, SDEDPMSolverPP, Stochastic
from unsample.models.analytic import gaussian

USUAL = us.Schedule.from_betas(us.Schedule.linear_betas())
SAMPLERS = [Ancestral(), Ancestral(0.5), Ancestral(0.0), SDEDPMSolverPP(1), SDEDPMSolverPP(2)]
METHODS = [EditFriendly(), EditFriendly(0.4), CycleDiffusion(), CycleDiffusion(0.1), LEditsPP(), LEditsPP(1)]


def state(seed=0, shape=(2, 1, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tanh(x, level):
    return torch.tanh(x * (1 + level.t / 1000))


# The samplers


@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("variance_preserving", [True, False])
def test_ancestral_is_eq_12_and_16_for_any_alpha_and_sigma(eta, variance_preserving):
    """Reference: the formulas as they are printed, with sigma_{src|dst}."""
    scale = 1.0 if variance_preserving else 1.7
    src, dst = us.Level(2, 500, 0.6 * scale, 0.8 * scale), us.Level(1, 300, 0.8, 0.6)
    between = src.sigma**2 - (src.alpha / dst.alpha) ** 2 * dst.sigma**2
    spread = eta * math.sqrt(between * dst.sigma**2 / src.sigma**2)
    method, step, x = Ancestral(eta), us.Step(src, dst), state()
    eps = tanh(x, src)
    mean = dst.alpha * (x - src.sigma * eps) / src.alpha + math.sqrt(dst.sigma**2 - spread**2) * eps
    assert method.spread(step) == pytest.approx(spread, rel=1e-12)
    torch.testing.assert_close(method.step(tanh, x, step).x, mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("clean", ["one", "first"])
def test_ancestral_between_ddim_and_sde_dpm_solver(clean):
    """Identities: eta = 0 is DDIM; eta = 1 is SDE-DPM-Solver++ of order 1."""
    moves = list(us.Grid.of(USUAL, 12, clean=clean).down())

    def walked(method):
        return torch.stack([moved.x for moved in us.walk(tanh, state(), moves, method)])

    torch.testing.assert_close(walked(Ancestral(0.0)), walked(us.DDIM()), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(walked(Ancestral(1.0)), walked(SDEDPMSolverPP(1)), rtol=1e-12, atol=1e-12)
    assert [Ancestral(0.0).spread(step) for step in moves] == [0.0] * 12
    assert [Ancestral(1.0).spread(step) for step in moves] == [SDEDPMSolverPP(1).spread(step) for step in moves]


@pytest.mark.parametrize("method", SAMPLERS, ids=repr)
def test_up_they_are_ddim_and_draw_nothing(method):
    grid = us.Grid.of(USUAL, 8)
    ours, plain = (torch.stack([m.x for m in us.walk(tanh, state(), grid.up(), by)]) for by in (method, us.DDIM()))
    assert torch.equal(ours, plain)
    assert [method.spread(step) for step in grid.up()] == [0.0] * 8


def test_levels_of_equal_noise_count_as_one():
    """Reference: the same walk without the move between equal levels, which asks again and changes nothing."""
    levels = us.Grid.of(USUAL, 6, clean="first").levels
    twice = (*levels[:4], levels[3], *levels[4:])
    doubled = us.Grid(tuple(us.Level(i, level.t, level.alpha, level.sigma) for i, level in enumerate(twice)))
    for method in (Ancestral(), SDEDPMSolverPP()):
        ours = [moved.x for moved in us.walk(tanh, state(), doubled.down(), method)]
        plain = [moved.x for moved in us.walk(tanh, state(), us.Grid(levels).down(), method)]
        torch.testing.assert_close(ours[-1], plain[-1], rtol=1e-12, atol=1e-12)


def sampled_variance(grid, method, variance, begin):
    """Variance that sampling from N(0, begin) ends with, for Gaussian data; a row per source of noise instead of draws."""

    def receive(moved):
        x = moved.x.clone()
        x[moved.step.dst.index] += method.spread(moved.step)
        return x

    x = torch.zeros((len(grid), 1), dtype=torch.float64)
    x[grid.steps] = math.sqrt(begin)
    *_, last = us.walk(
        lambda x, at: at.sigma * x / (at.alpha**2 * variance + at.sigma**2), x, grid.down(), method, correct=receive
    )
    return float(last.x.square().sum())


@pytest.mark.parametrize("variance", [0.01, 0.25, 1.5])
@pytest.mark.parametrize("method", SAMPLERS, ids=repr)
def test_the_sampled_variance_of_gaussian_data_converges_with_the_order(method, variance):
    """Reference: the data's own variance, in even moves of lambda from -4 to 4; errors of 160 and 320 moves."""
    errors = []
    for steps in (160, 320):
        lambdas = [4 - 8 * i / steps for i in range(steps + 1)]
        grid = us.Grid(tuple(level_of(1 / (1 + math.exp(-2 * value)), i, i) for i, value in enumerate(lambdas)))
        begin, end = (level.alpha**2 * variance + level.sigma**2 for level in (grid[-1], grid[0]))
        errors.append(abs(sampled_variance(grid, method, variance, begin) / end - 1))
    assert errors[1] < 0.03
    assert math.log2(errors[0] / errors[1]) == pytest.approx(method.order, abs=0.1)


# Sampling with them


@pytest.mark.parametrize(("method", "bias"), [(Ancestral(), 0.04), (SDEDPMSolverPP(), 0.003)])
def test_samples_from_true_noise_have_the_variance_of_the_data(method, bias):
    """Reference: what the walk must end with, within five standard errors; with all 1000 moves that is v but for `bias`."""
    variances = [0.05, 1.0]
    model = gaussian(USUAL, torch.tensor(variances).repeat_interleave(2048), shape=(1, 64, 64))
    for steps in (200, 1000):
        latent = us.draw_noise(model, 2, dtype=torch.float64)
        flat = us.sample(model, latent, steps=steps, method=method).images.flatten(1)
        for variance, part in zip(variances, flat.split(2048, dim=1), strict=True):
            expected = sampled_variance(model.grid(steps), method, variance, 1.0)
            assert float(part.var()) == pytest.approx(expected, rel=5 * math.sqrt(2 / part.numel()))
            assert steps < 1000 or expected == pytest.approx(variance, rel=bias)


@pytest.mark.parametrize("method", [Ancestral(), SDEDPMSolverPP()], ids=repr)
def test_the_draw_of_an_item_depends_on_seed_id_and_level_alone(toy, method):
    model = toy()
    latent, items = us.draw_noise(model, 5, dtype=torch.float64), ["a", "b", "c", "d", "e"]

    def sampled(latent=latent, items=items, **more):
        return us.sample(model, latent, steps=6, method=method, items=items, **more).images

    whole = sampled()
    torch.testing.assert_close(sampled(batch_size=2), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sampled(latent.flip(0), items[::-1]).flip(0), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sampled(latent[3:4], ["d"]), whole[3:4], rtol=1e-12, atol=1e-12)
    assert float((sampled(seed=1) - whole).abs().mean()) > 0.01
    same = sampled(latent[:1].expand(5, -1, -1, -1))
    assert float((same[0] - same[1]).abs().mean()) > 0.01
    with pytest.raises(us.ArgumentError, match="one id per latent"):
        sampled(items=["a"])


def test_what_is_drawn_is_standard_normal_and_new_at_every_level():
    """Reference: N(0, 1), independent of other levels and of the latent; by a sampler whose means are 0 and spreads 2."""
    model, seen = gaussian(USUAL, torch.ones(4096), shape=(1, 64, 64)), {}

    class Spy(Stochastic):
        def spread(self, step):
            return 2.0

        def step(self, denoiser, x, step, state=None):
            seen[step.src.index] = x
            return us.Moved(step, torch.zeros_like(x), x)

    images = us.sample(model, us.draw_noise(model, 2, dtype=torch.float64), steps=4, method=Spy()).images
    drawn = torch.stack([images, *(seen[i] for i in (1, 2, 3))]).flatten(1) / 2
    count = drawn.shape[1]
    moments = torch.corrcoef(torch.cat([drawn, seen[4].flatten()[None]]))
    assert (drawn.mean(1).abs() < 5 / math.sqrt(count)).all()
    assert ((drawn.var(1) - 1).abs() < 5 * math.sqrt(2 / count)).all()
    assert (moments - torch.eye(5)).abs().max() < 5 / math.sqrt(count)


# The methods


@pytest.mark.parametrize("clean", ["one", "first"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_the_image_returns_from_any_start_at_the_cost_of_a_walk_down(toy, method, clean):
    """Reference: the image. A start changes nothing, and with corrections no noise is drawn."""
    model, images = toy(), state(1, (3, 1, 4, 4)).clamp(-1, 1)
    grid = us.Grid.of(USUAL, 12, clean=clean)
    assert isinstance(method, Corrected)
    found = us.invert(model, images, method=method, start=us.ForwardNoise(steps=2), grid=grid)
    plain = us.invert(model, images, method=method, start=us.FromImage(), grid=grid)
    assert torch.equal(found.latent, plain.latent)
    assert (found.nfe, found.start, sorted(found.stored.corrections)) == (12, 12, list(range(12)))
    back = [us.sample(model, found.latent, method=method.sampler, stored=found.stored, seed=s, grid=grid) for s in (0, 1)]
    assert torch.equal(back[0].images, back[1].images)
    torch.testing.assert_close(back[0].images, images, rtol=0, atol=1e-9)


def test_ledits_with_order_1_is_edit_friendly_and_with_order_2_is_not(toy):
    model, images = toy(), state(1, (3, 1, 4, 4))
    maps = [us.invert(model, images, steps=6, method=m).stored.corrections for m in (EditFriendly(), LEditsPP(1), LEditsPP(2))]
    for level in range(6):
        torch.testing.assert_close(maps[0][level], maps[1][level], rtol=1e-12, atol=1e-12)
    assert float((maps[0][3] - maps[2][3]).abs().max()) > 1e-3


@pytest.mark.parametrize("method", [EditFriendly(), CycleDiffusion(), CycleDiffusion(0.3)], ids=repr)
def test_the_path_is_the_same_in_whatever_order_its_levels_are_asked_for(method):
    grid, x0 = us.Grid.of(USUAL, 8), state()
    path, down = (method.path(x0, grid, us.ItemNoise(0, ["a", "b"]), {}) for _ in range(2))
    expected = {i: down(i) for i in range(8, -1, -1)}
    for i in (3, 8, 0, 3, 7, 1, 2, 8, 4):
        assert torch.equal(path(i), expected[i])
    assert torch.equal(expected[0], x0)


@pytest.mark.parametrize("method", [EditFriendly(), CycleDiffusion(), CycleDiffusion(0.3), CycleDiffusion(0.0)], ids=repr)
def test_every_level_of_the_path_is_forward_diffusion(method):
    """Reference: q(x_t | x0), mean alpha x0 and variance sigma^2.

    Noises of neighbours are independent (edit-friendly), or correlated by S_dst / S_src, as where x_src is x_dst diffused on
    (eta = 1), more for less eta, and the same (eta = 0).
    """
    grid, x0 = us.Grid.of(USUAL, 6), torch.full((1, 1, 150, 150), 0.7, dtype=torch.float64)
    path, count = method.path(x0, grid, us.ItemNoise(0, [0]), {}), x0.numel()
    noises = {i: ((path(i) - grid[i].alpha * x0) / grid[i].sigma).flatten() for i in range(6, 0, -1)}
    for noise in noises.values():
        assert abs(float(noise.mean())) < 5 / math.sqrt(count)
        assert float(noise.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / count))
    for step in grid.down(stop=1):
        ratio = step.dst.ratio / step.src.ratio
        expected = math.sqrt(1 - method.eta**2 * (1 - ratio**2)) if isinstance(method, CycleDiffusion) else 0.0
        measured = float(torch.corrcoef(torch.stack([noises[step.src.index], noises[step.dst.index]]))[0, 1])
        assert measured == pytest.approx(expected, abs=5 / math.sqrt(count))


# Noise maps


def maps_of(method, variance, steps=8, pixels=128):
    """The maps of an image drawn from Gaussian data of a variance, by its exact model; flattened, by level."""
    model = gaussian(USUAL, torch.full((pixels**2,), variance), shape=(1, pixels, pixels))
    found = us.invert(model, variance**0.5 * state(5, (1, 1, pixels, pixels)), steps=steps, method=method)
    maps = noise_maps(found.stored.corrections, method.sampler, model.grid(steps))
    assert sorted(maps) == list(range(1, steps))  # the move to the clean image has no noise
    return {level: z.flatten() for level, z in maps.items()}, model.grid(steps)


def within(measured, expected, scale, count):
    return abs(float(measured) - expected) < 5 * scale / math.sqrt(count)


def test_noise_maps_are_corrections_over_spreads():
    grid, sampler = us.Grid.of(USUAL, 4, clean="first"), Ancestral(0.5)
    corrections = {i: state(i) for i in (0, 2, 3)}
    maps = noise_maps(corrections, sampler, grid)
    spreads = {i: sampler.spread(us.Step(grid[i + 1], grid[i])) for i in corrections}
    assert spreads[0] == 0.0  # timestep 0 is the first trained one
    assert sorted(maps) == [2, 3]
    for level, z in maps.items():
        torch.testing.assert_close(spreads[level] * z, corrections[level], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_cyclediffusion_of_a_known_image_finds_the_noise_it_drew(eta):
    """Reference: the draws themselves; a model of one image misses nothing of it."""
    maps, _ = maps_of(CycleDiffusion(eta), 0.0, pixels=8)
    for level, z in maps.items():
        drawn = us.ItemNoise(0, [0]).draw((1, 64), stream=f"path {level}", dtype=torch.float64)
        torch.testing.assert_close(z, drawn[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variance", [0.05, 1.0])
def test_cyclediffusion_maps_of_gaussian_data_are_white_and_wider_than_what_ddpm_draws(variance):
    """Reference: z = (x_dst - E[x_dst | x_src]) / spread, the innovation of a Gaussian Markov chain.

    Its variance is Var(x_dst | x_src) / spread^2 with V_t = alpha_t^2 v + sigma_t^2 and Cov = (alpha_src / alpha_dst) V_dst;
    the posterior given x0, spread^2, is narrower. Levels are independent.
    """
    maps, grid = maps_of(CycleDiffusion(), variance)
    total = {level.index: level.alpha**2 * variance + level.sigma**2 for level in grid.levels}
    for step in grid.down(stop=1):
        src, dst = step.src.index, step.dst.index
        covariance = step.src.alpha / step.dst.alpha * total[dst]
        expected = (total[dst] - covariance**2 / total[src]) / Ancestral().spread(step) ** 2
        assert expected > 1
        assert within(maps[dst].var(), expected, math.sqrt(2) * expected, maps[dst].numel())
    for one, other in itertools.pairwise(maps):
        measured = torch.corrcoef(torch.stack([maps[one], maps[other]]))[0, 1]
        assert within(measured, 0.0, 1.0, maps[one].numel())


@pytest.mark.parametrize("variance", [0.0, 0.05, 1.0])
def test_edit_friendly_maps_are_wide_and_neighbours_negatively_correlated(variance):
    """Reference: closed forms of independent x_t, with z = (x_dst - A x_src) / spread.

    A = (alpha_src / alpha_dst) V_dst / V_src is the gain of the mean: E[x_dst | x_src] for data of variance v.

    For a known image (v = 0) the variance is 1 + 2 (sigma_dst^2 - spread^2) / spread^2, as documented.
    """
    maps, grid = maps_of(EditFriendly(), variance)
    moves, sampler = list(grid.down(stop=1)), Ancestral()
    total = {level.index: level.alpha**2 * variance + level.sigma**2 for level in grid.levels}
    gain = {m.dst.index: m.src.alpha / m.dst.alpha * total[m.dst.index] / total[m.src.index] for m in moves}

    def shared(one, other):
        return grid[one].alpha * grid[other].alpha * variance if one != other else total[one]

    def covariance(one, other):
        terms = [(one, 1.0), (one + 1, -gain[one])], [(other, 1.0), (other + 1, -gain[other])]
        spreads = math.prod(sampler.spread(us.Step(grid[i + 1], grid[i])) for i in (one, other))
        return sum(a * b * shared(i, j) for (i, a), (j, b) in itertools.product(*terms)) / spreads

    for step in moves:
        one, spread = step.dst.index, sampler.spread(step)
        expected = covariance(one, one)
        assert expected > 1
        if variance == 0:
            assert expected == pytest.approx(1 + 2 * (step.dst.sigma**2 - spread**2) / spread**2, rel=1e-9)
        assert within(maps[one].var(), expected, math.sqrt(2) * expected, maps[one].numel())
    for one, other in itertools.pairwise(sorted(maps)):
        expected = covariance(one, other) / math.sqrt(covariance(one, one) * covariance(other, other))
        assert expected < 0
        measured = torch.corrcoef(torch.stack([maps[one], maps[other]]))[0, 1]
        assert within(measured, expected, 1.0, maps[one].numel())


@pytest.mark.parametrize("make", [lambda: Ancestral(1.5), lambda: EditFriendly(-0.1), lambda: CycleDiffusion(2.0)])
def test_an_eta_outside_0_to_1_is_refused(make):
    with pytest.raises(us.ArgumentError, match="expected eta from 0"):
        make()


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("make", [SDEDPMSolverPP, LEditsPP])
def test_an_order_other_than_1_and_2_is_refused(make):
    with pytest.raises(us.ArgumentError, match="expected order 1 or 2"):
        make(3)
