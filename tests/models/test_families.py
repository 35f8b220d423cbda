"""What holds for every family: the pipeline's own images, latents that lead back, items that do not depend on their batch.

References are diffusers' own pipelines with random weights, called by the `theirs` of each family's file, where its special
cases are tested.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import (
    IFImg2ImgPipeline,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionXLImg2ImgPipeline,
)

import unsample as us
from unsample.models import inspect_model
from unsample.models.families import FAMILIES
from unsample.models.families.prompts import UNCLEANED

from . import test_class_latent, test_deepfloyd, test_dit, test_flux, test_latent, test_pixart, tiny
from .agreement import TOLERANCE, agrees, leads_back, load, of_prompts, pictures, same
from .test_score import score
from .test_stable_diffusion import QUICK, stable_diffusion
from .test_stable_diffusion_3 import stable_diffusion_3
from .test_stable_diffusion_xl import stable_diffusion_xl

WIDE = (16, 24)
XL_QUICK = {**QUICK, "transformer_layers_per_block": 1, "attention_head_dim": 2}
SLOW = "fixed-point:iterations=30"
VELOCITY = {"prediction_type": "v_prediction"}
NAMED = [5, 1]


@dataclass(frozen=True)
class Case:
    """A pipeline, the function that samples it, and what both are called with."""

    make: Any
    theirs: Any = of_prompts
    conditions: Any = tiny.PROMPTS
    guidances: tuple[float, ...] = (1.0, 3.0)
    sizes: tuple[Any, ...] = (None, WIDE)
    refused: Any = ((16, 18), "multiples of 4$")
    distilled: bool = False
    compare: Any = same


CASES = {
    "Stable Diffusion": Case(stable_diffusion, refused=((17, 16), "multiples of 2$")),
    "Stable Diffusion XL": Case(stable_diffusion_xl, refused=((17, 16), "multiples of 2$")),
    "Stable Diffusion XL, guided from an empty prompt": Case(partial(stable_diffusion_xl, zeros=False), refused=None),
    "Stable Diffusion 3": Case(stable_diffusion_3, sizes=((16, 16), WIDE)),
    "FLUX dev": Case(
        partial(test_flux.flux, guided=True, scheduler={"use_dynamic_shifting": True}),
        test_flux.theirs,
        guidances=(1.0, 3.5),
        sizes=((16, 16), WIDE),
        distilled=True,
    ),
    "FLUX schnell": Case(
        partial(test_flux.flux, guided=False, scheduler={"shift": 1.0}), test_flux.theirs, sizes=((16, 16), WIDE)
    ),
    "DiT": Case(test_dit.dit, test_dit.theirs, NAMED, sizes=(None, (12, 12), (24, 24)), refused=((18, 18), "multiples of 4$")),
    "PixArt-alpha": Case(partial(test_pixart.pixart, PixArtAlphaPipeline), test_pixart.theirs),
    "PixArt-Sigma": Case(partial(test_pixart.pixart, PixArtSigmaPipeline), test_pixart.theirs),
    "DeepFloyd IF": Case(
        test_deepfloyd.stage_one,
        test_deepfloyd.theirs,
        sizes=(None, (8, 12)),
        refused=((8, 9), "multiples of 2$"),
        compare=test_deepfloyd.same_pixels,
    ),
    "latent U-Net": Case(test_latent.latent_diffusion, test_latent.theirs, [None, None], guidances=(1.0,)),
}

ALL = [(name, guidance, size) for name, case in CASES.items() for guidance in case.guidances for size in case.sizes]


@pytest.mark.parametrize(("name", "guidance", "size"), ALL)
def test_sample_is_the_pipelines_own(tmp_path, name, guidance, size):
    """Reference: the pipeline's call with the same noise."""
    case = CASES[name]
    pipeline = case.make()
    model = load(pipeline, tmp_path, size=size)
    assert size in (None, model.image_size)
    sampled = agrees(case.theirs, pipeline, model, case.conditions, guidance, compare=case.compare)
    assert sampled.nfe == 7 * (1 if guidance == 1 or case.distilled else 2)
    assert model.distilled == case.distilled


