"""What people report of inverting Stable Diffusion with other code, each as a test on a tiny pipeline of random weights."""

import copy
from dataclasses import replace

import pytest
import torch

import unsample as us
from unsample.methods.registry import METHODS
from unsample.methods.starts import parse_start

from . import tiny
from .agreement import agrees, leads_back, of_prompts, pictures, softly
from .test_stable_diffusion import QUICK, stable_diffusion


def quick(**scheduler):
    return stable_diffusion(tiny.ddim(**scheduler), **QUICK)


@pytest.fixture(scope="module")
def model():
    return us.load(quick())


# "Inversion does not work with v-prediction models"


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_velocity_models_lead_back(spacing, guidance):
    """People report that Stable Diffusion 2 comes back as noise: v was taken for eps on the way up."""
    model = us.load(quick(prediction_type="v_prediction", timestep_spacing=spacing))
    leads_back(model, "a cat", count=1, method="fixed-point:iterations=10", guidance=guidance)


@pytest.mark.parametrize("method", ["anderson:iterations=10", "bdia", "o-belm", "exact"])
def test_zero_terminal_snr_leads_back(method):
    """People report NaN: at alpha 0 x0 = (x - sigma eps) / alpha has no value. Here alpha ends at 2^-12.

    A plain fixed point does not converge in that last move, whose 1 - 1/r is nearly 1 (docs/theory.md, eq. 7): it comes back
    with a root mean square of 0.02 of pixels that deviate by 0.28, and Anderson's with 8e-5.
    """
    config = {"prediction_type": "v_prediction", "timestep_spacing": "trailing", "rescale_betas_zero_snr": True}
    model = softly(us.load(quick(**config)))
    images = pictures(model, 1)
    found = us.reconstruct(model, images, steps=7, method=us.parse_method(method), start=us.FromImage(), condition="a cat")
    with torch.no_grad():
        expected = model.codec.decode(model.codec.encode(images))
    torch.testing.assert_close(found.images, expected, rtol=0, atol=1e-3)


# "It only works if the number of steps divides 1000"


@pytest.mark.parametrize(("steps", "top", "iterations"), [(7, 853, 20), (30, 958, 7), (64, 946, 4)])
def test_any_number_of_steps_leads_back(model, steps, top, iterations):
    """People report that sampling starts beside where the inversion ended: diffusers steps by 1000 // steps up and down."""
    assert model.grid(steps)[steps].t == top
    leads_back(model, "a cat", count=1, method=f"fixed-point:iterations={iterations}", steps=steps)


def test_nearly_every_timestep_leads_back(model):
    """As above, with 999 steps; a stand-in for the network, which would take a minute."""
    model = replace(model, network=lambda x, t, _condition: 10 * torch.tanh(x + t[:, None, None, None] / 1000))
    assert model.grid(999)[999].t == 999
    leads_back(model, "a cat", count=1, method="fixed-point:iterations=2", steps=999)


# "float16 gives black images"


def overflowing():
    """A pipeline whose autoencoder leaves the range of float16 on the way, as Stable Diffusion XL's does."""
    pipeline = quick()
    with torch.no_grad():
        pipeline.vae.encoder.conv_in.weight.mul_(2e5)
        pipeline.vae.post_quant_conv.weight.mul_(5e4)
    return pipeline


def test_an_autoencoder_that_overflows_half_precision(tmp_path):
    """People report NaN, black images, of float16. The autoencoder is read in float32, also from files in float16."""
    pipeline = overflowing()
    pipeline.save_pretrained(tmp_path / "single")
    pipeline.unet.half()
    pipeline.text_encoder.half()
    vae = pipeline.vae.half()
    images, latent = torch.rand(1, 3, 16, 16) * 2 - 1, torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        assert all(bool(weight.isfinite().all()) for weight in vae.parameters())
        assert not bool(vae.encode(images.half()).latent_dist.mode().isfinite().all())
        assert not bool(vae.decode(latent.half()).sample.isfinite().all())
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")

    for directory in ("single", "half"):
        model = us.load(str(tmp_path / directory), device="cpu", dtype="float16")
        assert (model.network.unet.dtype, model.codec.vae.dtype) == (torch.float16, torch.float32)
        assert bool(model.codec.encode(images).isfinite().all())
        assert bool(model.codec.decode(latent).isfinite().all())
        found = us.reconstruct(model, images, steps=4, method=us.DDIM(), condition="a cat", guidance=3.0)
        assert bool(found.images.isfinite().all())


