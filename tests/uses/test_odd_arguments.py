"""The Python door: whatever is given for whatever parameter, a use works or says in one line what is wrong."""

import inspect
import warnings
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.methods.registry import METHODS
from unsample.uses.masks import difference_mask

ODD = {
    "None": None,
    "True": True,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "minus one": -1,
    "zero": 0,
    "half": 0.5,
    "a million million": 10**12,
    "no text": "",
    "a text": "x",
    "a name with an option": "ddim:x=1",
    "bytes": b"x",
    "an object": object(),
    "a class": us.DDIM,
    "a function": len,
    "no list": [],
    "a list of None": [None],
    "a list of lists": [[1], [2]],
    "a tuple": (0, 0),
    "a mapping": {},
    "a mapping of texts": {"a": 1},
    "a set": {1},
    "an imaginary number": 1j,
    "an int64 of numpy": np.int64(2),
    "a float32 of numpy": np.float32(2),
    "an array": np.zeros((2, 1, 4, 4), np.float32),
    "an array of bytes": np.zeros((4, 4, 3), np.uint8),
    "an array of objects": np.array([object()]),
    "a number as a tensor": torch.tensor(1.0),
    "no values": torch.zeros(0, 1, 4, 4),
    "whole numbers": torch.zeros(2, 1, 4, 4, dtype=torch.int64),
    "complex numbers": torch.zeros(2, 1, 4, 4, dtype=torch.complex64),
    "truths": torch.zeros(2, 1, 4, 4, dtype=torch.bool),
    "half precision": torch.zeros(2, 1, 4, 4, dtype=torch.float16),
    "a NaN inside": torch.full((2, 1, 4, 4), float("nan")),
    "another shape": torch.zeros(2, 1, 5, 4),
    "five dimensions": torch.zeros(2, 1, 1, 4, 4),
    "sparse": torch.zeros(2, 1, 4, 4).to_sparse(),
    "nested": torch.nested.nested_tensor([torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)], layout=torch.jagged),
    "meta": torch.zeros(2, 1, 4, 4, device="meta"),
    "with a graph": torch.zeros(2, 1, 4, 4, requires_grad=True),
    "not contiguous": torch.zeros(2, 1, 4, 4).mT,
    "float64": torch.zeros(2, 1, 4, 4, dtype=torch.float64),
    "a picture": Image.new("RGB", (8, 8)),
    "a path": Path("/nowhere"),
    "a generator of torch": torch.Generator(),
    "a device": torch.device("cpu"),
    "a dtype": torch.float16,
    "a Keep": us.Keep(),
    "a start": us.ForwardNoise(steps=1),
    "a method": us.DDIM(),
    "an enumeration": Enum("Other", "A").A,
}


@pytest.fixture(scope="module")
def known(toy):
    model = toy()
    images = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
    there = us.invert(model, images, steps=3, start=us.FromImage(), keep=us.Keep("states"))
    return {"model": model, "images": images, "latent": there.latent, "there": there}


def uses(known):
    """Name -> the function, and arguments with which it works."""
    model, images, there = known["model"], known["images"], known["there"]
    quick = {"steps": 3}
    return {
        "invert": (us.invert, {"model": model, "images": images, **quick}),
        "sample": (us.sample, {"model": model, "latent": known["latent"], **quick}),
        "reconstruct": (us.reconstruct, {"model": model, "images": images, **quick}),
        "edit": (us.edit, {"model": model, "images": images, "to": 1, "source": 0, **quick}),
        "variations": (
            us.variations,
            {"model": model, "images": images, "seeds": 1, "start": us.ForwardNoise(steps=1), **quick},
        ),
        "interpolate": (us.interpolate, {"model": model, "images": known["latent"], "frames": 3, **quick}),
        "edit_attention": (
            us.edit_attention,
            {"model": model, "images": known["latent"][:1], "editor": us.MasaCtrl(), "source": 0, "to": [1], **quick},
        ),
        "null_text": (
            us.null_text,
            {"model": model, "images": images, "pivots": there, "condition": 0, "iterations": 1, "guidance": 2.0},
        ),
        "draw_noise": (us.draw_noise, {"model": model, "count": 2}),
        "diagnose": (us.diagnose, {"latent": known["latent"]}),
        "compare": (us.compare, {"model": model, "images": images, "methods": "ddim", "starts": "0", "nfe": 2}),
        "difference_mask": (difference_mask, {"model": model, "clean": images, "to": 1, "source": 0, "draws": 1, **quick}),
    }


