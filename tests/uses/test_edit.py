"""Editing: against reconstruction, a loop with the formulas, and the image itself; masks, strength, cost, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.denoiser import Guided
from unsample.core.rng import ItemNoise
from unsample.methods.drawn_paths import EditFriendly
from unsample.methods.registry import METHODS
from unsample.uses.edit import edit
from unsample.uses.masks import difference_mask, read_mask
from unsample.uses.variations import variations

STEPS = 10
TWO = us.ForwardNoise(steps=2)


@pytest.fixture(scope="module")
def model(toy):
    return toy()


@pytest.fixture(scope="module")
def images():
    return torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(-1, 1)


@pytest.fixture(scope="module")
def left():
    return torch.arange(4).expand(4, 4) < 2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", METHODS)
def test_under_the_sources_own_condition_an_edit_is_the_reconstruction(model, images, name, guidance):
    """Reference: `reconstruct`, bit by bit without guidance; with it, guidance away from the source itself cancels."""
    known = {"method": METHODS[name](), "steps": STEPS, "start": TWO}
    back = us.reconstruct(model, images, condition=1, **known)
    found = edit(model, images, to=1, source=1, guidance=guidance, **known)
    if guidance == 1:
        assert torch.equal(found.images, back.images)
        assert found.nfe == back.nfe
    else:
        torch.testing.assert_close(found.images, back.images, rtol=0, atol=1e-10)


def test_an_edit_is_guided_sampling_of_the_sources_latent(model, images):
    """Reference: a loop with the formulas of guidance and of DDIM."""
    grid = model.grid(STEPS)
    x = us.invert(model, images, condition=[0, 1, 2], grid=grid).latent
    towards, away = model.denoiser([1, 2, 0]), model.denoiser([0, 1, 2])
    for step in grid.down():
        eps = away(x, step.src) + 3 * (towards(x, step.src) - away(x, step.src))
        x = us.transfer(x, eps, step)
    found = edit(model, images, to=[1, 2, 0], source=[0, 1, 2], grid=grid)
    torch.testing.assert_close(found.images, x)
    assert float((found.images - images).abs().mean()) > 0.1, "an edit that changes nothing proves nothing"


def test_the_unconditional_can_be_moved_away_from(model, images):
    found = edit(model, images, to=2, source=0, negative=None, steps=STEPS)
    there = us.invert(model, images, condition=0, steps=STEPS)
    assert torch.equal(found.images, us.sample(model, there.latent, condition=2, guidance=3.0, steps=STEPS).images)


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.74])
def test_strength_is_the_share_of_the_moves(model, images, strength):
    """Reference: an inversion that stops there, sampled from there."""
    level = round(strength * STEPS)
    there = us.invert(model, images, until=level, condition=0, steps=STEPS, start=TWO)
    back = us.sample(model, there.latent, index=level, condition=1, steps=STEPS)
    found = edit(model, images, to=1, source=0, guidance=1, strength=strength, steps=STEPS, start=TWO)
    assert torch.equal(found.images, back.images)
    assert (found.nfe_up, found.nfe_down) == (there.nfe, level)


def test_no_strength_is_the_image(model, images):
    found = edit(model, images, to=1, strength=0, steps=STEPS)
    assert torch.equal(found.images, images)
    assert found.nfe == 0


def test_a_fraction_of_forward_noise_is_one_of_the_whole_grid(model, images):
    some = {"to": 1, "strength": 0.5, "steps": STEPS}
    fraction = edit(model, images, start=us.ForwardNoise(fraction=0.3), **some)
    assert torch.equal(fraction.images, edit(model, images, start=us.ForwardNoise(steps=3), **some).images)


def test_one_inversion_serves_many_edits(model, images):
    """Masked and stopped short, too; without evaluations on the way up."""
    settings = {"to": 1, "source": 0, "steps": STEPS}
    for start in (us.FromImage(), TWO):
        there = us.invert(model, images, steps=STEPS, condition=0, start=start, keep=us.Keep("states"))
        for more in ({}, {"strength": 0.5}, {"guidance": 1.0}):
            found = edit(model, there, **settings, **more)
            assert torch.equal(found.images, edit(model, images, start=start, **settings, **more).images)
            assert (found.nfe_up, found.nfe) == (0, found.nfe_down)


@pytest.mark.parametrize("name", ["ddim", "look-ahead", "exact", "direct", "edit-friendly", "ledits++", "rf-inversion"])
def test_outside_of_a_mask_the_image_stays_exactly_as_it_is(model, images, left, name):
    settings = {"source": 0, "steps": STEPS, "method": METHODS[name](), "start": TWO}
    found = edit(model, images, to=1, mask=left, **settings)
    assert torch.equal(found.images[..., 2:], images[..., 2:])
    assert float((found.images - images)[..., :2].abs().mean()) > 0.05
    nothing = edit(model, images, to=1, mask=torch.zeros(4, 4), **settings)
    assert torch.equal(nothing.images, images)
    everything = edit(model, images, to=1, mask=torch.ones(3, 4, 4), **settings)
    assert torch.equal(everything.images, edit(model, images, to=1, **settings).images)


def test_pivots_are_the_states_of_the_way_up_and_below_the_start_those_of_its_noise(model, images, left):
    """Reference: a loop that sets the right half back by hand; forward diffusion with the start's own draw."""
    grid, start = model.grid(STEPS), us.ForwardNoise(steps=4)
    there = us.invert(model, images, condition=0, grid=grid, start=start, keep=us.Keep("states"))
    noise = ItemNoise(0, range(3)).draw(images.shape, dtype=images.dtype)
    pivots = {**{i: grid[i].alpha * images + grid[i].sigma * noise for i in range(4)}, **there.states}
    x, towards, away = there.latent, model.denoiser([1] * 3), model.denoiser([0] * 3)
    for step in grid.down():
        x = us.transfer(x, Guided(towards, away, 3.0)(x, step.src), step)
        x = torch.where(left, x, pivots[step.dst.index])
    found = edit(model, images, to=1, source=0, grid=grid, start=start, mask=left)
    torch.testing.assert_close(found.images, x)
    again = edit(model, found.trajectory, to=1, source=0, grid=grid, mask=left)
    assert torch.equal(again.images, found.images)
    x = there.latent
    for step in grid.down():
        x = us.transfer(x, Guided(towards, away, 3.0)(x, step.src), step)
        x = torch.where(left, x, there.states.get(step.dst.index, x))  # no clean state: free below the start
    torch.testing.assert_close(edit(model, there, to=1, source=0, grid=grid, mask=left).images, x)


