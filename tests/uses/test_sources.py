"""`us.invert(pipe, picture, prompt=...)`: every way to give a model and pictures, and the guide of docs/any-model.md."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from PIL import Image

import unsample as us
from unsample.models.families import FAMILIES

from ..models import tiny
from ..models.agreement import STEPS, same
from ..models.test_stable_diffusion import stable_diffusion
from .conftest import SETTINGS, picture

GUIDE = (Path(__file__).parents[2] / "docs" / "any-model.md").read_text()


def pixel_pipeline():
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2, "layers_per_block": 1}
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 16), norm_num_groups=4, **blocks).eval()
    return DDPMPipeline(unet, DDPMScheduler(clip_sample=False))


@pytest.fixture(scope="module")
def pipe():
    return stable_diffusion()


@pytest.fixture(scope="module")
def large():
    """One whose own pictures are 64x64, so that sizes are multiples of 16."""
    return stable_diffusion(sample_size=32)


# Pictures


@pytest.mark.parametrize("kind", ["PIL", "array", "path", "str", "list", "tuple of each"])
def test_pictures_of_every_kind_are_read_as_files_are(pipe, tmp_path, kind):
    """Reference: the Model and `load_images` of the same pictures as PNG files."""
    files = [tmp_path / f"{i}.png" for i in range(3)]
    several = [picture(seed=i) for i in range(3)]
    for image, file in zip(several, files, strict=True):
        image.save(file)
    given = {
        "PIL": several[0],
        "array": np.asarray(several[0]),
        "path": files[0],
        "str": str(files[0]),
        "list": several,
        "tuple of each": (several[0], np.asarray(several[1]), files[2]),
    }[kind]
    count = len(given) if isinstance(given, (list, tuple)) else 1
    model = us.load(pipe, size=(16, 32))
    wanted = us.invert(model, us.load_images(files[:count], size=(16, 32)), condition="a cat", **SETTINGS)
    found = us.invert(pipe, given, prompt="a cat", size=(16, 32), **SETTINGS)
    assert torch.equal(found.latent, wanted.latent)
    assert torch.equal(us.invert(model, given, prompt="a cat", **SETTINGS).latent, wanted.latent)


def test_a_photograph_is_turned_upright(tmp_path):
    """Reference: `load_images` of the file whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(16, 8).save(tmp_path / "lying.jpg", exif=exif)
    model = us.load(pixel_pipeline())
    with Image.open(tmp_path / "lying.jpg") as opened:
        found = us.invert(model, opened, start=us.FromImage(), until=0).latent
    assert torch.equal(found, us.load_images([tmp_path / "lying.jpg"], size=(8, 8)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA", "I;16"])
def test_modes_are_converted_as_in_files(tmp_path, mode):
    """Reference: `load_images` of the picture as a PNG file; transparency lies on white, 16 bits are scaled."""
    if mode == "I;16":
        image = Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 257)
    else:
        image = picture(16, 16)
        image.putalpha(Image.linear_gradient("L").resize((16, 16)))
        image = image.convert(mode)
    assert image.mode == mode
    image.save(tmp_path / "a.png")
    found = us.invert(us.load(pixel_pipeline()), image, start=us.FromImage(), until=0).latent
    assert torch.equal(found, us.load_images([tmp_path / "a.png"], size=(8, 8)))


@pytest.mark.parametrize(
    ("given", "kind", "says"),
    [
        (np.zeros((8, 8, 3), np.float32), us.ArgumentError, r"images\[0\] to be an array of uint8.*float32 \(8, 8, 3\)"),
        (np.zeros((1, 8, 8, 3), np.uint8), us.ArgumentError, r"given uint8 \(1, 8, 8, 3\)"),
        ([picture(), 3], us.ArgumentError, r"images\[1\] to be a PIL image, an array or a file, given int"),
        ([], us.ImageError, "at least one picture"),
        (picture().convert("F"), us.ImageError, "holds F data of unknown range"),
        ([picture(8, 8), picture(6, 8)], us.ImageError, r"images\[1\] is 6x8 pixels, smaller than the model's 8x8"),
        ("missing.png", us.ImageError, "no such picture: missing.png"),
        (torch.zeros(1, 3, 16, 16), us.ArgumentError, r"expected images of shape \(batch, channels, 8, 8\)"),
    ],
)
def test_pictures_that_cannot_be_taken(untyped, given, kind, says):
    with pytest.raises(kind, match=says) as caught:
        us.invert(pixel_pipeline(), given, **SETTINGS)
    assert "\n" not in str(caught.value)


# Sizes


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (64, 64, (64, 64)),  # as it is
        (64, 63, (48, 64)),  # down to a multiple
        (100, 100, (64, 64)),  # no more pixels than the pipeline's own
        (1000, 1000, (64, 64)),  # whatever the rounding
        (96, 60, (48, 80)),  # the same, keeping the shape: 80.9 x 50.6
        (60, 96, (80, 48)),
        (40, 20, (16, 32)),  # never enlarged
        (20000, 20, (16, 256)),  # at least one unit
        (128, 85, (48, 80)),  # what keeps most of the picture: 64x64 would lose a third, 48x64 an eighth
    ],
)
def test_the_size_of_a_picture(large, width, height, size):
    image = Image.new("RGB", (width, height), "red")
    found = us.invert(large, image, start=us.FromImage(), steps=3, until=0)
    assert found.latent.shape == (1, 4, size[0] // 2, size[1] // 2)


def test_the_first_picture_decides_and_none_is_enlarged(large):
    found = us.invert(large, [picture(48, 32), picture(64, 64)], start=us.FromImage(), steps=3, until=0)
    assert found.latent.shape == (2, 4, 16, 24)
    with pytest.raises(us.ImageError, match=r"images\[1\] is 48x32 pixels, smaller than the model's 64x64"):
        us.invert(large, [picture(64, 64), picture(48, 32)], **SETTINGS)
    with pytest.raises(us.ImageError, match=r"images\[0\] is 14x40 pixels, smaller than the model's 16x32"):
        us.invert(large, picture(14, 40), **SETTINGS)


def test_a_tensor_and_a_latent_have_their_size(pipe):
    """Reference: the Model of that size."""
    model = us.load(pipe, size=(8, 24))
    images = torch.rand((2, 3, 8, 24), generator=torch.Generator().manual_seed(0)) * 2 - 1
    latent = us.invert(pipe, images, prompt=tiny.PROMPTS, **SETTINGS).latent
    assert torch.equal(latent, us.invert(model, images, condition=tiny.PROMPTS, **SETTINGS).latent)
    back = us.sample(pipe, latent, steps=3, prompt=tiny.PROMPTS).images
    assert torch.equal(back, us.sample(model, latent, steps=3, condition=tiny.PROMPTS).images)
    assert torch.equal(us.reconstruct(pipe, images, prompt=tiny.PROMPTS, **SETTINGS).images, back)
    with pytest.raises(us.ArgumentError, match=r"size 9x24: this model takes .* multiples of"):
        us.invert(pipe, images[:, :, :1].repeat(1, 1, 9, 1), **SETTINGS)


def test_a_model_of_pixels_keeps_its_size(pipe):
    pixels = pixel_pipeline()
    assert us.invert(pixels, picture(40, 24), **SETTINGS).latent.shape == (1, 3, 8, 8)
    assert us.invert(pixels, picture(40, 24), size=(8, 16), **SETTINGS).latent.shape == (1, 3, 8, 16)


USES = {
    "invert": {},
    "reconstruct": {},
    "edit": {"to": "a dog"},
    "variations": {},
    "interpolate": {},
    "edit_attention": {"source": "a cat", "to": ["a dog"], "editor": us.MasaCtrl()},
}


@pytest.mark.parametrize("name", USES)
def test_a_model_has_a_size(pipe, name):
    model, call = us.load(pipe), getattr(us, name)
    says = "size 16x32: model 'StableDiffusionPipeline' is one of 16x16; leave out size"
    with pytest.raises(us.ArgumentError, match=says):
        call(model, [picture()], size=(16, 32), **USES[name])
    if name in ("interpolate", "edit_attention"):
        with pytest.raises(us.ArgumentError, match=says):
            call(model, us.draw_noise(model, 2), size=(16, 32), **USES[name])


def test_the_size_of_a_model_may_be_said(pipe):
    model = us.load(pipe)
    assert us.invert(model, picture(), size=(16, 16), **SETTINGS).latent.shape == (1, 4, 8, 8)
    with pytest.raises(us.ArgumentError, match="leave out size"):
        us.sample(model, us.draw_noise(model, 1), size=(16, 32))


# Models


def test_a_live_pipeline_samples_as_it_does_itself_and_stays_as_it_is(pipe):
    """Reference: the pipeline's own call, before and after; its scheduler as changed in between."""
    noise = torch.randn((2, 4, 8, 16), generator=torch.Generator().manual_seed(1))
    settings = {"num_inference_steps": STEPS, "guidance_scale": 3.0, "latents": noise, "output_type": "pt"}
    before = pipe(list(tiny.PROMPTS), height=16, width=32, **settings).images
    same(us.sample(pipe, noise, steps=STEPS, prompt=tiny.PROMPTS, guidance=3.0).images, before)
    old = pipe.scheduler
    try:
        pipe.scheduler = tiny.ddim(prediction_type="v_prediction")
        theirs = pipe(list(tiny.PROMPTS), height=16, width=32, **settings).images
        same(us.sample(pipe, noise, steps=STEPS, prompt=tiny.PROMPTS, guidance=3.0).images, theirs)
    finally:
        pipe.scheduler = old
    assert torch.equal(pipe(list(tiny.PROMPTS), height=16, width=32, **settings).images, before)
    assert (theirs - before).abs().max() > 1e-2


def test_a_prompt_is_encoded_once_a_call(pipe):
    calls = []
    handle = pipe.text_encoder.register_forward_hook(lambda *_: calls.append(1))
    try:
        us.reconstruct(pipe, picture(), prompt="a cat", **SETTINGS)
    finally:
        handle.remove()
    assert len(calls) == 1


def test_a_directory_and_a_size_that_is_not_its_own(tmp_path, large):
    """Reference: the Model of that directory and size."""
    large.save_pretrained(tmp_path / "sd")
    image = picture(64, 40)
    found = us.invert(tmp_path / "sd", image, prompt="a cat", **SETTINGS).latent
    model = us.load(tmp_path / "sd", size=(32, 64))
    assert torch.equal(found, us.invert(model, image, condition="a cat", **SETTINGS).latent)


def test_a_model_by_name(tiny):
    """Reference: the Model of that directory; classes have the names it gives."""
    noise = us.draw_noise(us.load(str(tiny), device="cpu"), 2)
    found = us.sample(str(tiny), noise, steps=3, prompt="bee").images
    assert torch.equal(found, us.sample(us.load(str(tiny), device="cpu"), noise, steps=3, condition="bee").images)


def test_prompt_is_another_name_of_condition(pipe):
    x = us.draw_noise(us.load(pipe), 2)
    by_prompt, by_condition = (us.sample(pipe, x, steps=3, **{word: tiny.PROMPTS}).images for word in ("prompt", "condition"))
    assert torch.equal(by_prompt, by_condition)
    assert not torch.equal(by_prompt, us.sample(pipe, x, steps=3, prompt=tiny.PROMPTS[::-1]).images)
    both = {"prompt": "a cat", "condition": "a dog"}
    for call, given in ((us.invert, picture()), (us.reconstruct, picture()), (us.sample, x)):
        with pytest.raises(us.ArgumentError, match="give one, not both 'a cat' and 'a dog'"):
            call(pipe, given, **both)


def test_what_is_no_pipeline_is_refused(untyped):
    with pytest.raises(us.ModelError, match=r"no adapter for the pipeline class 'Linear'.*from_callable"):
        us.invert(torch.nn.Linear(1, 1), picture(), **SETTINGS)


# The guide


def test_the_guide_runs_as_printed(tmp_path, monkeypatch, capsys):
    """Its ```python blocks, one after another; ```py blocks need weights from elsewhere."""
    monkeypatch.chdir(tmp_path)
    picture(96, 64).save("photo.jpg")
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))
    exec(compile(code, "docs/any-model.md", "exec"), {})
    assert "evaluations" in capsys.readouterr().out