def test_a_live_autoencoder_that_overflows_half_precision():
    """As above, with a pipeline that is already in float16: widened for the time being, then as it was."""
    pipeline = overflowing()
    for network in (pipeline.unet, pipeline.text_encoder, pipeline.vae):
        network.half().requires_grad_(False)
    before = {name: weight.clone() for name, weight in pipeline.vae.state_dict().items()}
    wide = us.load(pipeline)
    wide = replace(wide, codec=replace(wide.codec, vae=copy.deepcopy(pipeline.vae).float()))
    model = us.load(pipeline)
    images, latent = pictures(model, 1), us.draw_noise(model, 1)
    assert torch.equal(model.codec.encode(images), wide.codec.encode(images))
    assert torch.equal(model.codec.decode(latent), wide.codec.decode(latent))
    assert bool(model.codec.decode(latent).isfinite().all())
    assert bool(us.reconstruct(model, images, steps=4, method=us.DDIM(), condition="a cat").images.isfinite().all())
    with pytest.raises(RuntimeError):
        model.codec.decode(latent[:, :3])
    assert pipeline.vae.dtype == torch.float16
    assert all(torch.equal(weight, before[name]) for name, weight in pipeline.vae.state_dict().items())


# "With guidance above 1 it blows up"


def test_guided_inversion_leads_back(model):
    """People report that inverting with the guidance of sampling gives garbage: DDIM's guess is multiplied by it each move.

    An iterating method solves for what the guided sampler undoes.
    """
    leads_back(model, "a cat", count=1, method="anderson:iterations=15", guidance=3.0)


def test_guided_ddim_stays_finite(model):
    """It may be far from the image, but not NaN."""
    found = us.reconstruct(model, pictures(model, 1), steps=30, method=us.DDIM(), condition="a cat", guidance=7.5)
    assert bool(found.trajectory.finite.all())
    assert bool(found.images.isfinite().all())


# "Batches give other results"


@pytest.mark.parametrize(("prompts", "guidance"), [(["a cat", "", "two dogs"], 3.0), (["a cat", None, "two dogs"], 1.0)])
def test_a_batch_is_its_items_one_by_one(model, prompts, guidance):
    """People report that the same image gives another latent beside others: noise and prompts are each item's own.

    Measured: 1.3e-5, rounding of float32 in another order, with guidance 3.
    """
    images, settings = pictures(model, 3), {"steps": 4, "condition": prompts, "guidance": guidance}
    together = us.invert(model, images, **settings)
    for size in (1, 2):
        apart = us.invert(model, images, batch_size=size, **settings)
        torch.testing.assert_close(apart.latent, together.latent, rtol=0, atol=1e-4)
    alone = us.invert(model, images[2:], steps=4, condition="two dogs", guidance=guidance, items=[2])
    torch.testing.assert_close(alone.latent, together.latent[2:], rtol=0, atol=1e-4)


# "Only square images"