BACK = {
    "Stable Diffusion": (
        partial(stable_diffusion, **QUICK),
        tiny.PROMPTS,
        [1.0],
        None,
        {"method": "fixed-point:iterations=30"},
    ),
    "Stable Diffusion XL": (  # v-prediction's fixed point needs fewer iterations
        lambda: stable_diffusion_xl(tiny.ddim(**VELOCITY), **XL_QUICK),
        tiny.PROMPTS,
        [1.0],
        None,
        {},
    ),
    "Stable Diffusion 3": (stable_diffusion_3, tiny.PROMPTS, [1.0, 3.0], WIDE, {}),
    "FLUX dev": (partial(test_flux.flux, guided=True), tiny.PROMPTS, [3.5], WIDE, {}),
    "FLUX schnell": (partial(test_flux.flux, guided=False), tiny.PROMPTS, [3.0], WIDE, {}),
    "DiT": (test_dit.dit, NAMED, [1.0, 3.0], None, {}),
    "DiT of a flow": (lambda: test_dit.dit(tiny.flow()), NAMED, [3.0], None, {}),
    "PixArt-alpha": (CASES["PixArt-alpha"].make, tiny.PROMPTS, [1.0, 3.0], None, {}),
    "PixArt-Sigma": (CASES["PixArt-Sigma"].make, tiny.PROMPTS, [1.0, 3.0], None, {}),
    "DeepFloyd IF": (test_deepfloyd.stage_one, tiny.PROMPTS, [3.0], None, {}),
    "latent U-Net": (test_latent.latent_diffusion, None, [1.0], None, {}),
    "latent U-Net of classes": (test_class_latent.class_latent, [2, 1], [1.0], None, {}),
    "latent U-Net of classes, v": (lambda: test_class_latent.class_latent(tiny.ddim(**VELOCITY)), [2, 1], [1.0], None, {}),
    "latent U-Net of classes, flow": (lambda: test_class_latent.class_latent(tiny.flow()), [2, 1], [1.0, 2.5], (24, 16), {}),
    "score-based U-Net": (  # with little noise: a random network knows nothing of large s, where no iteration would converge
        partial(score, sigma_max=1.0),
        None,
        [1.0],
        None,
        {},
    ),
}
"""Pipeline, conditions, guidances, size, settings of `leads_back`. Stable Diffusion with guidance: test_complaints.py."""


@pytest.mark.parametrize(("name", "guidance"), [(name, guidance) for name, row in BACK.items() for guidance in row[2]])
def test_there_and_back(tmp_path, name, guidance):
    make, condition, _, size, settings = BACK[name]
    if name.startswith("latent U-Net of classes"):
        test_class_latent.name_classes(tmp_path)
    leads_back(load(make(), tmp_path, size=size), condition, guidance=guidance, **settings)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_a_size_that_it_cannot_take_is_refused(name):
    size, says = CASES[name].refused
    with pytest.raises(us.ArgumentError, match=says) as caught:
        us.load(CASES[name].make(), size=size)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["DiT", "PixArt-alpha", "DeepFloyd IF", "latent U-Net"])
def test_items_do_not_depend_on_their_batch(name):
    """Conditions of an item reach no other one; prompts differ in length."""
    case = CASES[name]
    model = us.load(case.make(), size=case.sizes[0])
    noise = us.draw_noise(model, 2, seed=2)
    conditions = ["a cat", "a very long tale of two dogs"] if case.conditions is tiny.PROMPTS else case.conditions
    settings = {"steps": 7, "guidance": case.guidances[-1]}
    together, apart = (us.sample(model, noise, batch_size=n, condition=conditions, **settings).images for n in (2, 1))
    torch.testing.assert_close(together, apart, rtol=0, atol=TOLERANCE)
    if conditions[0] is not None:
        swapped = us.sample(model, noise, condition=conditions[::-1], **settings).images
        assert float((together - swapped).abs().max()) > 1e-3


@pytest.mark.parametrize("name", ["Stable Diffusion 3", "FLUX dev", "FLUX schnell"])
def test_half_precision_is_the_networks_alone(tmp_path, name):
    """Reference: the same weights in float32; bfloat16 has three digits."""
    narrow = load(CASES[name].make().to(torch.bfloat16), tmp_path, dtype="bfloat16", size=(16, 16))
    wide = us.load(str(tmp_path), device="cpu", size=(16, 16))
    assert (narrow.network.transformer.dtype, wide.network.transformer.dtype) == (torch.bfloat16, torch.float32)
    noise = us.draw_noise(wide, 2)
    images, expected = (us.sample(m, noise, steps=3, condition=tiny.PROMPTS, guidance=3.0).images for m in (narrow, wide))
    assert images.dtype == torch.float32
    assert 0 < float((images - expected).abs().max()) < 0.05


