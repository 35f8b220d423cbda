"""The Python door: what belongs together is matched, what does nothing is warned of, at the caller's line."""

import inspect
import re
import warnings
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unsample as us
from unsample.core.stored import Stored
from unsample.methods.stochastic import Ancestral
from unsample.pictures.read import demo_photos

STEPS = 3


@pytest.fixture(scope="module")
def known(toy):
    """A model, two images, and an inversion of them by each kind of method."""
    model, images = toy(), torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
    names = ("ddim", "direct", "exact", "edict", "bdia", "edit-friendly")
    return model, images, {name: us.invert(model, images, steps=STEPS, method=name, keep="states") for name in names}


@pytest.mark.parametrize(
    "cut", [lambda x: x[1:], lambda x: torch.cat([x, x]), lambda x: x[..., :2]], ids=["fewer", "more", "size"]
)
def test_latents_are_those_that_the_rest_belongs_to(known, cut, untyped):
    model, _, there = known
    for name, trajectory in there.items():
        with pytest.raises(us.ArgumentError, match=r"trajectory\.take\(rows\) leaves out"):
            replace(trajectory, latent=cut(trajectory.latent))
        if trajectory.stored.tensors() and cut(trajectory.latent).shape[1:] == model.shape:
            with pytest.raises(us.ArgumentError, match="belongs to other latents"):
                us.sample(model, cut(trajectory.latent), steps=STEPS, stored=trajectory.stored, method=trajectory.sampler)
        rows = torch.tensor([1])
        some = us.sample(model, trajectory.take(rows)).images
        torch.testing.assert_close(some, us.sample(model, trajectory).images[rows], rtol=0, atol=1e-5)
        assert name == trajectory.method


def test_what_is_said_of_each_item_is_said_of_all(known):
    trajectory = known[2]["ddim"]
    with pytest.raises(us.ArgumentError, match="expected costs of 2 items, given 3"):
        replace(trajectory, costs=(1, 2, 3))


def test_an_edit_takes_the_trajectorys_own_sampler(known):
    """Reference: the same edit of the images, which knows its method."""
    model, images, there = known
    for name in ("edict", "exact"):
        ours = us.edit(model, there[name], to=1)
        theirs = us.edit(model, images, to=1, method=name, steps=STEPS)
        torch.testing.assert_close(ours.images, theirs.images, rtol=0, atol=1e-5)
    with pytest.raises(us.ArgumentError, match="is sampled back by EDICT"):
        us.edit(model, there["edict"], to=1, method="ddim")


@pytest.mark.parametrize(
    "mask",
    [
        torch.full((4, 4), float("nan")),
        torch.full((4, 4), float("inf")),
        torch.full((4, 4), 2.0),
        torch.full((4, 4), -1),
        torch.full((4, 4), 255, dtype=torch.uint8),
        torch.ones(4, 4, device="meta"),
        np.full((4, 4), np.nan),
    ],
)
def test_masks_of_other_values_are_refused(known, mask, untyped):
    model, images, there = known
    attention = {"editor": "masactrl", "source": 0, "to": [1], "mask": mask, "steps": STEPS}
    for call in (
        lambda: us.edit(model, images, to=1, mask=mask, steps=STEPS),
        lambda: us.edit_attention(model, there["ddim"].latent[:1], source_latents={}, **attention),
    ):
        with pytest.raises(us.ArgumentError, match=r"expected mask (as a|of True and False)"):
            call()


def test_a_mask_that_lets_nothing_change_is_warned_of(known):
    model, images, _ = known
    masks = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    with pytest.warns(UserWarning, match="nothing change in 1 of 2 pictures"):
        us.edit(model, images, to=1, mask=masks, steps=STEPS)
    us.edit(model, images, to=1, mask=torch.ones(4, 4), steps=STEPS)


