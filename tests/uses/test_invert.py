import pytest
import torch

import unsample as us
from unsample.methods.registry import PAPER_METHOD, PAPER_START
from unsample.models.analytic import gaussian


@pytest.fixture
def model(toy):
    return toy()


def pictures(count, dtype=torch.float32):
    return torch.rand((count, 1, 4, 4), generator=torch.Generator().manual_seed(count), dtype=torch.float64).to(dtype) * 2 - 1


START = us.ForwardNoise(steps=2)


def test_result_does_not_depend_on_the_batch_size(model):
    x = pictures(7)
    whole = us.invert(model, x, steps=10, start=START)
    for size in (1, 2, 3, 7, 100):
        torch.testing.assert_close(us.invert(model, x, steps=10, start=START, batch_size=size).latent, whole.latent)
    again = us.invert(model, x, steps=10, start=START, batch_size=3).latent
    assert torch.equal(again, us.invert(model, x, steps=10, start=START, batch_size=3).latent)


def test_result_does_not_depend_on_the_order(model):
    x, items, labels = pictures(5), ["a", "b", "c", "d", "e"], [0, None, 2, "1", 0]
    there = us.invert(model, x, steps=10, items=items, condition=labels).latent
    order = [3, 0, 4, 2, 1]
    back = us.invert(
        model, x[order], steps=10, items=[items[i] for i in order], condition=[labels[i] for i in order], batch_size=2
    ).latent
    torch.testing.assert_close(back, there[order])


def test_seed_and_item_choose_the_noise(model):
    x = pictures(1).repeat(3, 1, 1, 1)
    latents = us.invert(model, x, steps=10, items=["a", "b", "a"]).latent
    assert torch.equal(latents[0], latents[2])
    assert not torch.equal(latents[0], latents[1])
    assert not torch.equal(us.invert(model, x, steps=10, items=["a", "b", "a"], seed=1).latent, latents)
    assert torch.equal(us.invert(model, x, steps=10).latent, us.invert(model, x, steps=10, items=[0, 1, 2]).latent)


def test_plain_inversion_ignores_seed_and_items(model):
    x = pictures(2)
    one = us.invert(model, x, steps=10, start=us.FromImage(), seed=1, items=["x", "y"]).latent
    assert torch.equal(one, us.invert(model, x, steps=10, start=us.FromImage(), seed=2).latent)


@pytest.mark.parametrize("call", [us.invert, us.reconstruct])
def test_the_default_is_to_look_ahead_from_the_papers_start(model, call):
    default = call(model, pictures(2))
    stated = call(model, pictures(2), method=us.LookAhead(), start=us.ForwardNoise(steps=2))
    there, same = (found if call is us.invert else found.trajectory for found in (default, stated))
    assert (there.start, there.index, there.nfe) == (2, 50, 48 + 1)  # one evaluation to begin with
    assert torch.equal(there.latent, same.latent)


def test_the_papers_setting_is_ddim_after_four_percent(model):
    trajectory = us.invert(model, pictures(1), method=PAPER_METHOD, start=PAPER_START)
    assert (PAPER_METHOD, trajectory.start, trajectory.index, trajectory.nfe) == (us.DDIM(), 2, 50, 48)


@pytest.mark.parametrize("k", [0, 1, 4, 10])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_nfe_is_the_number_of_moves_twice_with_guidance(model, k, guidance):
    settings = {"steps": 10, "method": us.DDIM(), "start": us.ForwardNoise(steps=k), "condition": 1, "guidance": guidance}
    there = us.invert(model, pictures(3), batch_size=2, **settings)
    assert there.nfe == (10 - k) * (1 if guidance == 1 else 2)
    both = us.reconstruct(model, pictures(3), **settings)
    assert both.nfe == (20 - k) * (1 if guidance == 1 else 2)