@pytest.mark.parametrize("name", ["DiT", "latent U-Net"])
def test_reduced_precision_and_offload(tmp_path, name):
    """Reference: the same model whole and in float32; eps of a bfloat16 network differs by its rounding."""
    case = CASES[name]
    model, offloaded, narrow = (
        load(case.make(), tmp_path, size=(24, 24), **settings) for settings in ({}, {"offload": True}, {"dtype": "bfloat16"})
    )
    torch.testing.assert_close(narrow.codec.encode(pictures(model)), model.codec.encode(pictures(model)))  # it stays float32
    noise, level = us.draw_noise(model, 2), model.grid(7)[4]
    with torch.no_grad():
        exact, same_, rounded = (
            m.denoiser(case.conditions, case.guidances[-1])(noise, level) for m in (model, offloaded, narrow)
        )
    torch.testing.assert_close(same_, exact)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).std() / exact.std()) < 0.05


CODECS = {**{name: CASES[name].make for name in ("Stable Diffusion", "Stable Diffusion 3", "DiT", "FLUX dev")}}
CODECS["latent U-Net of classes"] = test_class_latent.class_latent


@pytest.mark.parametrize("name", CODECS)
def test_codec(name):
    """Reference: the KL autoencoder's own posterior, its mode, and its own forward pass. Another kind: test_latent.py."""
    pipeline = CODECS[name]()
    model = us.load(pipeline, size=(16, 16))
    vae = pipeline.components.get("vae") or pipeline.vqvae
    images = pictures(model)
    with torch.no_grad():
        encoded, mode = model.codec.encode(images), vae.encode(images).latent_dist.mode()
        torch.testing.assert_close(encoded, (mode - (vae.config.shift_factor or 0)) * vae.config.scaling_factor)
        torch.testing.assert_close(model.codec.encode(images), encoded, rtol=0, atol=0)
        torch.testing.assert_close(model.codec.decode(encoded), vae(images).sample)
    assert model.codec.scale == 2


@pytest.mark.parametrize("name", ["PixArt-alpha", "DeepFloyd IF", "Stable Diffusion"])
def test_conditions_other_than_prompts_are_refused(name):
    model = us.load(CASES[name].make())
    with pytest.raises(us.ArgumentError, match="takes prompts, given 3"):
        us.sample(model, us.draw_noise(model, 1), condition=3)


@pytest.mark.parametrize("name", ["Stable Diffusion", "Stable Diffusion 3", "DeepFloyd IF", "PixArt-alpha", "PixArt-Sigma"])
def test_no_prompt_is_the_empty_one(name):
    """Reference: the pipeline's call with ""; XL differs: test_stable_diffusion_xl.py."""
    case = CASES[name]
    pipeline = case.make()
    agrees(case.theirs, pipeline, us.load(pipeline), ["", ""], compare=case.compare, condition=None)


@pytest.mark.parametrize("name", ["Stable Diffusion", "Stable Diffusion XL"])
def test_a_negative_prompt_is_the_pipelines(name):
    """Reference: the pipeline's call with negative_prompt."""
    pipeline = CASES[name].make()
    model = us.load(pipeline)
    noise = us.draw_noise(model, 2)
    ours = us.sample(model, noise, steps=7, condition=tiny.PROMPTS, guidance=3.0, negative="ugly").images
    same(ours, of_prompts(pipeline, model, noise, tiny.PROMPTS, 3.0, negative_prompt=["ugly", "ugly"]))


XL = {"add_watermarker": False}
IMAGE_TO_IMAGE = {
    "Stable Diffusion": (stable_diffusion, StableDiffusionImg2ImgPipeline, {"requires_safety_checker": False}),
    "Stable Diffusion XL": (stable_diffusion_xl, StableDiffusionXLImg2ImgPipeline, XL),
    "XL, guided from an empty prompt": (
        partial(stable_diffusion_xl, zeros=False),
        StableDiffusionXLImg2ImgPipeline,
        {**XL, "force_zeros_for_empty_prompt": False},
    ),
    "DeepFloyd IF": (test_deepfloyd.stage_one, IFImg2ImgPipeline, {"requires_safety_checker": False}),
}