def idle(known):
    """Name of the arguments -> a call in which they do nothing."""
    model, images, there = known
    latent, grid, inverted = there["ddim"].latent, model.grid(STEPS), there["ddim"]
    stored = there["edict"].stored
    how = {"steps": STEPS}
    return {
        "start": lambda: us.edit(model, inverted, to=1, start=2),
        "seed": lambda: us.edit(model, inverted, to=1, seed=3),
        "negative": lambda: us.sample(model, latent, negative=1, condition=0, **how),
        "negative has": lambda: us.edit(model, images, to=1, negative=2, guidance=1, **how),
        "stored": lambda: us.sample(model, latent, stored=stored, **how),
        "steps": lambda: us.invert(model, images, steps=5, grid=grid),
        "method": lambda: us.variations(model, images, seeds=1, method="heun", **how),
        "inversion and start and seed": lambda: us.interpolate(
            model, latent, frames=3, inversion="ddim", start=2, seed=1, **how
        ),
        "dtype": lambda: us.load(model, dtype="float16"),
        "size": lambda: us.load(model, size=(8, 8)),
    }  # fmt: skip


IDLE = ("start", "seed", "negative", "negative has", "stored", "steps", "method",
        "inversion and start and seed", "dtype", "size")  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_arguments_that_do_nothing_are_warned_of_once_at_the_callers_line(known, name):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        idle(known)[name]()
    names = name.removesuffix(" has")
    assert [str(one.message) for one in said if re.search(rf"\(\): {names} ha(s|ve) no effect", str(one.message))]
    assert len(said) == 1
    assert said[0].filename == __file__


def test_arguments_that_do_something_are_not_warned_of(known):
    """Warnings are errors in these tests."""
    model, images, there = known
    us.sample(model, there["ddim"].latent, seed=3, method=Ancestral(), steps=STEPS)
    us.reconstruct(model, images, seed=3, steps=STEPS)
    us.invert(model, images, grid=model.grid(STEPS), seed=3)
    us.edit(model, there["ddim"], to=1, source=0, guidance=2.0, negative=2, start="4%", steps=STEPS)
    us.load(model, dtype="float32")


