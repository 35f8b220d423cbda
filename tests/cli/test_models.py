"""Models by name, what `inspect` says of them, the options that load one, and text models from the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import accelerate
import diffusers
import pytest
import torch
import transformers
from PIL import Image

import unsample as us
from unsample import models
from unsample.models import cards, inspect_model
from unsample.models.families import FAMILIES
from unsample.models.openai import FAMILY
from unsample.models.openai.flags import published
from unsample.models.openai.unet import OpenAIUNet
from unsample.runs.directory import Run

from ..models.test_deepfloyd import stage_one
from ..models.test_dit import dit
from ..models.test_flux import flux
from ..models.test_openai import checkpoint
from ..models.test_stable_diffusion import stable_diffusion
from .conftest import one_line, tensors

QUICK = ("--steps", 4, "--size", "16x24", "--prompt", "a cat")


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No models but the bundled one: an empty cache of the hub, no folder of models, an empty working directory."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("UNSAMPLE_MODELS", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The directory of a tiny Stable Diffusion; read only."""
    directory = tmp_path_factory.mktemp("models") / "cats"
    stable_diffusion().save_pretrained(directory)
    return directory


def into_the_cache(directory, hub, source):
    """As `hf download` leaves it."""
    place = hub / f"models--{source.replace('/', '--')}"
    shutil.copytree(directory, place / "snapshots" / "abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")


# Names


def test_every_family_has_a_name_and_every_name_a_family():
    assert {card.family for card in cards().values()} == {*(family.name for family in FAMILIES), FAMILY}


SDXL = {
    "cross_attention_dim": 2048,
    "attention_head_dim": [5, 10, 20],
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
BLOCKS = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D", *("DownBlock2D",) * 2)}
OWN = ["tiny-imagenet-64", *(f"tiny-imagenet-64-{kind}" for kind in ("latent", "dit", "flow"))]
"""In `weights/` of the repository."""

PUBLISHED_NETWORKS = {
    "ddpm-cifar10-32": lambda: diffusers.UNet2DModel(
        block_out_channels=(128, 256, 256, 256),
        attention_head_dim=None,
        up_block_types=(*("UpBlock2D",) * 2, "AttnUpBlock2D", "UpBlock2D"),
        **BLOCKS,
    ),
    "stable-diffusion-1.5": lambda: diffusers.UNet2DConditionModel(cross_attention_dim=768),
    "stable-diffusion-2.1": lambda: diffusers.UNet2DConditionModel(
        cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20], use_linear_projection=True
    ),
    "sdxl": lambda: diffusers.UNet2DConditionModel(**SDXL),
    "pixart-alpha-512": lambda: diffusers.PixArtTransformer2DModel(sample_size=64, caption_channels=4096),
    "stable-diffusion-3-medium": lambda: diffusers.SD3Transformer2DModel(
        num_layers=24, num_attention_heads=24, caption_projection_dim=1536, pos_embed_max_size=192
    ),
    "flux-dev": lambda: diffusers.FluxTransformer2DModel(guidance_embeds=True),
    "adm-cifar10-32": lambda: OpenAIUNet(published("cifar10_uncond_50M_500K").architecture(1000)),
    "adm-imagenet-64": lambda: OpenAIUNet(published("64x64_diffusion").architecture(1000)),
    "adm-imagenet-256-uncond": lambda: OpenAIUNet(published("256x256_diffusion_uncond").architecture(1000)),
}


@pytest.mark.parametrize("name", PUBLISHED_NETWORKS)
def test_parameters_are_those_of_the_published_configs(name):
    """Reference: the networks, made without weights from what their authors published of their shape."""
    with accelerate.init_empty_weights():
        count = sum(weight.numel() for weight in PUBLISHED_NETWORKS[name]().parameters())
    number, unit = cards()[name].parameters.split()
    digits = len(number.partition(".")[2])
    assert round(count / {"M": 1e6, "B": 1e9}[unit], digits) == float(number)