@pytest.mark.parametrize("size", [(16, 40), (40, 16)])
def test_images_that_are_not_square_lead_back(size):
    """People report images squeezed to 512 x 512, or an error about shapes."""
    model = us.load(quick(prediction_type="v_prediction"), size=size)
    assert (model.image_size, model.shape) == (size, (4, size[0] // 2, size[1] // 2))
    leads_back(model, "a cat", count=1, method="fixed-point:iterations=10")


def test_a_size_that_does_not_fit_is_refused():
    """An error that says which sizes do."""
    with pytest.raises(us.errors.ArgumentError, match=r"size 17x16.*multiples of 2"):
        us.load(quick(), size=(17, 16))


# Prompts


def test_a_prompt_longer_than_the_tokenizer_takes():
    """People report a crash in the text encoder, whose positions end at 77 tokens. Reference: the pipeline, which cuts it."""
    pipeline = quick()
    model = us.load(pipeline)
    long = ["a very long description of a cat that sits on a mat " * 5] * 2
    agrees(of_prompts, pipeline, model, long)


def test_an_empty_prompt_is_no_prompt(model):
    """People report that inverting without a prompt fails. Stable Diffusion's unconditional is the empty prompt."""
    settings = {"steps": 4, "guidance": 1.0, "method": us.DDIM()}
    images = pictures(model, 2)
    empty = us.invert(model, images, condition="", **settings).latent
    assert torch.equal(us.invert(model, images, **settings).latent, empty)
    assert torch.equal(us.invert(model, images, condition=[None, ""], **settings).latent, empty)
    assert not torch.equal(us.invert(model, images, condition="a cat", **settings).latent, empty)


def test_each_prompt_is_encoded_once():
    """People report that the text encoder takes most of the time of inverting many images."""
    pipeline, seen = quick(), []
    pipeline.text_encoder.register_forward_pre_hook(lambda _module, args: seen.append(args[0].tolist()))
    model = us.load(pipeline)
    prompts = ["a cat", "two dogs", "a cat"]
    settings = {"steps": 2, "guidance": 3.0, "condition": prompts}
    latent = us.invert(model, pictures(model, 3), batch_size=1, **settings).latent
    us.sample(model, latent, **settings)
    assert len(seen) == 3  # the two prompts, and none
    assert all(len(tokens) == 1 for tokens in seen)


# Methods


def test_null_text_embeddings_are_those_of_tokens(model):
    """People ask for null-text inversion of any model. Guided sampling from the same pivots strays without it."""
    images = pictures(model, 1)
    assert model.embed(["a cat", None]).shape == (2, tiny.LENGTH, 16)
    model = softly(model)
    settings = {"steps": 3, "condition": "a cat"}
    method = us.parse_method("fixed-point:iterations=30")
    pivots = us.invert(model, images, method=method, start=us.FromImage(), keep=us.Keep("states"), **settings)
    found = us.null_text(model, images, pivots, condition="a cat", guidance=3.0, iterations=20, rate=0.1)
    assert {level: rows.shape for level, rows in found.embeddings.items()} == dict.fromkeys((3, 2, 1), (1, tiny.LENGTH, 16))
    with torch.no_grad():
        aim = model.codec.decode(model.codec.encode(images))
    strayed = us.sample(model, pivots.latent, guidance=3.0, **settings).images - aim
    fitted = us.sample(model, pivots.latent, guidance=3.0, negative=found.embeddings, **settings).images - aim
    assert float(fitted.square().mean()) < float(strayed.square().mean()) / 4


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs(model, name):
    """On latents and prompts, from a forward start, and back by its own sampler with what it stored."""
    method, images = METHODS[name](), pictures(model, 1)
    settings = {"steps": 4, "condition": "a cat"}
    found = us.invert(model, images, method=method, start=us.ForwardNoise(steps=1), **settings)
    assert found.latent.shape == (1, *model.shape)
    assert bool(found.finite.all())
    back = us.sample(model, found.latent, method=method.sampler, stored=found.stored, **settings).images
    assert back.shape == images.shape
    assert bool(back.isfinite().all())


@pytest.mark.parametrize("start", ["0", "1", "4", "50%", "sigma=0.1", "auto", "1@plain", "1@next"])
def test_every_start_runs(model, start):
    """On latents, whose plain areas are found in the pixels."""
    found = us.invert(model, pictures(model, 2), start=parse_start(start), steps=4, condition="a cat")
    assert found.latent.shape == (2, *model.shape)
    assert bool(found.finite.all())


def test_prompts_and_no_prompts_in_one_batch_under_guidance():
    """A batch of one item without a prompt is as good as one of several of which one has none."""
    model = us.load(stable_diffusion(), size=(16, 16))
    noise = us.draw_noise(model, 2)
    settings = {"steps": 3, "condition": ["a cat", None], "guidance": 3.0}
    apart = us.sample(model, noise, batch_size=1, **settings).images
    torch.testing.assert_close(apart, us.sample(model, noise, **settings).images, rtol=1e-4, atol=1e-4)
    with pytest.raises(us.ArgumentError, match="needs a condition"):
        us.sample(model, noise, steps=3, condition=[None, None], guidance=3.0)


def test_a_live_pipeline_without_its_text_encoder():
    pipeline = stable_diffusion()
    pipeline.text_encoder = None
    with pytest.raises(us.ModelError, match="StableDiffusionPipeline lacks text_encoder"):
        us.load(pipeline)