def test_warnings_point_at_the_callers_line(known):
    model, images, _ = known
    with pytest.warns(UserWarning, match="nothing below 0") as said:
        us.reconstruct(model, images / 2 + 0.5, steps=STEPS)
    assert {one.filename for one in said} == {__file__}  # of one line, of which Python shows one
    with pytest.warns(DeprecationWarning, match="keys") as said:
        us.interpolate(model, keys=images, frames=3, steps=STEPS)
    assert [one.filename for one in said] == [__file__]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: us.ForwardNoise(fraction="4%"), "fraction of ForwardNoise as a finite number, given '4%'"),
        (lambda: us.ForwardNoise(fraction=[1]), "fraction of ForwardNoise"),
        (lambda: us.ForwardNoise(fraction=True), "fraction of ForwardNoise"),
        (lambda: us.ForwardNoise(sigma="x"), "sigma of ForwardNoise"),
        (lambda: us.ForwardNoise(steps=True), "steps of ForwardNoise"),
        (lambda: us.ForwardNoise(steps=1, at_next_level=2), "at_next_level of ForwardNoise"),
        (lambda: us.PlainNoise(steps="x"), "steps of PlainNoise"),
        (lambda: us.AutoStart(at_next_level=1), "at_next_level of AutoStart"),
        (lambda: us.Keep("states", every="x"), "every of Keep"),
        (lambda: us.Keep("states", device="nowhere"), "device that kept tensors"),
        (lambda: us.MasaCtrl(from_step="x"), "from_step of MasaCtrl"),
        (lambda: us.StyleAligned(share=None), "share of StyleAligned"),
        (lambda: us.PromptToPrompt(words="red"), "words of PromptToPrompt as a tuple"),
        (lambda: us.PromptToPrompt(words=("red",), weights=("x",)), "weights of PromptToPrompt"),
        (lambda: us.FlowSchedule(trained="x"), "trained of FlowSchedule"),
        (lambda: us.FlowSchedule(shift=float("nan")), "shift of FlowSchedule"),
        (lambda: us.Schedule(("a",)), "alpha_bar must be"),
        (lambda: us.Schedule.from_betas(None), "betas must be"),
        (lambda: us.Schedule.linear_betas(count=0), "count as a whole number"),
        (lambda: us.Level(0, 0, "x", 0.0), "alpha of Level"),
        (lambda: us.Grid(None), "levels of a grid"),
        (lambda: us.Grid.of("x", 3), "schedule as a Schedule"),
        (lambda: us.Grid.from_timesteps(us.FlowSchedule(), 3), "timesteps as a list"),
        (lambda: us.Grid.from_sigmas(us.FlowSchedule(), ["x"]), "each of sigmas as a finite number"),
        (lambda: us.Grid.of(us.FlowSchedule(), 3).up("x"), "level as a whole number"),
        (lambda: us.load_images(demo_photos()[:1], size=float("nan")), "expected size as a whole number"),
        (lambda: us.load_images(demo_photos()[:1], size=(32, "x")), "expected size as a whole number"),
        (lambda: us.load_images(3, size=32), "expected paths as files"),
        (lambda: us.load(size="x"), r"expected size as \(height, width\)"),
        (lambda: us.corners(*torch.rand(4, 2), rows="x", columns=2), "rows as a whole number"),
    ],
)
def test_values_of_another_kind_are_refused_where_they_are_given(make, said, untyped):
    with pytest.raises(us.ArgumentError, match=said):
        make()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: us.invert("x", "y", label=1), r"invert\(\) has no label: give condition$"),
        (lambda: us.edit("x", "y", label=1), "give to$"),
        (lambda: us.edit("x", "y", prompt="a cat"), "give to$"),
        (lambda: us.sample("x", "y", eta=1.0), r"give method=Ancestral\(eta\)"),
        (lambda: us.reconstruct("x", "y", eta=1.0), r"give sampler=Ancestral\(eta\)"),
        (lambda: us.load(torch_dtype=torch.float16), r"load\(\) has no torch_dtype: give dtype$"),
        (lambda: us.load(device_map="auto"), "give device$"),
        (lambda: us.load(use_safetensors=True), "leave it out$"),
        (lambda: us.variations("x", "y", num_images_per_prompt=3), "give seeds$"),
    ],
)
def test_names_of_others_are_answered_by_ours(call, said):
    with pytest.raises(us.ArgumentError, match=said):
        call()


def test_unknown_names_are_answered_by_the_nearest():
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'guidence'; did you mean 'guidance'\?"):
        us.invert("x", "y", guidence=2)


def test_what_holds_tensors_is_printed_by_shapes(known):
    model, images, there = known
    shown = repr(there["exact"])
    assert "latent=Tensor[2, 1, 4, 4]" in shown
    assert "Grid of 3 moves" in shown
    assert "method='exact'" in shown
    found = [us.reconstruct(model, images, steps=STEPS), us.edit(model, images, to=1, steps=STEPS), Stored((images,))]
    found += [us.variations(model, images, seeds=1, steps=STEPS), us.sample(model, there["ddim"]), there["ddim"]]
    assert [one for one in map(repr, found) if len(one) > 600 or "tensor(" in one] == []


def test_every_public_result_with_tensors_is_printed_by_shapes():
    kinds = [kind for name in us.__all__ if is_dataclass(kind := getattr(us, name)) and inspect.isclass(kind)]
    long = [kind for kind in kinds if any(field.repr and "Tensor" in str(field.type) for field in fields(kind))]
    assert len(long) > 5
    assert [kind.__name__ for kind in long if "brief" not in kind.__repr__.__qualname__] == []


def test_no_warning_counts_frames_by_hand():
    """`warn` finds the caller's line; a number of frames is right for one way to a warning alone."""
    sources = Path(us.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if "warnings.warn(" in path.read_text()] == ["_arguments.py"]