@pytest.mark.parametrize("method", [us.DDIM(), us.LookAhead()], ids=["without memory", "with memory"])
def test_until_stops_part_way_and_sample_goes_on_from_there(model, method):
    x = pictures(2, torch.float64)
    full = us.invert(model, x, steps=20, method=method, start=START, keep=us.Keep("states"))
    part = us.invert(model, x, steps=20, method=method, start=START, until=8)
    assert (part.start, part.index, part.nfe) == (2, 8, method.evaluations(6))
    assert torch.equal(part.latent, full.states[8])
    back = us.sample(model, part.latent, steps=20, index=8)
    assert back.nfe == 8
    *_, last = us.walk(model.denoiser(), part.latent, model.grid(20).down(8), us.DDIM())
    assert torch.equal(back.images, last.x)
    at_start = us.invert(model, x, steps=20, method=method, start=START, until=2)
    assert at_start.nfe == 0
    assert torch.equal(at_start.latent, full.states[2])


@pytest.mark.parametrize("until", [1, 21, -1])
def test_until_must_lie_on_the_way(model, until):
    with pytest.raises(us.ArgumentError, match="between the start's level 2 and the grid's end 20"):
        us.invert(model, pictures(1), steps=20, start=START, until=until)


def test_conditions_by_name_index_and_broadcast(model):
    x = pictures(2)
    one = us.invert(model, x, steps=5, condition="2").latent
    assert torch.equal(one, us.invert(model, x, steps=5, condition=[2, 2]).latent)
    assert torch.equal(one, us.invert(model, x, steps=5, condition=("2", 2)).latent)
    assert not torch.equal(one, us.invert(model, x, steps=5).latent)
    assert torch.equal(us.invert(model, x, steps=5).latent, us.invert(model, x, steps=5, condition=[None, None]).latent)


def test_guidance_is_that_of_the_formula(model):
    """Reference: a walk with Guided put together by hand."""
    x = pictures(2, torch.float64)
    by_hand = us.Guided(model.denoiser([0, 2]), model.denoiser(), 2.5)
    *_, last = us.walk(by_hand, x, model.grid(10).up(), us.DDIM())
    settings = {"method": us.DDIM(), "start": us.FromImage(), "condition": [0, 2], "guidance": 2.5}
    latent = us.invert(model, x, steps=10, **settings).latent
    torch.testing.assert_close(latent, last.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_states_keep_the_precision_of_the_images(model, dtype):
    both = us.reconstruct(model, pictures(2, dtype), steps=10)
    assert both.images.dtype == both.trajectory.latent.dtype == dtype


def test_float32_differs_from_float64_by_rounding(model):
    single = us.invert(model, pictures(2), steps=20).latent
    double = us.invert(model, pictures(2).double(), steps=20).latent
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4)


def test_a_grid_overrides_the_number_of_steps(model):
    grid = us.Grid.from_timesteps(model.schedule, [5, 100, 300, 900], clean="first")
    with pytest.warns(UserWarning, match="steps has no effect beside a grid"):
        trajectory = us.invert(model, pictures(1), steps=77, grid=grid, method=us.DDIM(), start=us.FromImage())
    assert trajectory.nfe == 4
    assert us.sample(model, trajectory.latent, grid=grid).nfe == 4


def test_reconstruct_is_invert_and_sample(model):
    x = pictures(3)
    settings = {"steps": 10, "condition": [0, 1, 2], "guidance": 1.5, "batch_size": 2}
    there = us.invert(model, x, method=us.DDIM(eval_at="source"), start=START, seed=4, **settings)
    back = us.sample(model, there.latent, **settings)
    both = us.reconstruct(model, x, method=us.DDIM(eval_at="source"), start=START, seed=4, **settings)
    assert torch.equal(both.images, back.images)
    assert torch.equal(both.trajectory.latent, there.latent)
    assert both.nfe == there.nfe + back.nfe


