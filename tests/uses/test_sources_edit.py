"""`us.edit`, `us.variations` and `us.edit_attention` of live pipelines and pictures, and `us.edit` of a run on disk."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import unsample as us
from unsample.pictures.read import read_photo
from unsample.runs.directory import Origin
from unsample.runs.invert import invert_run
from unsample.runs.settings import InvertSettings
from unsample.uses import attention as editors
from unsample.uses import edit as editing
from unsample.uses import edit as edits
from unsample.uses import invert as inversion
from unsample.uses import variations as varying

from ..models.test_dit import LABELS, dit
from ..models.test_flux import flux
from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..models.test_stable_diffusion_xl import stable_diffusion_xl
from .test_sources import picture

GUIDE = Path(__file__).parents[2] / "docs" / "attention.md"
SETTINGS = {"steps": 4, "start": us.ForwardNoise(steps=1)}
FAMILIES = {
    "SD": (lambda: stable_diffusion(sample_size=16, **QUICK), ("a cat", "two dogs"), (16, 32)),
    "XL": (stable_diffusion_xl, ("a cat", "two dogs"), (16, 16)),
    "FLUX dev": (lambda: flux(guided=True), ("a cat", "two dogs"), (16, 32)),
    "FLUX schnell": (lambda: flux(guided=False), ("a cat", "two dogs"), (16, 32)),
    "DiT": (lambda: dit(labels=LABELS), ("goldfish", 5), (16, 16)),
}
"""How a pipeline is made, two conditions, and the size that a picture of 40x24 gets."""


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    make, conditions, size = FAMILIES[request.param]
    return make(), conditions, size


@pytest.fixture(scope="module")
def pipe():
    return stable_diffusion(sample_size=16)


def photograph(path, seed=0):
    picture(seed=seed).save(path)
    return path


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance)


def far(ours, theirs):
    assert float((ours - theirs).abs().max()) > 1e-3


# Edits


def test_an_edit_to_the_source_is_the_reconstruction(family):
    """Reference: `us.reconstruct` of the pipeline and picture; FLUX dev, told its guidance, cancels none of it."""
    pipe, (source, other), size = family
    guidance = 1.0 if us.load(pipe).distilled else 3.0
    back = us.reconstruct(pipe, picture(), condition=source, **SETTINGS)
    found = us.edit(pipe, picture(), source=source, to=source, guidance=guidance, **SETTINGS)
    assert found.images.shape == (1, 3, *size)
    close(found.images, back.images)
    assert found.nfe_up == back.trajectory.nfe
    far(us.edit(pipe, picture(), source=source, to=other, **SETTINGS).images, back.images)


def test_an_edit_of_a_pipeline_is_that_of_its_model(family, tmp_path):
    """Reference: `unsample.uses.edit.edit` of the Model of that size and the picture as `load_images` reads it."""
    pipe, (source, other), size = family
    model = us.load(pipe, size=size)
    images = us.load_images([photograph(tmp_path / "a.png")], size=size)
    told = {"source": source, "to": other, "strength": 0.5, "mask": "auto", **SETTINGS}
    wanted = editing.edit(model, images, **told)
    for given in (picture(), tmp_path / "a.png", images):
        found = us.edit(pipe, given, **told)
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.mask, wanted.mask)
        assert (found.nfe_up, found.nfe_down, found.nfe_mask) == (wanted.nfe_up, wanted.nfe_down, wanted.nfe_mask)
    assert torch.equal(us.edit(model, picture(), **told).images, wanted.images)


def test_a_trajectory_is_edited_again_and_again(family):
    """Reference: edits of the picture itself."""
    pipe, (source, other), _ = family
    there = us.invert(pipe, picture(), condition=source, keep=us.Keep("states"), **SETTINGS)
    for more in ({}, {"strength": 0.5}):
        found = us.edit(pipe, there, source=source, to=other, steps=4, **more)
        assert found.nfe_up == 0
        assert torch.equal(found.images, us.edit(pipe, picture(), source=source, to=other, **more, **SETTINGS).images)


def test_a_mask_picture_holds_what_it_covers(pipe, tmp_path):
    """Reference: the picture through the codec, left, where the mask is black."""
    white = np.zeros((24, 40), np.uint8)
    white[:, 20:] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    found = us.edit(pipe, picture(), source="a cat", to="a dog", mask=tmp_path / "mask.png", **SETTINGS)
    codec = us.edit(pipe, picture(), to="a dog", strength=0, **SETTINGS)
    assert found.mask.float().mean() == 0.5
    held = codec.trajectory.latent[..., :8]
    assert torch.equal(found.trajectory.states[0][..., :8], held)
    assert not bool(found.mask[..., :8].any())


@pytest.mark.parametrize("name", ["SD", "DiT"])
def test_variations_of_a_pipeline_are_those_of_its_model(name, tmp_path):
    """Reference: `unsample.uses.variations` of the Model of that size and the picture as `load_images` reads it."""
    make, (source, _), size = FAMILIES[name]
    pipe, several = make(), [photograph(tmp_path / f"{i}.png", i) for i in range(2)]
    told = {"seeds": 3, "start": us.ForwardNoise(steps=2), "steps": 4, "batch_size": 1}
    wanted = varying.variations(us.load(pipe, size=size), us.load_images(several, size=size), condition=source, **told)
    found = us.variations(pipe, several, prompt=source, **told)
    assert torch.equal(found.images, wanted.images)
    assert torch.equal(found.distances, wanted.distances)
    assert torch.equal(us.variations(pipe, several, condition=source, size=size, **told).images, wanted.images)


# Runs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A saved pipeline told by prompts, and two photographs."""
    place = tmp_path_factory.mktemp("small")
    stable_diffusion(**QUICK).save_pretrained(place / "sd")
    return place / "sd", [photograph(place / f"{i}.png", i) for i in range(2)]