NAMES = ("invert", "sample", "reconstruct", "edit", "variations", "interpolate", "edit_attention", "null_text", "draw_noise",
         "diagnose", "compare", "difference_mask")  # fmt: skip
WORK = set(NAMES) - {"edit_attention", "null_text"}  # the toy model has neither attention nor embeddings


def outcome(function, arguments):
    """None if it works or refuses as it should, or else what is wrong."""
    try:
        function(**arguments)
    except us.UnsampleError as error:
        return f"several lines: {error}" if "\n" in str(error) else None
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


@pytest.mark.parametrize("name", NAMES)
def test_any_value_of_any_parameter_works_or_is_refused(name, known, untyped):
    function, arguments = uses(known)[name]
    if name in WORK:
        function(**arguments)
    wrong = {}
    for parameter in inspect.signature(function).parameters:
        for title, value in ODD.items():
            with warnings.catch_warnings():
                warnings.simplefilter("error", DeprecationWarning)
                warnings.simplefilter("ignore", UserWarning)  # of arguments that do nothing
                if said := outcome(function, {**arguments, parameter: value}):
                    wrong[f"{parameter}={title}"] = said
    assert not wrong, "\n".join(f"{name}({what}): {said}" for what, said in wrong.items())


REFUSED = {
    "guidance": ["True", "NaN", "infinity", "a text", "None", "an imaginary number"],
    "seed": ["True", "None", "half", "a text", "a generator of torch"],
    "steps": ["True", "half", "zero", "a million million", "a float32 of numpy"],
    "items": ["True", "no text", "a text", "a list of None", "a mapping"],
    "method": ["None", "True", "zero", "a class", "a text", "no list", "a start"],
    "start": ["None", "True", "half", "a class", "a text", "a method", "minus one"],
    "keep": ["True", "a text", "a start", "a mapping"],
    "condition": ["True", "half", "NaN", "a mapping", "no list", "a list of lists", "a picture", "a list of None and True"],
    "batch_size": ["True", "zero", "half", "minus one"],
    "grid": ["zero", "a text", "a mapping"],
    "on_step": ["zero", "a function"],
    "images": ["None", "True", "a number as a tensor", "whole numbers", "complex numbers", "truths", "sparse", "nested",
               "meta", "an array", "a NaN inside", "another shape", "five dimensions", "no values", "no list", "a dtype"],
}  # fmt: skip


@pytest.mark.parametrize("parameter", REFUSED)
def test_what_cannot_be_meant_is_refused(parameter, known, untyped):
    values = {**ODD, "a list of None and True": [None, True]}
    taken = []
    for title in REFUSED[parameter]:
        try:
            us.invert(**{"model": known["model"], "images": known["images"], "steps": 3, parameter: values[title]})
        except (us.ArgumentError, us.ImageError):
            continue
        taken.append(title)
    assert not taken


def latents(known, **given):
    return us.invert(**{"model": known["model"], "images": known["images"], "steps": 10, **given}).latent


SAME = {
    "method": ("heun", METHODS["heun"]()),
    "method with options": ("damped:iterations=3", METHODS["damped"](iterations=3)),
    "method that is stored": ("exact", METHODS["exact"]()),
    "start in moves": (2, us.ForwardNoise(steps=2)),
    "start of numpy": (np.int64(2), us.ForwardNoise(steps=2)),
    "start as a share": ("20%", us.ForwardNoise(fraction=0.2)),
    "condition of numpy": (np.int64(1), 1),
    "condition as an array": (np.array([1, 2]), [1, 2]),
    "condition as a tensor": (torch.tensor([1, 2]), [1, 2]),
    "steps of numpy": (np.int64(10), 10),
    "images with a graph": (torch.zeros(2, 1, 4, 4, requires_grad=True), torch.zeros(2, 1, 4, 4)),
    "images not contiguous": (
        torch.arange(-16.0, 16.0).reshape(2, 1, 4, 4).mT / 16,
        torch.arange(-16.0, 16.0).reshape(2, 1, 4, 4).mT.contiguous() / 16,
    ),
}