def test_models_lists_them_all(unsample):
    listed = unsample("models").out
    assert all(name in listed for name in cards())
    found = {row["name"]: row for row in json.loads(unsample("models", "--json").out)}
    assert set(found) == set(cards())
    assert [name for name, row in found.items() if row["present"]] == ["tiny-imagenet-32", "tiny-imagenet-32-v", *OWN]
    assert found["stable-diffusion-1.5"]["source"] == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_a_name_goes_to_the_hub_and_says_so_when_it_is_not_there(unsample):
    said = one_line(unsample("sample", "--model", "stable-diffusion-1.5"))
    assert "'stable-diffusion-1.5' is not here" in said
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5" in said
    said = one_line(unsample("inspect", "flux-dev"))
    assert "black-forest-labs/FLUX.1-dev" in said


def test_a_published_file_that_is_not_there(unsample):
    said = one_line(unsample("sample", "--model", "adm-imagenet-64"))
    assert all(word in said for word in ("64x64_diffusion.pt", "UNSAMPLE_MODELS", "guided-diffusion"))


def test_a_name_in_the_cache_of_the_hub(saved, tmp_path):
    into_the_cache(saved, tmp_path / "hub", cards()["stable-diffusion-1.5"].source)
    assert cards()["stable-diffusion-1.5"].present
    model = us.load("stable-diffusion-1.5", device="cpu", size=(16, 24))
    assert (model.name, model.shape) == ("stable-diffusion-1.5", (4, 8, 12))
    assert us.load(cards()["stable-diffusion-1.5"].source, device="cpu").digest == model.digest
    assert inspect_model("stable-diffusion-1.5").shape == (4, 8, 8)


def test_configs_alone_are_no_weights(saved, tmp_path):
    """What `inspect` downloads does not make a model present."""
    into_the_cache(saved, tmp_path / "hub", cards()["sdxl"].source)
    for file in (tmp_path / "hub").rglob("*.safetensors"):
        file.unlink()
    assert not cards()["sdxl"].present


def test_names_in_a_folder_of_models(saved, tmp_path, monkeypatch):
    shutil.copytree(saved, tmp_path / "models" / "sdxl")
    file = checkpoint(tmp_path / "models", stem="64x64_diffusion")
    monkeypatch.setenv("UNSAMPLE_MODELS", str(tmp_path / "models"))
    assert cards()["sdxl"].present
    assert us.load("sdxl", device="cpu").family == "Stable Diffusion"
    assert us.load("adm-imagenet-64", device="cpu").name == "adm-imagenet-64"
    monkeypatch.delenv("UNSAMPLE_MODELS")
    assert not cards()["adm-imagenet-64"].present
    shutil.copy(file, file.name)  # into the current folder
    assert cards()["adm-imagenet-64"].path == Path(file.name)


# Inspect


def test_what_an_inspection_says(saved, tmp_path):
    """Reference: the configs, as written in the builders."""
    found = inspect_model(str(saved), size=(16, 24))
    assert (found.shape, found.image_size) == ((4, 8, 12), (16, 24))
    assert found.codec == {"kind": "AutoencoderKL", "scale": 2, "factor": 0.18215, "shift": 0.0}
    assert found.schedule["first_alpha_bar"] == pytest.approx(1 - 0.00085)
    assert found.schedule["last_alpha_bar"] == pytest.approx(0.00466, abs=1e-5)  # of Stable Diffusion
    assert (found.prediction, found.spacing, found.steps_offset, found.clean) == ("epsilon", "leading", 1, "first")
    assert (found.conditions, found.guidance, found.notes) == ("prompts", "classifier-free", ())
    flow = inspect_model(flux(guided=True, scheduler={"shift": 3.0}))
    assert (flow.schedule["kind"], flow.schedule["shift"], flow.spacing) == ("flow", 3.0, None)
    assert (flow.codec["shift"], flow.guidance) == (0.12, "an input of the network")
    classes = inspect_model(dit())
    assert (classes.conditions, classes.guidance) == ("1000 classes, none", "classifier-free")
    assert "learned variance is dropped" in classes.notes[0]
    stage = inspect_model(stage_one())
    assert "thresholding is ignored" in " ".join(stage.notes)
    assert "learned variance is dropped" in " ".join(stage.notes)