def test_reconstruction_gets_better_with_more_steps(model):
    """Reference: the images themselves."""
    x = pictures(4, torch.float64)

    def error(n):
        return float((us.reconstruct(model, x, steps=n, start=us.FromImage()).images - x).abs().mean())

    errors = [error(n) for n in (10, 50, 250)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_progress_is_told_to_the_end(model):
    told = []
    us.reconstruct(
        model, pictures(3), steps=5, start=START, batch_size=2, on_step=lambda done, total: told.append((done, total))
    )
    total = 3 * (3 + 5)
    assert told[-1] == (total, total)
    assert {t for _, t in told} == {total}
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_inputs_are_left_as_they_were(model):
    x = pictures(2)
    before = x.clone()
    us.reconstruct(model, x, steps=5, start=us.FromImage())
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.zeros(1, 4, 4), "expected images of shape"),
        (torch.zeros(0, 1, 4, 4), "expected images of shape"),
        (torch.zeros(1, 1, 8, 8), "resize them first"),
        (torch.zeros(2, 3, 4, 4), "channels"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "images / 127.5 - 1"),
        (torch.full((1, 1, 4, 4), 255.0), "a value of 255"),
        (torch.full((1, 1, 4, 4), float("nan")), "finite"),
        (torch.full((1, 1, 4, 4), float("inf")), "finite"),
    ],
    ids=["no batch", "empty", "size", "channels", "bytes", "0..255", "nan", "inf"],
)
def test_images_that_cannot_be_inverted_are_refused(model, images, says, untyped):
    for call in (us.invert, us.reconstruct):
        with pytest.raises(us.ArgumentError, match=says):
            call(model, images, steps=5)


def test_settings_that_do_not_fit_are_refused(model):
    x = pictures(2)
    cases = [
        ({"items": ["a"]}, "one id per image: 2 images, 1 items"),
        ({"condition": [1]}, "2 items, 1 condition"),
        ({"batch_size": 0}, "batch size of at least 1"),
        ({"start": us.ForwardNoise(steps=6)}, "smaller start"),
        ({"guidance": 2.0}, "guide towards"),
        ({"condition": 3}, r"classes 0\.\.2"),
        ({"steps": 0}, "whole number from 1"),
    ]
    for settings, says in cases:
        with pytest.raises(us.ArgumentError, match=says):
            us.invert(model, x, **{"steps": 5, **settings})


@pytest.mark.parametrize(
    "latent",
    [torch.zeros(1, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(0, 1, 4, 4)],
    ids=["no batch", "channels", "empty"],
)
def test_latents_that_cannot_be_sampled_are_refused(model, latent):
    with pytest.raises(us.ArgumentError, match="expected"):
        us.sample(model, latent, steps=5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_a_divergence(model, value):
    with pytest.raises(us.DivergenceError, match="diverged"):
        us.sample(model, torch.full((1, 1, 4, 4), value), steps=5)


@pytest.mark.parametrize("index", [-1, 6])
def test_sampling_from_a_level_beyond_the_grid_is_refused(model, index):
    with pytest.raises(us.ArgumentError, match="outside this grid"):
        us.sample(model, torch.zeros(1, 1, 4, 4), steps=5, index=index)


def test_sampling_a_gaussian_returns_its_distribution():
    """Reference: mean and standard deviation of the data, within sampling error and the error of 200 steps."""
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    model = gaussian(schedule, [0.04, 0.25, 1.0, 0.5], shape=(1, 2, 2), mean=0.3)
    x = us.sample(model, us.draw_noise(model, 4000, dtype=torch.float64), steps=200).images.flatten(1)
    assert x.mean(0).tolist() == pytest.approx([0.3] * 4, abs=0.06)
    assert x.std(0).tolist() == pytest.approx([0.2, 0.5, 1.0, 0.5**0.5], rel=0.1)


def test_each_image_is_encoded_once(counted):
    model, calls = counted
    us.reconstruct(model, torch.zeros(3, 3, *model.image_size), steps=3, batch_size=2)
    assert calls == [2, 1]