@pytest.mark.parametrize("name", IMAGE_TO_IMAGE)
def test_the_image_to_image_class_gives_the_same_model(name):
    make, kind, settings = IMAGE_TO_IMAGE[name]
    pipeline = make()
    model, other = us.load(pipeline, size=(24, 16)), us.load(kind(**pipeline.components, **settings), size=(24, 16))
    assert (other.shape, other.image_size, other.family) == (model.shape, (24, 16), model.family)
    noise = us.draw_noise(model, 2)
    settings = {"steps": 7, "condition": tiny.PROMPTS, "guidance": 3.0}
    assert torch.equal(us.sample(other, noise, **settings).images, us.sample(model, noise, **settings).images)


@pytest.mark.parametrize("name", ["DiT", "PixArt-alpha"])
def test_the_class_of_older_files(tmp_path, name):
    """Published ones name `Transformer2DModel`; reference: the same weights under today's name."""
    case = CASES[name]
    pipeline = case.make()
    pipeline.save_pretrained(tmp_path)
    for file in (tmp_path / "model_index.json", tmp_path / "transformer" / "config.json"):
        text = file.read_text()
        assert f"{name.split('-')[0]}Transformer2DModel" in text
        file.write_text(text.replace(f"{name.split('-')[0]}Transformer2DModel", "Transformer2DModel"))
    model = us.load(str(tmp_path), device="cpu")
    agrees(case.theirs, pipeline, model, case.conditions, 3.0)
    assert inspect_model(tmp_path).family == model.family


@pytest.mark.parametrize("name", ["PixArt-alpha", "DeepFloyd IF"])
def test_prompts_are_cleaned_as_the_pipelines_call_does(tmp_path, monkeypatch, name):
    """Reference: the pipelines, whose default is to drop links and signs, given stand-ins for the packages they need."""
    case, untidy = CASES[name], "A Cat (from http://example.com/cat)  "
    pipeline = case.make()
    tiny.cleaned(monkeypatch, pipeline)
    model = load(pipeline, tmp_path)
    assert UNCLEANED not in model.notes
    agrees(case.theirs, pipeline, model, [untidy], 3.0, compare=case.compare)
    noise = us.draw_noise(model, 1)
    images = [us.sample(model, noise, steps=2, condition=prompt).images for prompt in (untidy, "a cat from")]
    assert torch.equal(*images)


# Inspection

INSPECTED = {
    **{name: case.make for name, case in CASES.items()},
    "latent U-Net": lambda: test_latent.latent_diffusion(test_latent.quantised(scaling_factor=1.0)),
    "score-based U-Net": score,
    "DiT": lambda: test_dit.dit(labels={0: "tench", 1: "goldfish, Carassius auratus"}),
}


FAMILY = {
    "Stable Diffusion XL, guided from an empty prompt": "Stable Diffusion XL",
    **dict.fromkeys(("FLUX dev", "FLUX schnell"), "FLUX"),
    **dict.fromkeys(("PixArt-alpha", "PixArt-Sigma"), "PixArt"),
}
"""Of pipelines that are not called like their family."""


@pytest.mark.parametrize("name", INSPECTED)
def test_inspection_reads_configs_alone(name, tmp_path):
    """Reference: the live pipeline, and the model it loads as."""
    pipeline = INSPECTED[name]()
    pipeline.save_pretrained(tmp_path / "it")
    for file in (tmp_path / "it").rglob("*.safetensors"):
        file.unlink()
    for folder in [*(tmp_path / "it").glob("text_encoder*"), *(tmp_path / "it").glob("tokenizer*")]:
        shutil.rmtree(folder)
    found, live, model = inspect_model(tmp_path / "it"), inspect_model(pipeline), us.load(pipeline)
    assert (found.name, found.pipeline) == ("it", type(pipeline).__name__)
    assert found.family == FAMILY.get(name, name)
    assert {**found.to_dict(), "name": ""} == {**live.to_dict(), "name": ""}
    assert (found.shape, found.image_size, found.prediction) == (model.shape, model.image_size, model.prediction)
    assert (found.schedule["digest"], found.codec["scale"]) == (model.schedule.digest, model.codec.scale)
    assert set(model.notes) <= set(found.notes)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    assert sum(weight.numel() for weight in network.parameters()) in found.parameters.values()


def test_every_family_is_inspected_here():
    assert {*(FAMILY.get(name, name) for name in INSPECTED), "pixel U-Net"} == {family.name for family in FAMILIES}