def inverted(place, model, files, forward="1", *, size=None, **settings):
    """A run as `unsample invert` makes it, but for its report."""
    opened = us.load(str(model), size=size, device="cpu")
    asked = {"forward": tuple(forward.split(",")), "steps": 5, "batch_size": 1, **settings}
    told = InvertSettings.of(opened, origin=Origin(source=str(model), size=size), **asked)
    return invert_run(opened, [read_photo(file, opened.image_size) for file in files], told, place).path


def ids(files, size):
    return [read_photo(file, size).id for file in files]


RUNS = {
    "latents": ({}, {}),
    "states": ({"keep": "states"}, {"strength": 0.6, "mask": "auto"}),
    "corrections": ({"method": "exact:keep_eps=False"}, {}),
    "a memory": ({"method": "bdia"}, {}),
}
"""What a run is told, and an edit of it."""


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_is_edited_without_a_way_up(small, tmp_path, monkeypatch, kind):
    """Reference: the edit of the Model of the run's size and its pictures, inverted anew; items are the pictures' ids."""
    made, edit = RUNS[kind]
    model, files = small
    run = inverted(tmp_path / "run", model, files, size=(16, 24), label="a cat", seed=3, **made)
    method = us.parse_method(made.get("method", "auto"))
    opened = us.load(str(model), size=(16, 24), device="cpu")
    settings = {"source": "a cat", "steps": 5, "seed": 3, "start": us.ForwardNoise(steps=1), "batch_size": 1, **edit}
    images, items = us.load_images(files, size=(16, 24)), ids(files, (16, 24))
    wanted = us.edit(opened, images, to="a dog", method=method, items=items, **settings)
    assert wanted.nfe_up > 0

    def refuse(*_args, **_settings):
        raise AssertionError("a run is not inverted again")

    monkeypatch.setattr(edits, "invert", refuse)
    for place in (run, str(run)):
        found = us.edit(place, to="a dog", **edit)
        assert torch.equal(found.images, wanted.images)
        assert (found.nfe_up, found.nfe_down, found.nfe_mask) == (0, wanted.nfe_down, wanted.nfe_mask)
    assert (found.mask is None) == (kind != "states")
    whole = us.edit(run, to="a dog", batch_size=2, **edit)
    close(whole.images, wanted.images, 1e-4)  # convolutions of two round otherwise, and guidance enlarges it


