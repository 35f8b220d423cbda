"""Editing: against reconstruction, a loop with the formulas, and the image itself; masks, strength, cost, refusals."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.denoiser import Guided
from unsample.core.rng import ItemNoise
from unsample.methods.drawn_paths import EditFriendly
from unsample.methods.registry import METHODS
from unsample.pictures.read import read_mask
from unsample.uses.masks import difference_mask

from ..models import tiny
from .conftest import close, far, photograph, picture

STEPS = 10
TWO = us.ForwardNoise(steps=2)
PROMPTED = {"steps": 4, "start": us.ForwardNoise(steps=1)}


@pytest.fixture(scope="module")
def left():
    return torch.arange(4).expand(4, 4) < 2


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("name", METHODS)
def test_under_the_sources_own_condition_an_edit_is_the_reconstruction(model, images, name, guidance):
    """Reference: `reconstruct`, bit by bit without guidance; with it, guidance away from the source itself cancels."""
    known = {"method": METHODS[name](), "steps": STEPS, "start": TWO}
    back = us.reconstruct(model, images, condition=1, **known)
    found = us.edit(model, images, to=1, source=1, guidance=guidance, **known)
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
    found = us.edit(model, images, to=[1, 2, 0], source=[0, 1, 2], grid=grid)
    torch.testing.assert_close(found.images, x)
    assert float((found.images - images).abs().mean()) > 0.1, "an edit that changes nothing proves nothing"


def test_the_unconditional_can_be_moved_away_from(model, images):
    found = us.edit(model, images, to=2, source=0, negative=None, steps=STEPS)
    there = us.invert(model, images, condition=0, steps=STEPS)
    assert torch.equal(found.images, us.sample(model, there.latent, condition=2, guidance=3.0, steps=STEPS).images)


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.74])
def test_strength_is_the_share_of_the_moves(model, images, strength):
    """Reference: an inversion that stops there, sampled from there."""
    level = round(strength * STEPS)
    there = us.invert(model, images, until=level, condition=0, steps=STEPS, start=TWO)
    back = us.sample(model, there.latent, index=level, condition=1, steps=STEPS)
    found = us.edit(model, images, to=1, source=0, guidance=1, strength=strength, steps=STEPS, start=TWO)
    assert torch.equal(found.images, back.images)
    assert (found.nfe_up, found.nfe_down) == (there.nfe, level)


def test_no_strength_is_the_image(model, images):
    found = us.edit(model, images, to=1, strength=0, steps=STEPS)
    assert torch.equal(found.images, images)
    assert found.nfe == 0


def test_a_share_of_forward_noise_is_one_of_the_whole_grid(model, images):
    """Of a grid made by hand, which an edit cuts off where it turns; 22 % of 50 moves lead to timestep 200, too."""
    for grid, share in ((us.Grid(model.grid(STEPS).levels), 0.3), (model.grid(STEPS), 0.22)):
        some = {"to": 1, "strength": 0.5, "grid": grid}
        found = us.edit(model, images, start=us.ForwardNoise(fraction=share), **some)
        assert torch.equal(found.images, us.edit(model, images, start=us.ForwardNoise(steps=3), **some).images)


def test_an_edit_starts_and_varies_between_two_levels(model, images):
    """Reference: moves by hand, from timestep 80 of 10 moves up to level 5 and down, and of variations down alone."""
    grid, start = model.grid(STEPS), us.ForwardNoise(fraction=0.1)
    x = start.place(images, grid, us.ItemNoise(0, range(3)))
    for moved in us.walk(model.denoiser([0] * 3), x, grid.up(grid.at(80), 5), us.DDIM()):
        up = moved.x
    wanted = us.sample(model, up, index=5, condition=1, grid=grid).images
    settings = {"start": start, "method": us.DDIM(), "grid": grid}
    found = us.edit(model, images, to=1, source=0, guidance=1, strength=0.5, **settings)
    assert torch.equal(found.images, wanted)
    assert (found.nfe_up, found.nfe_down) == (4, 5)
    again = us.edit(model, found.trajectory, to=1, source=0, guidance=1, strength=0.5)
    assert torch.equal(again.images, wanted)
    with pytest.raises(us.ArgumentError, match="level 1 of 10, timestep 0, and the start is at timestep 80"):
        us.edit(model, images, to=1, strength=0.1, **settings)
    for moved in us.walk(model.denoiser([1] * 3), x, [us.Step(grid.at(80), grid[1]), us.Step(grid[1], grid[0])], us.DDIM()):
        down = moved.x
    varied = us.variations(model, images, seeds=1, condition=1, start=start, grid=grid)
    assert torch.equal(varied.images[:, 0], down)
    assert varied.nfe == 2


@pytest.mark.parametrize("name", ["ddim", "direct", "exact", "edit-friendly"])
def test_pivots_reach_below_a_start_between_two_levels(model, images, left, name):
    found = us.edit(model, images, to=1, mask=left, steps=STEPS, method=METHODS[name](), start=us.ForwardNoise(fraction=0.3))
    assert set(found.trajectory.states) == set(range(STEPS + 1))
    assert torch.equal(found.images[..., 2:], images[..., 2:])
    assert float((found.images - images)[..., :2].abs().mean()) > 0.05


def test_one_inversion_serves_many_edits(model, images):
    """Masked and stopped short, too; without evaluations on the way up."""
    settings = {"to": 1, "source": 0, "steps": STEPS}
    for start in (us.FromImage(), TWO):
        there = us.invert(model, images, steps=STEPS, condition=0, start=start, keep=us.Keep("states"))
        for more in ({}, {"strength": 0.5}, {"guidance": 1.0}):
            found = us.edit(model, there, **settings, **more)
            assert torch.equal(found.images, us.edit(model, images, start=start, **settings, **more).images)
            assert (found.nfe_up, found.nfe) == (0, found.nfe_down)


@pytest.mark.parametrize("name", ["ddim", "look-ahead", "exact", "direct", "edit-friendly", "ledits++", "rf-inversion"])
def test_outside_of_a_mask_the_image_stays_exactly_as_it_is(model, images, left, name):
    settings = {"source": 0, "steps": STEPS, "method": METHODS[name](), "start": TWO}
    found = us.edit(model, images, to=1, mask=left, **settings)
    assert torch.equal(found.images[..., 2:], images[..., 2:])
    assert float((found.images - images)[..., :2].abs().mean()) > 0.05
    with pytest.warns(UserWarning, match="lets nothing change"):
        nothing = us.edit(model, images, to=1, mask=torch.zeros(4, 4), **settings)
    assert torch.equal(nothing.images, images)
    everything = us.edit(model, images, to=1, mask=torch.ones(3, 4, 4), **settings)
    assert torch.equal(everything.images, us.edit(model, images, to=1, **settings).images)


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
    found = us.edit(model, images, to=1, source=0, grid=grid, start=start, mask=left)
    torch.testing.assert_close(found.images, x)
    again = us.edit(model, found.trajectory, to=1, source=0, grid=grid, mask=left)
    assert torch.equal(again.images, found.images)
    x = there.latent
    for step in grid.down():
        x = us.transfer(x, Guided(towards, away, 3.0)(x, step.src), step)
        x = torch.where(left, x, there.states.get(step.dst.index, x))  # no clean state: free below the start
    torch.testing.assert_close(us.edit(model, there, to=1, source=0, grid=grid, mask=left).images, x)


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
    found = us.edit(model, images, to=1, source=0, steps=STEPS, mask="auto")
    assert torch.equal(found.mask, cells)
    assert torch.equal(found.images[..., 2:], images[..., 2:])
    assert (found.nfe_mask, found.nfe) == (20, found.nfe_up + found.nfe_down + 20)


def test_a_mask_from_a_file(model, images, left, tmp_path):
    grey = (left.numpy() * 255).astype(np.uint8).repeat(5, 0).repeat(5, 1)
    Image.fromarray(grey).save(tmp_path / "mask.png")
    assert torch.equal(read_mask(tmp_path / "mask.png", (4, 4)), left)
    found = us.edit(model, images, to=1, steps=STEPS, mask=tmp_path / "mask.png")
    assert torch.equal(found.images, us.edit(model, images, to=1, steps=STEPS, mask=left).images)


def test_guidance_that_blows_up_is_said(images):
    schedule = us.Schedule.from_betas(us.Schedule.linear_betas())
    wild = us.Model.from_callable(
        lambda x, t, condition: x * condition[:, None, None, None], schedule=schedule, shape=(1, 4, 4), classes=3
    )
    with pytest.raises(us.DivergenceError, match="try a guidance below 1e\\+60"):
        us.edit(wild, images, to=1, source=0, guidance=1e60, steps=STEPS)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"strength": 1.5}, "expected a strength in 0..1"),
        ({"strength": 0.1}, "the start is at timestep 100"),
        ({"mask": torch.ones(5, 5)}, r"expected a mask of shape \(4, 4\) or \(3, 4, 4\)"),
        ({"mask": torch.ones(2, 4, 4)}, r"given \(2, 4, 4\)"),
        ({"mask": torch.ones(4, 4), "method": METHODS["edict"]()}, "carries more than its state"),
        ({"to": 7}, "outside this model's classes"),
        ({"method": METHODS["exact"](keep_eps=True)}, "keep_eps=False"),
        ({"mask": "nowhere.png"}, "mask: no such picture: nowhere.png"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(model, images, more, says):
    with pytest.raises(us.UnsampleError, match=says) as error:
        us.edit(model, images, **{"to": 1, "steps": STEPS, "start": TWO, **more})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("made", "more", "says"),
    [
        ({}, {"strength": 0.5}, "kept no state at level 5"),
        ({}, {"mask": torch.ones(4, 4)}, "none was kept"),
        ({"keep": us.Keep("states")}, {"mask": "auto"}, "level 0, which the trajectory did not keep"),
        ({"method": METHODS["edict"](), "keep": us.Keep("states")}, {"strength": 0.5}, "belongs to the whole way"),
        ({"steps": 5}, {}, "its own grid of 5 moves, given steps=10: leave that out"),
        ({}, {"method": EditFriendly()}, "given one without corrections"),
    ],
)
def test_a_trajectory_that_lacks_something_is_refused(model, images, made, more, says):
    there = us.invert(model, images, **{"steps": STEPS, "start": TWO, **made})
    method = {"method": made["method"]} if "method" in made else {}
    with pytest.raises(us.ArgumentError, match=says) as error:
        us.edit(model, there, **{"to": 1, "steps": STEPS, **method, **more})
    assert "\n" not in str(error.value)


# Latent models that take prompts


def test_an_edit_to_the_source_is_the_reconstruction(family):
    """Reference: `us.reconstruct` of the pipeline and picture; in FLUX dev no second branch cancels guidance."""
    pipe, (source, other), size = family
    guidance = 1.0 if us.load(pipe).distilled else 3.0
    back = us.reconstruct(pipe, picture(), condition=source, **PROMPTED)
    found = us.edit(pipe, picture(), source=source, to=source, guidance=guidance, **PROMPTED)
    assert found.images.shape == (1, 3, *size)
    close(found.images, back.images)
    assert found.nfe_up == back.trajectory.nfe
    far(us.edit(pipe, picture(), source=source, to=other, **PROMPTED).images, back.images)


def test_pictures_are_edited_as_their_tensor_by_the_model_of_that_size(pipe, tmp_path):
    model = us.load(pipe, size=(16, 32))
    images = us.load_images([photograph(tmp_path / "a.png")], size=(16, 32))
    settings = {"source": "a cat", "to": "two dogs", "strength": 0.5, "mask": "auto", **PROMPTED}
    wanted = us.edit(model, images, **settings)
    for opened, given in ((pipe, picture()), (pipe, tmp_path / "a.png"), (pipe, images), (model, picture())):
        found = us.edit(opened, given, **settings)
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.mask, wanted.mask)
        assert (found.nfe_up, found.nfe_down, found.nfe_mask) == (wanted.nfe_up, wanted.nfe_down, wanted.nfe_mask)


def test_a_trajectory_is_edited_again_and_again(family):
    """Reference: edits of the picture itself."""
    pipe, (source, other), _ = family
    there = us.invert(pipe, picture(), condition=source, keep=us.Keep("states"), **PROMPTED)
    for more in ({}, {"strength": 0.5}):
        found = us.edit(pipe, there, source=source, to=other, steps=4, **more)
        assert found.nfe_up == 0
        assert torch.equal(found.images, us.edit(pipe, picture(), source=source, to=other, **more, **PROMPTED).images)


def test_a_mask_picture_holds_what_it_covers(pipe, tmp_path):
    """Reference: the picture through the codec, left, where the mask is black."""
    white = np.zeros((24, 40), np.uint8)
    white[:, 20:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    found = us.edit(pipe, picture(), source="a cat", to="a dog", mask=tmp_path / "mask.png", **PROMPTED)
    codec = us.edit(pipe, picture(), to="a dog", strength=0, **PROMPTED)
    assert found.mask.float().mean() == 0.5
    held = codec.trajectory.latent[..., :8]
    assert torch.equal(found.trajectory.states[0][..., :8], held)
    assert not bool(found.mask[..., :8].any())


def test_a_latent_text_model(pipe):
    """A mask of pixels holds the latent's cells, and strength 0 is what the autoencoder gives."""
    latent = us.load(pipe)
    height, width = latent.image_size
    pixels = torch.rand((2, 3, height, width), generator=torch.Generator().manual_seed(0)) * 2 - 1
    settings = {"source": "a cat", "steps": 5, "start": us.ForwardNoise(steps=1)}
    codec = latent.codec.decode(latent.codec.encode(pixels))
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    found = us.edit(latent, pixels, to="a dog", mask=mask, **settings)
    assert found.mask.shape == (2, *latent.shape[1:])
    assert found.mask.float().mean() == 0.5
    assert torch.equal(us.edit(latent, pixels, to="a dog", strength=0, **settings).images, codec)
    with pytest.warns(UserWarning, match="lets nothing change"):
        assert torch.equal(us.edit(latent, pixels, to="a dog", mask=torch.zeros_like(mask), **settings).images, codec)
    back = us.reconstruct(latent, pixels, condition="a cat", steps=5, start=us.ForwardNoise(steps=1)).images
    assert torch.equal(us.edit(latent, pixels, to="a cat", guidance=1, **settings).images, back)
    assert not torch.equal(us.edit(latent, pixels, to=tiny.PROMPTS, **settings).images, back)