@pytest.mark.parametrize("title", SAME)
def test_what_can_be_meant_is_taken(title, known, untyped):
    given, meant = SAME[title]
    parameter = title.split()[0]
    assert torch.equal(latents(known, **{parameter: given}), latents(known, **{parameter: meant}))


def test_names_are_taken_by_every_use(known, untyped):
    """Reference: the same methods as objects."""
    model, images = known["model"], known["images"]
    named = us.reconstruct(model, images, steps=5, method="exact", sampler="ddim", start=1)
    meant = us.reconstruct(
        model, images, steps=5, method=METHODS["exact"](), sampler=us.DDIM(), start=us.ForwardNoise(steps=1)
    )
    assert torch.equal(named.images, meant.images)
    assert len(us.invert(model, images, steps=5, start=0, keep="states").states) == 6
    assert sorted(us.invert(model, images, steps=5, start=0, keep="states:every=5").states) == [0, 5]
    assert not us.invert(model, images, steps=5, keep=None).states
    frames = us.interpolate(model, torch.rand(2, 1, 4, 4), frames=3, steps=3, method="heun")
    assert len(frames.images) == 3
    assert us.edit(model, images, to=1, steps=5, method="ab", start="1").images.shape == images.shape
    assert us.variations(model, images, seeds=[np.int64(3)], steps=5, method="ab", strength=1, start="1").images.shape[1] == 1
    with pytest.raises(us.ArgumentError, match=r"of single moves.*Exact"):
        us.sample(model, images, method="exact")


def test_former_names_are_taken_with_a_warning(known):
    model, latent = known["model"], known["latent"]
    with pytest.warns(DeprecationWarning, match=r"interpolate\(\): keys is called images now"):
        former = us.interpolate(model, keys=latent, frames=3, steps=3)
    assert torch.equal(former.images, us.interpolate(model, images=latent, frames=3, steps=3).images)
    with (
        pytest.warns(DeprecationWarning, match="keys"),
        pytest.raises(us.ArgumentError, match="takes images once: keys is its former name"),
    ):
        us.interpolate(model, keys=latent, images=latent)


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("invert", {"num_inference_steps": 20}, r"invert\(\) has no num_inference_steps: give steps$"),
        ("sample", {"guidance_scale": 2.0}, "give guidance$"),
        ("sample", {"negative_prompt": "x"}, "give negative$"),
        ("invert", {"negative_prompt": "x"}, "leave it out$"),
        ("reconstruct", {"height": 64, "width": 64}, r"has no height.*give size=\(height, width\)$"),
        ("edit", {"generator": torch.Generator()}, "give seed$"),
        ("variations", {"image": 0}, "give images$"),
        ("interpolate", {"image": 0}, "give images$"),
    ],
)
def test_names_of_diffusers_are_answered_by_ours(name, given, said, known):
    function, arguments = uses(known)[name]
    with pytest.raises(us.ArgumentError, match=said):
        function(**{**arguments, **given})


def test_missing_and_unknown_arguments_are_python_s(known):
    with pytest.raises(TypeError, match=r"invert\(\): missing a required argument: 'images'"):
        us.invert(known["model"])
    with pytest.raises(TypeError, match=r"invert\(\): got an unexpected keyword argument 'colour'"):
        us.invert(known["model"], known["images"], colour=1)
    assert "num_inference_steps" not in inspect.signature(us.invert).parameters
    assert "images" in inspect.signature(us.edit_attention).parameters


def test_one_word_for_one_thing():
    """The same parameters of all uses: their order of appearance and defaults."""
    with_pictures = (us.invert, us.reconstruct, us.edit, us.variations, us.interpolate, us.edit_attention)
    for function in with_pictures:
        parameters = inspect.signature(function).parameters
        assert list(parameters)[:2] == ["model", "images"], function.__name__
        assert {"start", "size", "steps", "grid", "on_step"} < set(parameters), function.__name__
    for function in (us.invert, us.reconstruct, us.sample, us.variations, us.interpolate, us.null_text):
        assert {"condition", "prompt"} < set(inspect.signature(function).parameters), function.__name__
    for function in (us.edit, us.edit_attention):
        parameters = inspect.signature(function).parameters
        assert {"source", "to"} < set(parameters)
        assert parameters["guidance"].default == 3.0