def test_a_run_has_the_start_that_is_asked_for(tiny, tmp_path):
    """Reference: the Model's edits from each start. Without one it is the default start, or else the run's last."""
    files = [photograph(tmp_path / "a.png")]
    model, images = us.load(str(tiny), device="cpu"), us.load_images(files, size=(8, 8))
    settings = {"to": "bee", "source": "ant", "steps": 5, "items": ids(files, (8, 8))}
    wanted = {text: us.edit(model, images, start=start, **settings).images for text, start in STARTS.items()}
    far(wanted["2"], wanted["0"])
    run = inverted(tmp_path / "run", tiny, files, "2,0", label="ant")
    for text, start in STARTS.items():
        close(us.edit(run, to="bee", start=start).images, wanted[text])
    close(us.edit(run, to="bee").images, wanted["0"])
    other = inverted(tmp_path / "other", tiny, files, "4%,2", label="ant", method="ddim")
    settings |= {"method": us.DDIM()}
    close(us.edit(other, to="bee").images, us.edit(model, images, **settings).images)
    with pytest.raises(us.ArgumentError, match=r"has the starts 4%, 2, not ForwardNoise\(steps=3"):
        us.edit(other, to="bee", start=us.ForwardNoise(steps=3))


STARTS = {"2": us.ForwardNoise(steps=2), "0": us.FromImage()}


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"strength": 0.5}, us.ArgumentError, "kept no states, which a mask and a strength below 1 need: .* --keep states"),
        ({"mask": "auto"}, us.ArgumentError, "kept no states"),
        ({"steps": 20}, us.ArgumentError, "has its own steps: leave that out, or give pictures"),
        (
            {"source": "ant", "size": (8, 8), "method": us.DDIM(), "seed": 1, "items": ["a"]},
            us.ArgumentError,
            "has its own source, method, seed, items, size: leave that out",
        ),
        ({"images": picture()}, us.ArgumentError, "has its own pictures: leave out images, or give a model"),
        ({"to": "dog"}, us.UnknownNameError, "class 'dog'"),
    ],
)
def test_what_a_run_does_not_do(tiny, tmp_path, settings, kind, says):
    run = inverted(tmp_path / "run", tiny, [photograph(tmp_path / "a.png")], label="ant")
    with pytest.raises(kind, match=says) as caught:
        us.edit(run, **{"to": "bee", **settings})
    assert "\n" not in str(caught.value)


def test_runs_that_cannot_be_edited(unsample, tiny, tmp_path):
    files = [photograph(tmp_path / "a.png")]
    run = inverted(tmp_path / "run", tiny, files, label="ant")
    guided = inverted(tmp_path / "guided", tiny, files, label="ant", guidance=2)
    unsample("sample", "--model", tiny, "--steps", 2, "--count", 1, "--out", tmp_path / "sampled")
    (tmp_path / "empty").mkdir()
    moved = (run / "manifest.json").read_text()
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "manifest.json").write_text(moved.replace(str(tiny), str(tmp_path / "gone")))
    (tmp_path / "moved" / "latents.safetensors").write_bytes((run / "latents.safetensors").read_bytes())
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text(moved[:40])
    for place, kind, says in (
        (guided, us.ArgumentError, "was inverted with guidance 2: editing takes one of guidance 1"),
        (tmp_path / "sampled", us.RunError, "expected a run of 'invert', given one of 'sample'"),
        (tmp_path / "empty", us.ArgumentError, "expected images to edit: .* with a manifest.json, given .*empty"),
        (tiny, us.ArgumentError, "expected images to edit"),
        (us.load(str(tiny), device="cpu"), us.ArgumentError, "given a model alone"),
        (tmp_path / "moved", us.ModelError, "there is no such directory"),
        (tmp_path / "damaged", us.RunError, "the manifest of .* is damaged"),
    ):
        with pytest.raises(kind, match=says) as caught:
            us.edit(place, to="bee")
        assert "\n" not in str(caught.value)
    with pytest.raises(us.ModelError, match="is not a diffusers pipeline") as caught:
        us.edit(tmp_path / "empty", picture(), to="bee")
    assert "\n" not in str(caught.value)