def test_names_of_classes_are_read_too(tiny):
    found = inspect_model(tiny)
    assert (found.conditions, found.codec, found.guidance) == (
        "3 classes, none",
        {"kind": "none", "scale": 1},
        "classifier-free",
    )
    assert found.image_size == (8, 8)


def test_a_checkpoint_and_a_model_are_inspected_too(tmp_path, toy):
    file = checkpoint(tmp_path, class_cond=True)
    found = inspect_model(file)
    assert (found.name, found.family, found.pipeline, found.guidance) == ("tiny", FAMILY, "", "none")
    assert found.parameters == {"unet": sum(weight.numel() for weight in torch.load(file, weights_only=True).values())}
    assert any("learned variance" in note for note in found.notes)
    assert inspect_model(toy()).conditions == "3 classes, none"


def test_inspect_from_the_command_line(unsample, saved):
    found = json.loads(unsample("inspect", saved, "--size", "16x24", "--json").out)
    assert (found["shape"], found["image_size"], found["family"]) == ([4, 8, 12], [16, 24], "Stable Diffusion")
    shown = unsample("inspect", saved, "--size", "16x24").out
    assert "4x8x12" in shown
    assert "0.18215" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("inspect", "stable-difusion-1.5"), "did you mean 'stable-diffusion-1.5'"),
        (("inspect", "."), "not a diffusers pipeline"),
        (("inspect", "tiny-imagenet-32", "--size", "512"), "HEIGHTxWIDTH"),
        (("inspect", "tiny-imagenet-32", "--size", "30x32"), "multiples of"),
        (("inspect", "nobody/nothing"), "hf download nobody/nothing"),
        (("sample", "--size", "32x"), "HEIGHTxWIDTH"),
        (("sample", "--tiling"), "leave out tiling"),
        (("sample", "--model", "nobody.pt"), "no such file"),
    ],
)
def test_what_is_refused(unsample, arguments, says):
    assert says in one_line(unsample(*arguments))


def test_a_damaged_model_is_one_line(unsample, saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "text_encoder": ["os", "system"]}))
    assert "code that comes with a model is never run" in one_line(unsample("sample", "--model", copy))


# Options that load a model


@pytest.mark.parametrize(
    ("command", "size"),
    [
        (("invert", "x.jpg"), "--size"),
        (("sample",), "--size"),
        (("compare", "x.jpg"), "--size"),
        (("experiment", "run", "E1", "--size", "smoke"), "--image-size"),
        (("experiment", "all", "--size", "smoke"), "--image-size"),
    ],
)
def test_every_command_that_loads_a_model_takes_the_same_options(unsample, monkeypatch, tmp_path, command, size):
    given = {}
    monkeypatch.chdir(tmp_path)
    shutil.copy(us.pictures.read.demo_photos()[0], "x.jpg")

    def load(source, **settings):
        given.update(settings, source=source)
        raise us.ModelError("enough")

    monkeypatch.setattr(models, "load", load)
    options = (
        "--model",
        "a/b",
        size,
        "16x24",
        "--revision",
        "v1",
        "--variant",
        "fp16",
        "--device",
        "cpu",
        "--dtype",
        "bfloat16",
    )
    assert "enough" in one_line(unsample(*command, *options, "--offload", "--tiling"))
    expected = {"source": "a/b", "size": (16, 24), "revision": "v1", "variant": "fp16"}
    assert given == {**expected, "device": "cpu", "dtype": "bfloat16", "offload": True, "tiling": True}


# A text model, end to end


@pytest.fixture(scope="module")
def inverted(saved, tmp_path_factory):
    """A run of `invert` at a size that is not square, made where the model's path is a relative one; read only."""
    from unsample import cli

    photos = us.pictures.read.demo_photos()[:2]
    place = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "cats", *QUICK, "--guidance", 2, "--start", "0,1,auto", "--out", place)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(saved.parent)
        with pytest.raises(SystemExit):
            cli.main([*map(str, ("invert", *photos, *options))])
    return place