def test_an_automatic_mask_is_where_the_conditions_disagree(images):
    """Reference: DiffEdit's formulas on a network whose classes differ in the left half; ten draws by hand."""
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    slope = torch.tensor([2.0, 1.0, 0.1, 0.0], dtype=torch.float64)
    model = us.Model.from_callable(
        lambda x, t, condition: x * condition[:, None, None, None] * slope, schedule=schedule, shape=(1, 4, 4), classes=3
    )
    grid = model.grid(STEPS)
    level, total = grid[STEPS // 2], torch.zeros(3, 4, 4, dtype=torch.float64)
    for draw in range(10):
        noise = ItemNoise(0, range(3)).draw(images.shape, stream=f"mask {draw}", dtype=images.dtype)
        total += ((level.alpha * images + level.sigma * noise) * slope).abs()[:, 0]
    most = torch.stack([min(3 * one.mean(), one.max()) for one in total])[:, None, None]
    cells, nfe = difference_mask(model, images, to=1, source=0, steps=STEPS)
    assert torch.equal(cells, total >= most / 2)
    assert not cells[..., 2:].any()
    assert cells[..., 0].all()
    assert nfe == 20
    same, _ = difference_mask(model, images, to=1, source=1, steps=STEPS)
    assert not same.any()
    found = edit(model, images, to=1, source=0, steps=STEPS, mask="auto")
    assert torch.equal(found.mask, cells)
    assert torch.equal(found.images[..., 2:], images[..., 2:])
    assert (found.nfe_mask, found.nfe) == (20, found.nfe_up + found.nfe_down + 20)


def test_a_mask_from_a_file(model, images, left, tmp_path):
    grey = (left.numpy() * 255).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png", (4, 4)), left)
    found = edit(model, images, to=1, steps=STEPS, mask=tmp_path / "mask.png")
    assert torch.equal(found.images, edit(model, images, to=1, steps=STEPS, mask=left).images)


def test_variations_reproduce_differ_and_count(model, images):
    """Reference: forward diffusion with each seed's draw, sampled down from there."""
    start, grid = us.ForwardNoise(steps=4), model.grid(STEPS)
    found = variations(model, images, seeds=[5, 6], start=start, condition=1, steps=STEPS, items=["a", "b", "c"])
    for column, seed in enumerate((5, 6)):
        noise = ItemNoise(seed, ["a", "b", "c"]).draw(images.shape, dtype=images.dtype)
        x = grid[4].alpha * images + grid[4].sigma * noise
        expected = us.sample(model, x, index=4, condition=1, steps=STEPS).images
        assert torch.equal(found.images[:, column], expected)
        rms = (expected.clamp(-1, 1) - images).square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(found.distances[:, column], rms)
    assert found.nfe == 4
    nearest = (found.nearest_first.clamp(-1, 1) - images[:, None]).square().mean((2, 3, 4))
    assert bool((nearest[:, 0] <= nearest[:, 1]).all())
    again = variations(
        model, images[1:], seeds=[6], start=start, condition=1, steps=STEPS, items=["b", "c"], batch_size=1, strength=None
    )
    torch.testing.assert_close(again.images[:, 0], found.images[1:, 1])
    other = variations(model, images, seeds=2, start=start, condition=1, steps=STEPS)
    assert not torch.equal(other.images, found.images)


def test_all_the_way_up_and_back_changes_a_variation_by_the_methods_error(model, images):
    settings = {"seeds": 2, "start": us.ForwardNoise(steps=4), "condition": 1, "steps": 40}
    short, long = variations(model, images, **settings), variations(model, images, strength=1.0, **settings)
    assert (short.nfe, long.nfe) == (4, 77)
    missed = (long.images - short.images).square().mean().sqrt()
    assert 0 < float(missed) < 0.1 * float((short.images[:, 0] - short.images[:, 1]).square().mean().sqrt())


def test_guidance_that_blows_up_is_said(images):
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    wild = us.Model.from_callable(
        lambda x, t, condition: x * condition[:, None, None, None], schedule=schedule, shape=(1, 4, 4), classes=3
    )
    with pytest.raises(us.DivergenceError, match="try a guidance below 1e\\+60"):
        edit(wild, images, to=1, source=0, guidance=1e60, steps=STEPS)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"strength": 1.5}, "expected a strength in 0..1"),
        ({"strength": 0.1}, "the start is at level 2"),
        ({"mask": torch.ones(5, 5)}, r"expected a mask of shape \(4, 4\) or \(3, 4, 4\)"),
        ({"mask": torch.ones(2, 4, 4)}, r"given \(2, 4, 4\)"),
        ({"mask": torch.ones(4, 4), "method": METHODS["edict"]()}, "carries more than its state"),
        ({"to": 7}, "outside this model's classes"),
        ({"method": METHODS["exact"](keep_eps=True)}, "keep_eps=False"),
        ({"mask": "nowhere.png"}, "cannot read the mask nowhere.png: no such file"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model, images, more, says):
    with pytest.raises(us.UnsampleError, match=says) as error:
        edit(model, images, **{"to": 1, "steps": STEPS, "start": TWO, **more})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "more", "says"),
    [
        ({}, {"strength": 0.5}, "kept no state at level 5"),
        ({}, {"mask": torch.ones(4, 4)}, "none was kept"),
        ({"keep": us.Keep("states")}, {"mask": "auto"}, "level 0, which the trajectory did not keep"),
        ({"method": METHODS["edict"](), "keep": us.Keep("states")}, {"strength": 0.5}, "belongs to the whole way"),
        ({"steps": 5}, {}, "given one up to 5: give steps"),
        ({}, {"method": EditFriendly()}, "given one without corrections"),
    ],
)
def test_a_trajectory_that_lacks_something_is_refused(model, images, made, more, says):
    there = us.invert(model, images, **{"steps": STEPS, "start": TWO, **made})
    method = {"method": made["method"]} if "method" in made else {}
    with pytest.raises(us.ArgumentError, match=says) as error:
        edit(model, there, **{"to": 1, "steps": STEPS, **method, **more})
    assert "\n" not in str(error.value)


def test_variations_need_noise_and_seeds(model, images):
    with pytest.raises(us.ArgumentError, match="forward start, given none"):
        variations(model, images, start=us.FromImage(), steps=STEPS)
    with pytest.raises(us.ArgumentError, match="at least one seed"):
        variations(model, images, seeds=0, steps=STEPS)
