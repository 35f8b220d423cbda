"""A trajectory knows how it is sampled back: grid, sampler, what was stored. What does not go together is refused."""

from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.core.stored import Stored
from unsample.methods.registry import METHODS, spelled
from unsample.uses.masks import difference_mask

STEPS = 4


def off(one, other):
    return float((one - other).abs().mean())


@pytest.mark.parametrize("name", ["look-ahead", "edict", "bdia", "direct", "exact:keep_eps=True", "edit-friendly", "ledits++"])
@pytest.mark.parametrize("read", [False, True], ids=["as it is", "from a file"])
def test_a_trajectory_is_sampled_back_on_its_own_grid_by_its_method(model, images, name, read, tmp_path):
    """Reference: everything given by hand, which the latents alone are sampled without."""
    method, grid = us.parse_method(name), model.grid(STEPS, "karras")
    there = us.invert(model, images, method=method, grid=grid)
    if read:
        there.save(tmp_path / "there.safetensors")
        there = us.Trajectory.load(tmp_path / "there.safetensors")
    wanted = us.sample(model, there.latent, grid=grid, method=method.sampler, stored=there.stored)
    found = us.sample(model, there)
    assert torch.equal(found.images, wanted.images)
    assert found.nfe == wanted.nfe
    assert not torch.equal(us.sample(model, there.latent).images, found.images)
    assert torch.equal(us.reconstruct(model, images, method=method, grid=grid).images, wanted.images)


def test_a_trajectory_that_stopped_is_sampled_from_there(model, images):
    there = us.invert(model, images, steps=STEPS, until=2)
    assert torch.equal(us.sample(model, there).images, us.sample(model, there.latent, steps=STEPS, index=2).images)


def test_another_sampler_does_without_what_the_method_stored(model, images):
    there = us.invert(model, images, steps=STEPS, method=METHODS["edict"]())
    alone = us.sample(model, there.latent, steps=STEPS)
    assert torch.equal(us.sample(model, there, method=us.DDIM()).images, alone.images)


@pytest.mark.parametrize("name", ["edict", "bdia", "direct", "exact", "edit-friendly"])
def test_what_is_stored_is_refused_on_another_grid(model, images, name):
    """It passed silently: EDICT up in 4 steps and back in the default of 50 with what it stored."""
    there = us.invert(model, images, steps=STEPS, method=METHODS[name]())
    with pytest.raises(us.ArgumentError, match=r"its grid of 4 moves, given one of 50: .* with steps=4"):
        us.sample(model, there.latent, method=there.sampler, stored=there.stored)
    with pytest.raises(us.ArgumentError, match="grid of 4 moves, given one of 5"):
        us.descend(model.denoiser(), there.latent, model.grid(5), there.sampler, there.stored)
    taken = replace(there.take(torch.tensor([1])).stored)
    assert taken.steps == Stored.cat([taken, taken]).steps == STEPS


@pytest.mark.parametrize("how", ["sample", "edit", "interpolate"])
def test_a_trajectory_is_refused_on_another_grid(model, images, how):
    there = us.invert(model, images, steps=STEPS)
    uses = {
        "sample": lambda **other: us.sample(model, there, **other),
        "edit": lambda **other: us.edit(model, there, to=1, **other),
        "interpolate": lambda **other: us.interpolate(model, there, **other),
    }
    own = uses[how]().images
    assert torch.equal(uses[how](steps=STEPS).images, own)
    assert torch.equal(uses[how](grid=model.grid(STEPS)).images, own)
    for other in ({"steps": 50}, {"grid": model.grid(STEPS, "karras")}):
        with pytest.raises(us.ArgumentError, match=r"its own grid of 4 moves, given (steps=50|a grid of 4)"):
            uses[how](**other)


def test_a_trajectory_of_another_schedule_is_refused(model, images, toy):
    there = us.invert(model, images, steps=STEPS)
    other = replace(model, schedule=us.Schedule.from_betas(us.Schedule.scaled_linear_betas()))
    with pytest.raises(us.ArgumentError, match="model with another schedule than 'mixture'"):
        us.sample(other, there)
    assert torch.isfinite(us.sample(other, there.latent, steps=STEPS).images).all()


def test_a_grid_of_another_schedule_is_refused(model, images):
    """Levels of another table give the network states that are not as noisy as it is told."""
    cosine = us.Grid.of(us.Schedule.from_betas(us.Schedule.cosine_betas()), STEPS)
    uses = (
        lambda grid: us.invert(model, images, grid=grid),
        lambda grid: us.sample(model, images, grid=grid),
        lambda grid: us.reconstruct(model, images, grid=grid),
        lambda grid: us.edit(model, images, to=1, grid=grid),
        lambda grid: us.variations(model, images, grid=grid),
        lambda grid: us.interpolate(model, images, grid=grid),
        lambda grid: difference_mask(model, images, to=1, grid=grid),
    )
    for use in uses:
        for grid in (cosine, us.Grid.of(us.FlowSchedule(), STEPS)):
            with pytest.raises(us.ArgumentError, match="levels are those of another schedule than model 'mixture'"):
                use(grid)
    us.invert(model, images, grid=us.Grid(cosine.levels))  # made by hand: whoever does, knows


def test_grids_of_flow_models_differ_in_the_trained_range_alone(images):
    from unsample.models.analytic import gaussian

    model = gaussian(us.FlowSchedule(shift=3.0), [0.5] * 16, shape=(1, 4, 4))
    us.invert(model, images, grid=us.Grid.from_sigmas(us.FlowSchedule(), [0.3, 1.0]))
    with pytest.raises(us.ArgumentError, match="another schedule"):
        us.invert(model, images, grid=us.Grid.of(us.FlowSchedule(trained=500), STEPS))


def test_a_file_that_does_not_name_its_method_needs_it(model, images):
    """As those of earlier versions; a method of one's own has no name either."""
    there = replace(us.invert(model, images, steps=STEPS, method=METHODS["edict"]()), sampler=None, method="", grid=None)
    with pytest.raises(us.ArgumentError, match="not which method: give method"):
        us.sample(model, there, steps=STEPS)
    found = us.sample(model, there, steps=STEPS, method=METHODS["edict"]())
    assert off(found.images, images) < 0.2


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_spelled_as_it_is_typed(name):
    assert spelled(METHODS[name]()) == name
    assert us.parse_method(spelled(METHODS[name]())) == METHODS[name]()


def test_methods_with_options_are_spelled_and_others_have_no_name():
    for text in ("ddim:eval_at=source", "exact:method=damped/iterations=3:keep_eps=True", "edict:p=0.97", "ab:order=3"):
        assert spelled(us.parse_method(text)) == text

    class Own(us.DDIM):
        pass

    assert spelled(Own()) == ""


def test_latents_far_beyond_noise_are_warned_of_in_one_line(model, images):
    """EDICT at 250 steps left latents of 1e5 without a word; an image that stays on course is not counted."""
    says = r"3 of 3 latents are up to \d+e\+\d+ times as large as noise: EDICT\(p=0.93\) diverged"
    with pytest.warns(us.errors.DivergenceWarning, match=says) as seen:
        there = us.invert(model, images, steps=250, method=METHODS["edict"]())
    assert float(there.latent.std()) > 1e4
    assert [len(str(each.message).splitlines()) for each in seen] == [1]
    us.invert(model, images, steps=50, method=METHODS["edict"]())