def test_a_run_of_a_text_model_is_complete(inverted, saved):
    manifest = Run.load(inverted).manifest
    assert manifest.status == "complete"
    assert manifest.settings["label"] == "a cat"
    assert manifest.settings["image_size"] == [16, 24]
    assert manifest.origin.source == str(saved)
    found = tensors(inverted)
    for start in ("0", "1", "auto"):
        assert found[f"latent.{start}"].shape == (2, 4, 8, 12)
        assert found[f"reconstruction.{start}"].shape == (2, 3, 16, 24)
    with Image.open(inverted / "overview.png") as picture:
        picture.verify()
    with Image.open(inverted / "reconstructions" / "0" / "0000-brushes.png") as picture:
        assert picture.size == (24, 16)
    page = (inverted / "report.html").read_text()
    assert "std plain" in page
    assert "a cat" in page
    assert "PSNR of the codec" in page


def test_a_run_of_a_latent_model_says_what_the_codec_alone_leaves(inverted, saved):
    """Reference: the model's own autoencoder, there and back."""
    codec = us.load(saved, device="cpu", size=(16, 24)).codec
    found = tensors(inverted)
    alone = codec.decode(codec.encode(found["images"]))
    torch.testing.assert_close(found["codec"], alone, rtol=1e-4, atol=1e-4)
    diagnosed = us.diagnose(found["latent.1"], images=found["images"], reconstruction=alone, codec=alone)
    assert diagnosed["PSNR of the codec"].value == diagnosed["PSNR"].value


def test_latents_are_those_of_the_library(inverted, saved):
    """Reference: the same inversion in Python."""
    model = us.load(saved, device="cpu", size=(16, 24))
    photos = us.pictures.read.read_photos(us.pictures.read.demo_photos()[:2], model.image_size)
    latent = us.invert(
        model,
        torch.stack([photo.pixels for photo in photos]),
        steps=4,
        start=us.ForwardNoise(steps=1),
        condition="a cat",
        guidance=2.0,
        items=[photo.id for photo in photos],
    ).latent
    torch.testing.assert_close(tensors(inverted)["latent.1"], latent, rtol=1e-4, atol=1e-4)


def test_reconstruct_finds_the_model_again(unsample, inverted, tmp_path):
    """The run was made elsewhere, with the model's path relative to there."""
    done = unsample("reconstruct", inverted, "--start", "1", "--out", tmp_path / "back")
    assert done.code == 0, done.err
    ours, theirs = tensors(tmp_path / "back"), tensors(inverted)
    torch.testing.assert_close(ours["samples"], theirs["reconstruction.1"], rtol=1e-4, atol=1e-4)
    assert Run.load(tmp_path / "back").manifest.origin == Run.load(inverted).manifest.origin


def test_reconstruct_with_another_prompt(unsample, inverted, tmp_path):
    for prompt in ("a cat", "a dog", "none"):
        done = unsample("reconstruct", inverted, "--prompt", prompt, "--guidance", 1, "--out", tmp_path / prompt)
        assert done.code == 0, done.err
    cat, dog, none = (tensors(tmp_path / p)["samples"] for p in ("a cat", "a dog", "none"))
    assert min(float((a - b).abs().max()) for a, b in ((cat, dog), (cat, none), (dog, none))) > 1e-4


def edited(run, copy, **changes):
    """A copy of a run with another manifest; ... removes an entry."""
    shutil.copytree(run, copy)
    manifest = {
        **json.loads((copy / "manifest.json").read_text()),
        **({"format": 1, "digest": ...} if changes else {}),
        **changes,
    }
    (copy / "manifest.json").write_text(json.dumps({key: value for key, value in manifest.items() if value is not ...}))
    return copy