@pytest.mark.parametrize("more", [{}, {"mask": "auto"}, {"strength": 0.5}, {"strength": 0}, {"mask": torch.ones(32, 32)}])
@pytest.mark.parametrize("method", ["auto", "edit-friendly"])
def test_each_image_is_encoded_once(counted, more, method):
    model, calls = counted
    images = torch.zeros(3, 3, *model.image_size)
    settings = {"source": "a cat", "to": "a dog", "method": us.parse_method(method), **PROMPTED}
    us.edit(model, images, batch_size=2, **settings, **more)
    assert calls == [2, 1]


def test_a_run_directory_is_edited_by_what_reads_it(model, images, tmp_path):
    (tmp_path / "manifest.json").touch()
    for given in (tmp_path, str(tmp_path)):
        for more in ((), (images,)):
            with pytest.raises(
                us.ArgumentError, match=r"edit those with unsample\.read_run\('.*'\)\.edit\(to=\.\.\.\)"
            ) as caught:
                us.edit(given, *more, to=1)
            assert "\n" not in str(caught.value)
    with pytest.raises(us.ArgumentError, match=r"expected images to edit: .*, given a model alone"):
        us.edit(model, to=1)


def test_the_default_of_negative_says_what_it_is():
    """Guidance moves away from the source, told apart from a condition of that name."""
    assert "negative: 'Conditions | Mapping[int, Tensor] | FromSource' = SOURCE" in str(inspect.signature(us.edit))