def test_a_run_of_the_command_line_is_edited_where_it_lies(unsample, tiny, tmp_path, monkeypatch):
    """Reference: `unsample edit` of the same run; the folder is given relative to the current one."""
    files, run = [photograph(tmp_path / "a.png")], tmp_path / "run"
    told = ("--model", tiny, "--steps", 3, "--label", "ant", "--out")
    assert unsample("invert", *files, *told, run).code == 0
    assert unsample("edit", run, "--to", "bee", "--out", tmp_path / "edited").code == 0
    monkeypatch.chdir(tmp_path)
    close(us.edit("run", to="bee").images, load_file("edited/latents.safetensors")["edit0.0"])


def test_a_run_of_other_weights_is_refused(save_tiny, tmp_path):
    save_tiny(tmp_path / "model")
    run = inverted(tmp_path / "run", tmp_path / "model", [photograph(tmp_path / "a.png")])
    save_tiny(tmp_path / "model", unet={"layers_per_block": 2})
    with pytest.raises(us.RunError, match="made with other weights of 'model'; invert again with these"):
        us.edit(run, to=None)


def test_a_model_has_a_size(pipe):
    model = us.load(pipe)
    for call in (us.edit, us.variations):
        with pytest.raises(
            us.ArgumentError, match="size 16x32: model 'StableDiffusionPipeline' is one of 32x32; leave out size"
        ):
            call(model, picture(), size=(16, 32), **({"to": "a dog"} if call is us.edit else {}))


# Attention

EDITORS = {
    "MasaCtrl": us.MasaCtrl(from_step=1, from_layer=0),
    "StyleAligned": us.StyleAligned(),
    "prompt-to-prompt": us.PromptToPrompt(),
}
ATTENTION = {"source": "a cat", "targets": ["a dog", "a cow"], "guidance": 3.0}


def reweighted(pipeline):
    """Random attention looks everywhere alike, and says little."""
    for name, weight in pipeline.unet.named_parameters():
        if "attn" in name and name.endswith("weight"):
            weight.data *= 3
    return pipeline


@pytest.mark.parametrize(
    ("make", "name"), [*((stable_diffusion, name) for name in EDITORS), (stable_diffusion_xl, "StyleAligned")]
)
def test_a_picture_is_inverted_and_its_states_are_kept(make, name, tmp_path):
    """Reference: `invert` with its states kept, and `edit_attention` of that, by the Model of that size."""
    pipe, told = reweighted(make(sample_size=16)), {"editor": EDITORS[name], **ATTENTION}
    model, images = us.load(pipe, size=(16, 32)), us.load_images([photograph(tmp_path / "a.png")], size=(16, 32))
    there = us.invert(model, images, condition="a cat", keep=us.Keep("states"), seed=2, **SETTINGS)
    wanted = editors.edit_attention(model, there, source_latents=there.states, **told)
    before = dict(pipe.unet.attn_processors)
    found = us.edit_attention(pipe, tmp_path / "a.png", seed=2, **told, **SETTINGS)
    assert torch.equal(found.images, wanted.images)
    assert found.nfe == wanted.nfe + there.nfe
    assert pipe.unet.attn_processors == before
    free = us.edit_attention(pipe, picture(), seed=2, source_latents={}, **told, **SETTINGS)
    assert torch.equal(free.images, editors.edit_attention(model, there, **told).images)
    far(free.source, found.source)
    again = us.edit_attention(pipe, there.latent, steps=4, source_latents=there.states, **told)
    assert torch.equal(again.images, wanted.images)
    assert again.nfe == wanted.nfe


