"""A caller's settings reach the network and nothing else: half precision, defaults, autocast, inference mode, MPS."""

import ast
import dataclasses
import importlib
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import torch

import unsample as us
from unsample.diagnostics import psnr
from unsample.methods.registry import METHODS

SOURCE = Path(us.__file__).parent
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@pytest.fixture
def model(toy):
    return toy()


@pytest.fixture
def images():
    return torch.linspace(-0.9, 0.9, 32).reshape(2, 1, 4, 4)


def network():
    """A small convolution over three channels of 8x8."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    return us.Model.from_callable(
        lambda x, t: 0.3 * layer(x), schedule=us.Schedule.from_betas(us.Schedule.scaled_linear_betas()), shape=(3, 8, 8)
    )


# Half precision


@HALF
@pytest.mark.parametrize("method", ["ddim", "fixed-point:iterations=2", "edict", "bdia", "o-belm", "exact", "edit-friendly"])
def test_half_precision_walks_in_single(method, dtype, model, images):
    """Reference: the same values, given in float32."""
    given = images.to(dtype)
    half, single = (us.reconstruct(model, x, method=method, steps=5, start=1) for x in (given, given.float()))
    assert half.trajectory.latent.dtype == torch.float32
    assert torch.equal(half.images, single.images)


@HALF
def test_every_use_and_the_core_give_single_precision(dtype, model, images):
    half, grid = images.to(dtype), model.grid(3)
    eps = model.denoiser()
    found = {
        "invert": us.invert(model, half, steps=3).latent,
        "sample": us.sample(model, half, steps=3).images,
        "edit": us.edit(model, half, to=1, source=0, steps=3, start=1).images,
        "variations": us.variations(model, half, seeds=1, start=1, steps=3).images,
        "interpolate": us.interpolate(model, half, frames=3, steps=3).images,
        "draw_noise": us.draw_noise(model, 2, dtype=dtype),
        "ascend": us.ascend(eps, half, grid).latent,
        "descend": us.descend(eps, half, grid).latent,
        "walk": [moved.x for moved in us.walk(eps, half, grid.up(), us.DDIM())][-1],
    }
    assert {name: x.dtype for name, x in found.items()} == dict.fromkeys(found, torch.float32)
    float64 = us.invert(model, images.double(), steps=3).latent
    assert float64.dtype == torch.float64


def test_a_trajectory_in_half_precision_is_edited_in_single(model, images):
    there = us.invert(model, images, steps=3, start=1)
    half = us.Trajectory(there.latent.half(), there.start, there.index, there.nfe)
    single = us.Trajectory(half.latent.float(), there.start, there.index, there.nfe)
    edited = [us.edit(model, each, to=1, steps=3).images for each in (half, single)]
    assert torch.equal(*edited)


# Default device and dtype


MAKERS = {"zeros", "ones", "full", "randn", "rand", "randint", "arange", "tensor", "linspace", "logspace", "empty", "eye",
          "randperm", "as_tensor", "asarray", "fftfreq", "rfftfreq", "normal"}  # fmt: skip


@pytest.mark.parametrize("room", ["core", "methods", "diagnostics", "uses", "pictures", "runs", "studies"])
def test_every_tensor_that_is_made_names_its_device(room):
    """Without, `with torch.device("cuda")` around a call would put it elsewhere."""
    bare = []
    for file in sorted((SOURCE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS):
                continue
            called = ast.unparse(node.func)
            if called.startswith("torch.") and not any(word.arg == "device" for word in node.keywords):
                bare.append(f"{file.relative_to(SOURCE)}:{node.lineno}: {called}")
    assert not bare


def everything(model, images):
    latent = us.invert(model, images, steps=3, start=1).latent
    drawn = us.ItemNoise(0, ["a"]).draw((1, 3))
    numbers = [row.value for row in us.diagnose(latent, images=images, reconstruction=images * 0.9).rows]
    many = us.draw_noise(model, 40)
    top = us.diagnose(many)["top-20 patch correlation"]
    between = us.interpolate(model, latent, frames=3, steps=3).images
    back, noise = us.sample(model, latent, steps=3).images, us.draw_noise(model, 2)
    return [
        drawn,
        latent,
        back,
        noise,
        between,
        torch.tensor([*numbers, top.value, top.low], dtype=torch.float64, device="cpu"),
    ]


def assert_same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0, equal_nan=True)


def test_a_default_device_changes_nothing(model, images):
    expected = everything(model, images)
    with torch.device("meta"):
        found = everything(model, images)
    assert_same(found, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_default_dtype_changes_nothing(dtype, model, images):
    expected = everything(model, images)
    torch.set_default_dtype(dtype)
    try:
        found = everything(model, images)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same(found, expected)


# Autocast


@pytest.mark.parametrize("method", ["ddim", "anderson", "edict", "heun"])
def test_autocast_reaches_the_network_alone(method):
    """Reference: a network that calls its layers in autocast itself, and a walk without."""
    model, x = network(), torch.linspace(-0.9, 0.9, 3 * 64).reshape(1, 3, 8, 8)

    def inside(x, t, condition):
        with torch.autocast("cpu", torch.bfloat16):
            return model.network(x, t, condition)

    expected = us.invert(us.Model(inside, model.schedule, model.shape), x, method=method, steps=5).latent
    with torch.autocast("cpu", torch.bfloat16):
        found = us.invert(model, x, method=method, steps=5).latent
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    assert not torch.equal(found, us.invert(model, x, method=method, steps=5).latent)


def test_autocast_does_not_reach_diagnostics(images):
    x = us.diagnostics.true_noise((40, 3, 16, 16))
    pictures = (0.3 * us.diagnostics.true_noise((40, 3, 32, 32), seed=1)).clamp(-1, 1)
    expected = us.diagnose(x, images=pictures, reconstruction=pictures * 0.9, noise=x + 0.1)
    with torch.autocast("cpu", torch.bfloat16):
        found = us.diagnose(x, images=pictures, reconstruction=pictures * 0.9, noise=x + 0.1)
    assert found.to_dict() == expected.to_dict()


# Inference mode


@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_in_inference_mode(name, model):
    """Reference: without. Images of 4x4 are inverted, the least that a regularised method takes."""
    images = torch.linspace(-0.9, 0.9, 32).reshape(2, 1, 4, 4)
    if name in ("renoise", "pix2pix-zero"):
        name = f"{name}:{'correlation=1' if name == 'renoise' else 'rounds=1'}"
    expected = us.reconstruct(model, images, method=name, steps=3, start=1, condition=1)
    with torch.inference_mode():
        found = us.reconstruct(model, images.clone(), method=name, steps=3, start=1, condition=1)
    assert torch.equal(found.images, expected.images)
    assert not found.images.is_inference()


@pytest.mark.parametrize("name", ["gradient", "gradient-first"])
def test_the_core_takes_gradients_in_inference_mode(name, model, images):
    method, eps, grid = METHODS[name](), model.denoiser(), model.grid(3)
    expected = us.ascend(eps, images, grid, method).latent
    with torch.inference_mode():
        x = images.clone()
        assert torch.equal(us.ascend(eps, x, grid, method).latent, expected)
        moves = list(us.walk(eps, x, grid.up(), method))
        alone = method.step(eps, x, next(grid.up()), method.init(x))
    assert torch.equal(moves[-1].x, expected)
    assert torch.equal(alone.x, moves[0].x)


def test_weights_made_in_inference_mode_are_named():
    with torch.inference_mode():
        layer = torch.nn.Conv2d(3, 3, 3, padding=1)
    model = us.Model.from_callable(
        lambda x, t: layer(x), schedule=us.Schedule.from_betas(us.Schedule.linear_betas()), shape=(3, 8, 8)
    )
    x = torch.zeros(1, 3, 8, 8)
    assert us.invert(model, x, steps=3, method="ddim").latent.shape == x.shape
    with pytest.raises(us.ArgumentError, match=r"weights were made in torch.inference_mode\(\)"):
        us.invert(model, x, steps=3, method="gradient")


# A device without float64


class OnMPS(torch.Tensor):
    """Refuses float64 as Apple's MPS does."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return out