def test_the_guides_way_from_pickled_weights_to_safetensors(tmp_path, monkeypatch):
    """Its ```py block on that, with a pipeline of .bin files in place of the hub's: refused before, loaded after."""
    monkeypatch.chdir(tmp_path)
    pipe = pixel_pipeline()
    pipe.save_pretrained("pickled", safe_serialization=False)
    with pytest.raises(us.ModelError, match="safetensors"):
        us.load("pickled")
    code = next(block for block in re.findall(r"```py\n(.*?)```", GUIDE, re.DOTALL) if "owner/old-model" in block)
    names = {"us": us}
    exec(compile(code.replace("owner/old-model", "./pickled"), "docs/any-model.md", "exec"), names)
    noise = us.draw_noise(names["model"], 1)
    ours, theirs = (us.sample(model, noise, steps=2).images for model in (names["model"], pipe))
    torch.testing.assert_close(ours, theirs)


def test_the_guide_names_every_family_and_class():
    for family in FAMILIES:
        assert f"| {family.name} |" in GUIDE, family.name
        for name in family.pipelines:
            assert f"`{name}`" in GUIDE, name


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)", GUIDE))))
def test_links_of_the_guide_lead_somewhere(link):
    assert (Path(__file__).parents[2] / "docs" / link).exists()