def test_the_source_comes_back_whatever_the_guidance(pipe):
    """Reference: the picture through the codec; from the picture itself its states end there."""
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0), "guidance": 7.5, "steps": 4, "start": us.FromImage()}
    found = us.edit_attention(pipe, picture(), **told)
    codec = us.edit(pipe, picture(), to="a dog", strength=0, **SETTINGS).images
    close(found.source, codec)
    far(us.edit_attention(pipe, picture(), source_latents={}, **told).source, codec)


def test_the_guide_runs_as_printed_and_both_its_ways_are_the_same(tmp_path, monkeypatch):
    """Reference: one block of docs/attention.md for the other; a small network has no layer 10."""
    monkeypatch.chdir(tmp_path)
    photograph(tmp_path / "cat.jpg")
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    found, names = [], {"pipe": stable_diffusion(**QUICK)}
    for block in blocks:
        exec(compile(block.replace("MasaCtrl()", "MasaCtrl(from_layer=0)"), GUIDE, "exec"), names)
        found.append(names["done"])
    assert torch.equal(found[0].images, found[1].images)
    assert found[0].nfe == found[1].nfe + names["there"].nfe


def test_a_mask_holds_the_targets_on_the_picture(pipe):
    """Reference: where the mask is false everywhere, and every state known, the targets are the source."""
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0), "steps": 4, "start": us.FromImage()}
    found = us.edit_attention(pipe, picture(), mask=torch.zeros(1, 8, 16, dtype=torch.bool), **told)
    close(found.targets, found.source.expand_as(found.targets))
    far(us.edit_attention(pipe, picture(), mask=torch.ones(1, 8, 16, dtype=torch.bool), **told).targets, found.targets)


def test_progress_counts_both_ways(pipe):
    seen = []
    told = {**ATTENTION, "editor": us.MasaCtrl(from_layer=0)}
    us.edit_attention(pipe, picture(), on_step=lambda *step: seen.append(step), **told, **SETTINGS)
    total = 3 + 3 * 4  # one picture up from level 1 of 4, three rows down from level 4
    assert seen == [(done, total) for done in (1, 2, 3, 6, 9, 12, 15)]


@pytest.mark.parametrize(
    ("latent", "settings", "kind", "says"),
    [
        ([picture(), picture()], {}, us.ArgumentError, "expected one picture, the source, given 2: edit one source at a time"),
        (picture(), {"targets": []}, us.ArgumentError, "a prompt for each target, given none"),
        (picture(), {"editor": us.MasaCtrl(from_layer=99)}, us.ArgumentError, "self-attention layers 0.."),
        (picture(), {"targets": ["a large dog"], "editor": us.PromptToPrompt()}, us.ArgumentError, "refine"),
        (picture(), {"inversion": us.parse_method("edit-friendly")}, us.ArgumentError, "passes no states on a way up"),
        (picture(), {"size": (9, 9)}, us.ArgumentError, "multiples of"),
        ("missing.png", {}, us.ImageError, "no such picture"),
    ],
)
def test_what_cannot_be_edited_is_refused_before_any_work(pipe, monkeypatch, latent, settings, kind, says):
    monkeypatch.setattr(inversion, "invert", None)
    with pytest.raises(kind, match=says) as caught:
        us.edit_attention(pipe, latent, **{"editor": us.MasaCtrl(from_layer=0), **ATTENTION, **SETTINGS, **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["FLUX dev", "DiT"])
def test_a_family_without_such_attention_is_refused_before_any_work(monkeypatch, name):
    make, _, _ = FAMILIES[name]
    monkeypatch.setattr(inversion, "invert", None)
    with pytest.raises(us.ModelError) as caught:
        us.edit_attention(make(), picture(), editor=us.StyleAligned(), **ATTENTION, **SETTINGS)
    assert "\n" not in str(caught.value)