TABLE, ZERO = (us.Schedule.from_betas(us.Schedule.scaled_linear_betas(), zero_terminal_snr=zero) for zero in (False, True))
SCHEDULES = {
    "table": {"schedule": TABLE},
    "flow": {"schedule": us.FlowSchedule(shift=3.0)},
    "zero SNR": {"schedule": ZERO, "prediction": "v_prediction", "spacing": "trailing"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_device_without_float64_walks_in_single(name):
    """Reference: float64 where alpha is tiny, which single precision is near: to a few parts in 2^12."""
    model = us.Model.from_callable(lambda x, t: 0.1 * x, shape=(3, 8, 8), **SCHEDULES[name])
    z = us.draw_noise(model, 1)
    there = z.as_subclass(OnMPS)
    made = [us.sample(model, x, steps=5).images for x in (there, z)]
    pairs = [made]
    for method in ("ddim", "heun", "look-ahead", "dpm++"):
        pairs.append([us.invert(model, x.clamp(-1, 1), steps=5, method=method).latent for x in (there, z)])
    for ours, theirs in pairs:
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.as_subclass(torch.Tensor), theirs, rtol=0, atol=2e-3)
    assert torch.isinf(psnr(there.clamp(-1, 1), there.clamp(-1, 1))).all()


# Comparing


def holders():
    """Every dataclass of the package with a tensor among its fields."""
    for module in pkgutil.walk_packages(us.__path__, "unsample."):
        if module.name.startswith(("unsample.cli", "unsample.models.inversion_schedulers")):
            continue
        for name, kind in vars(importlib.import_module(module.name)).items():
            own = isinstance(kind, type) and is_dataclass(kind) and kind.__module__ == module.name
            if own and any(TENSOR.search(str(each.type)) for each in fields(kind)):
                yield pytest.param(kind, id=f"{module.name.removeprefix('unsample.')}.{name}")


TENSOR = re.compile(r"\b(Tensor|Stored|Images|State|PerImage|Bins)\b")
HOLDERS = list(holders())


@pytest.mark.parametrize("kind", HOLDERS)
def test_comparing_what_holds_tensors_answers(kind):
    """By identity; by value, Python would ask for the truth of a tensor."""
    one, other = object.__new__(kind), object.__new__(kind)
    for made in (one, other):
        made.__dict__.update({each.name: torch.zeros(2) for each in fields(kind)})
    assert one == one
    assert one != other
    assert one in [other, one]
    assert isinstance(hash(one), int)


def test_there_is_something_to_compare(model, images):
    kinds = {each.values[0] for each in HOLDERS}
    assert {us.Trajectory, us.Stored, us.Samples, us.Reconstruction, us.Edit, us.Variations, us.NullText, us.Moved} <= kinds
    assert us.Keep("states") == us.Keep("states")
    assert us.invert(model, images, steps=3) != us.invert(model, images, steps=3)
    assert model == dataclasses.replace(model)