def test_a_model_that_was_moved(unsample, inverted, saved, tmp_path):
    gone = {"source": str(tmp_path / "gone"), "size": [16, 24], "revision": "main", "variant": None}
    run = edited(inverted, tmp_path / "run", origin=gone)
    assert "gone" in one_line(unsample("reconstruct", run, "--out", tmp_path / "back"))
    moved = shutil.copytree(saved, tmp_path / "moved")
    done = unsample("reconstruct", run, "--model", moved, "--out", tmp_path / "back")
    assert done.code == 0, done.err
    assert Run.load(tmp_path / "back").manifest.origin.source == str(moved)
    stable_diffusion(block_out_channels=(8, 16)).save_pretrained(tmp_path / "other")
    said = one_line(unsample("reconstruct", run, "--model", tmp_path / "other", "--out", tmp_path / "more"))
    assert "other weights" in said


def test_an_origin_is_not_trusted(unsample, inverted, tmp_path):
    run = edited(inverted, tmp_path / "run", origin={"source": "x", "trust_remote_code": True})
    assert "is damaged" in one_line(unsample("reconstruct", run))


def test_a_run_of_an_earlier_version(unsample, tmp_path):
    """Its manifest has neither an origin nor a size of images; it is diagnosed, sampled back and resumed."""
    photo = us.pictures.read.demo_photos()[0]
    made = ("invert", photo, "--steps", 3, "--start", 1, "--out")
    assert unsample(*made, tmp_path / "run").code == 0
    settings = json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]
    del settings["image_size"]
    old = edited(tmp_path / "run", tmp_path / "old", origin=..., settings=settings)
    assert unsample("diagnose", old).code == 0
    done = unsample("reconstruct", old, "--out", tmp_path / "back")
    assert done.code == 0, done.err
    assert unsample(*made, old).code == 0


def test_a_run_is_the_same_wherever_its_model_lies_but_not_at_another_size(unsample, inverted, saved, tmp_path):
    run = edited(inverted, tmp_path / "run")
    moved = shutil.copytree(saved, tmp_path / "elsewhere" / "cats")
    photos = us.pictures.read.demo_photos()[:2]
    options = ("--model", moved, *QUICK, "--guidance", 2, "--start", "0,1,auto", "--out", run)
    done = unsample("invert", *photos, *options)
    assert done.code == 0, done.err
    assert "image_size" in one_line(unsample("invert", *photos, *options, "--size", "16x16"), reduced=True)


def test_a_prompt_is_encoded_once(unsample, saved, tmp_path, monkeypatch):
    """Once with and once without the prompt, however often settings are checked and pictures walked."""
    calls, real = [], transformers.CLIPTextModel.forward

    def counting(self, *given, **named):
        calls.append(1)
        return real(self, *given, **named)

    monkeypatch.setattr(transformers.CLIPTextModel, "forward", counting)
    options = ("--model", saved, *QUICK, "--guidance", 3, "--batch-size", 1, "--start", "0,1", "--out", tmp_path / "run")
    done = unsample("invert", *us.pictures.read.demo_photos()[:2], *options)
    assert done.code == 0, done.err
    assert len(calls) == 2


def test_sample_and_diagnose(unsample, inverted, saved, tmp_path):
    options = ("--model", saved, *QUICK, "--guidance", 3, "--negative", "a dog", "--count", 3, "--out", tmp_path / "drawn")
    done = unsample("sample", *options, "--offload")
    assert done.code == 0, done.err
    assert tensors(tmp_path / "drawn")["latent"].shape == (3, 4, 8, 12)
    with Image.open(tmp_path / "drawn" / "samples" / "0002-0002.png") as picture:
        assert picture.size == (24, 16)
    assert "std plain" in unsample("diagnose", inverted).out


def test_compare(unsample, saved, tmp_path):
    options = ("--model", saved, "--size", "16x24", "--nfe", 4, "--methods", "ddim,ab", "--out", tmp_path / "compared")
    done = unsample("compare", *us.pictures.read.demo_photos()[:2], *options)
    assert done.code == 0, done.err
    assert "ab, forward start 4%" in done.out
    assert (tmp_path / "compared" / "comparison.png").is_file()
