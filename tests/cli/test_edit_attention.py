"""`unsample edit --editor`, on a small random Stable Diffusion; references: the plain edit, and `us.edit_attention`.

In double precision, where batches of another size change nothing that could be seen.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample.core.rng import ItemNoise
from unsample.pictures.read import read_photos
from unsample.runs import citations as references
from unsample.runs import edit as _edits
from unsample.runs import invert as jobs
from unsample.uses import attention as editors
from unsample.uses.attention import MasaCtrl, PromptToPrompt, StyleAligned, parse_editor
from unsample.uses.invert import invert

from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..uses.test_attention import sharp
from .conftest import tensors

STEPS = 5
FEW = ("--steps", STEPS, "--start", 2, "--batch-size", 1, "--dtype", "float64")
SOURCE = (*FEW, "--from", "a cat")
TO = ("--to", "a dog", "--to", "a cow")
ON = {
    "masactrl": ("masactrl:from_step=1:from-layer=1", MasaCtrl(1, 1)),
    "stylealigned": ("stylealigned:share=0.5:fresh=False", StyleAligned(share=0.5)),
    "p2p": ("p2p:cross_until=1:words=a:weights=2", PromptToPrompt(cross_until=1.0, words=("a",), weights=(2.0,))),
}
OFF = {
    f"masactrl:from_step={STEPS}:from_layer=0": ("--strength", 0.6, "--mask", "auto"),
    "stylealigned:share=0:fresh=False": ("--mask", "mask.png", "--method", "ddim"),
    "p2p:cross_until=0:self_until=0": ("--guidance", 1, "--seeds", 2),
}
"""An editor that does nothing, and what else is asked for."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("models") / "sd"
    sharp(stable_diffusion(**QUICK)).save_pretrained(place)
    return place


@pytest.fixture
def given(photos, saved):
    return (*photos[:2], "--model", saved)


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """Sheets and reports take half of the time, and are looked at elsewhere."""
    monkeypatch.setattr(jobs, "write_report", lambda *given: None)
    monkeypatch.setattr(_edits, "edit_sheet", lambda *given: b"")


@pytest.fixture
def white(tmp_path):
    """A mask of the left half."""
    grey = np.zeros((16, 16), np.uint8)
    grey[:, :8] = 255
    Image.fromarray(grey).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


def costs(place):
    return json.loads((place / "manifest.json").read_text())["results"]["nfe"]


def close(ours, theirs):
    torch.testing.assert_close(ours.to(theirs), theirs, rtol=0, atol=1e-6)


def far(ours, theirs):
    assert float((ours - theirs).abs().amax((1, 2, 3)).min()) > 1e-3


@pytest.mark.parametrize("off", OFF)
def test_switched_off_an_editor_is_the_plain_edit(unsample, given, white, tmp_path, off):
    """Reference: the same command without --editor, every tensor of it."""
    more = [white if one == "mask.png" else one for one in OFF[off]]
    plain = unsample("edit", *given, *SOURCE, *TO, *more, "--out", tmp_path / "plain")
    done = unsample("edit", *given, *SOURCE, *TO, *more, "--editor", off, "--out", tmp_path / "run", "--json")
    assert (plain.code, done.code) == (0, 0), plain.err + done.err
    ours, theirs = tensors(tmp_path / "run"), tensors(tmp_path / "plain")
    assert ours.keys() == theirs.keys()
    for name in ours:
        if not name.startswith("nfe"):
            close(ours[name], theirs[name])
    assert json.loads(done.out)["settings"]["editor"] == off
    assert costs(tmp_path / "run") == {**costs(tmp_path / "plain"), "source": costs(tmp_path / "plain")["edit"]}


@pytest.mark.parametrize("name", ON)
def test_edits_are_the_librarys_with_the_source_on_its_own_states(unsample, given, photos, saved, tmp_path, name):
    """Reference: `us.invert` with states, and `edit_attention` of each picture."""
    typed, editor = ON[name]
    plainly = ("--start", 0, "--method", "ddim")
    done = unsample("edit", *given, *SOURCE, *TO, *plainly, "--editor", typed, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert "edit 10, source 10" in done.out
    found, model = tensors(tmp_path / "run"), us.load(str(saved), device="cpu", dtype="float64")
    for i, photo in enumerate(read_photos(photos[:2], model.image_size)):
        settings = {"steps": STEPS, "method": us.DDIM(), "start": us.FromImage(), "keep": us.Keep("states")}
        there = invert(model, photo.pixels[None], condition="a cat", **settings)
        known = {"source": "a cat", "to": TO[1::2], "guidance": 3.0, "negative": "a cat", "source_latents": there.states}
        expected = editors.edit_attention(model, there, editor=editor, **known)
        back = us.sample(model, there.latent, steps=STEPS, condition="a cat").images
        close(found["reconstruction.0"][i], back[0])
        for target in range(2):
            close(found[f"edit{target}.0"][i], expected.targets[target])
    off = MasaCtrl(STEPS, 0)
    far(expected.targets, editors.edit_attention(model, there, editor=off, **known).targets)


def test_below_a_forward_start_the_source_is_on_the_line_of_its_noise(unsample, given, monkeypatch, tmp_path):
    """Reference: alpha x0 + sigma n at every level below the start, n of the state there; the clean state at the end."""
    seen = []
    real = editors.edit_attention

    def looking(model, latent, **named):
        seen.append((model, named["grid"], named["source_latents"]))
        return real(model, latent, **named)

    monkeypatch.setattr("unsample.uses.attention.pictures.edit_attention", looking)
    more = ("--start", 3, "--editor", "masactrl:from_layer=0", "--limit", 1)
    done = unsample("edit", *given, *SOURCE, *TO, *more, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    ((model, grid, states),) = seen
    assert sorted(states) == list(range(STEPS + 1))
    noise = (states[3] - grid[3].alpha * states[0]) / grid[3].sigma
    for i in (1, 2):
        close(states[i], grid[i].alpha * states[0] + grid[i].sigma * noise)
    image = tensors(tmp_path / "run")["images"]
    close(states[0], model.codec.encode(image).detach())


def test_style_aligned_begins_at_noise_of_each_seed_picture_and_target(unsample, given, photos, saved, tmp_path):
    """Reference: noise of (seed, picture's id, target), and `us.sample` from there, since the editor is off."""
    off, settings = "stylealigned:share=0", ("--seeds", 2, "--seed", 4)
    done = unsample("edit", *given, *SOURCE, *TO, *settings, "--editor", off, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    found, model = tensors(tmp_path / "run"), us.load(str(saved), device="cpu", dtype="float64")
    for i, photo in enumerate(read_photos(photos[:2], model.image_size)):
        for seed in (4, 5):
            for target, name in enumerate(TO[1::2]):
                noise = ItemNoise(seed, [photo.id]).draw((1, *model.shape), stream=f"edit {name}")
                own = us.sample(model, noise, steps=STEPS, condition=name, guidance=3.0, negative="a cat").images
                close(found[f"edit{target}.{seed}"][i], own[0])
    only = unsample("edit", *given, *SOURCE, "--to", "a cow", "--seed", 4, "--editor", off, "--out", tmp_path / "only")
    assert only.code == 0, only.err
    close(tensors(tmp_path / "only")["edit0.4"], found["edit1.4"])


@pytest.mark.filterwarnings("default:the mask lets nothing change")
def test_a_mask_holds_the_background_of_what_begins_at_noise(unsample, given, saved, white, tmp_path):
    """Reference: the autoencoder's own picture, which an empty mask gives everywhere."""
    Image.new("L", (16, 16)).save(tmp_path / "black.png")
    arguments = ("edit", *given, *SOURCE, *TO, "--editor", "stylealigned")
    done = unsample(*arguments, "--mask", tmp_path / "black.png", "--out", tmp_path / "none")
    assert (done.code, "the mask lets nothing change" in done.err) == (0, True)
    assert unsample(*arguments, "--mask", white, "--out", tmp_path / "half").code == 0
    none, half = tensors(tmp_path / "none"), tensors(tmp_path / "half")
    codec = us.load(str(saved), device="cpu", dtype="float64").codec
    close(none["edit0.0"], codec.decode(codec.encode(none["images"])).detach())
    far(half["edit0.0"], none["edit0.0"])
    assert half["mask0.0"].float().mean() == 0.5


def test_a_run_that_kept_its_states_is_edited_as_pictures_are(unsample, given, tmp_path):
    """Reference: the pictures themselves."""
    there = unsample("invert", *given, *FEW, "--label", "a cat", "--keep", "states", "--out", tmp_path / "there")
    assert there.code == 0, there.err
    more = (*TO, "--editor", ON["masactrl"][0])
    done = unsample("edit", tmp_path / "there", *more, "--out", tmp_path / "run")
    direct = unsample("edit", *given, *SOURCE, *more, "--out", tmp_path / "direct")
    assert (done.code, direct.code) == (0, 0), done.err + direct.err
    assert "up 0," in done.out
    for name in ("reconstruction.0", "edit0.0", "edit1.0"):
        close(tensors(tmp_path / "run")[name], tensors(tmp_path / "direct")[name])


def test_an_interrupted_run_goes_on_where_it_stopped(unsample, given, tmp_path, interrupt):
    """Reference: the run that was not interrupted."""
    arguments = ("edit", *given, *SOURCE, *TO, "--editor", "stylealigned", "--out")
    unsample(*arguments, tmp_path / "whole")
    calls = interrupt(_edits, "attended", 2)
    assert unsample(*arguments, tmp_path / "run").code == 130
    assert unsample(*arguments, tmp_path / "run").code == 0
    assert len(calls) == 3
    for name, tensor in tensors(tmp_path / "whole").items():
        assert torch.equal(tensors(tmp_path / "run")[name], tensor)
    other = unsample(*arguments[:-3], "--editor", "masactrl:from_layer=0", "--out", tmp_path / "run")
    assert (other.code, "was made with other editor" in other.err) == (2, True)


def test_a_run_cites_its_editor(unsample, given, tmp_path):
    more = ("--strength", 0.6, "--mask", "auto", "--editor", "masactrl:from_layer=0", "--method", "ddim", "--start", 0)
    done = unsample("edit", *given, *SOURCE, *TO, *more, "--limit", 1, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    cited = re.findall(r"^@\w+\{(\w+),", unsample("cite", tmp_path / "run").out, re.M)
    inversion = ["unsample", "song2021ddim", "dhariwal2021beat"]
    guidance = ["meng2022sdedit", "ho2022cfg", "miyake2023negative", "couairon2023diffedit"]
    assert cited == [*inversion, "cao2023masactrl", "ju2024pnp", *guidance]


REFUSED = {
    "another editor": (
        ("--editor", "masa"),
        "unknown editor 'masa': did you mean 'masactrl'? Expected one of masactrl, p2p, prompt, stylealigned",
    ),
    "another option": (("--editor", "masactrl:step=4"), "unknown option of editor 'masactrl': 'step'"),
    "options of none": (("--editor", "prompt:fresh=True"), "unknown option of editor 'prompt': 'fresh'"),
    "no value": (("--editor", "p2p:kind"), "options like p2p:name=value"),
    "not a number": (
        ("--editor", "masactrl:from_step=late"),
        "from_step of MasaCtrl as a whole number, given 'late'",
    ),
    "out of range": (("--editor", "stylealigned:share=2"), "share is a share, 0 to 1, given 2.0"),
    "kind": (
        ("--editor", "p2p:kind=swap"),
        "kind of prompt-to-prompt 'swap': expected one of refine, replace, reweight",
    ),
    "layer": (("--editor", "masactrl"), "this network has self-attention layers 0..2"),
    "prompts": (("--editor", "p2p", "--to", "a bird"), "as many tokens"),
    "no word": (("--editor", "p2p:words=cat:weights=2"), "unknown word"),
    "strength": (
        ("--editor", "stylealigned", "--strength", 0.6),
        "leave out --strength, or give the editor the option fresh=False",
    ),
    "method": (("--editor", "p2p", "--method", "edict"), "stores more than that: choose another --method"),
    "noise": (("--editor", "p2p", "--method", "edit-friendly"), "stores more than that: choose another --method"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_mistakes_are_one_line_before_any_work(untyped, unsample, given, tmp_path, monkeypatch, name):
    more, says = REFUSED[name]
    monkeypatch.setattr(_edits, "edit", None)
    done = unsample("edit", *given, *SOURCE, *TO, *more, "--out", tmp_path / "run")
    *notes, line = done.err.strip().splitlines()
    assert done.code == 2
    assert len(notes) <= 1  # of the size that pictures are reduced to
    assert says in line
    assert not (tmp_path / "run").exists()


def test_models_without_text_attention_are_refused_before_any_work(unsample, photos, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(_edits, "edit", None)
    more = ("--model", tiny, "--from", "a cat", *TO, "--editor", "masactrl", "--out", tmp_path / "run")
    done = unsample("edit", *photos, *more)
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "attention is edited in U-Nets of Stable Diffusion 1, 2 and XL" in done.err
    assert not (tmp_path / "run").exists()
    inverted = unsample(
        "invert", *photos, "--model", tiny, "--limit", 1, "--steps", 2, "--start", 1, "--out", tmp_path / "there"
    )
    assert inverted.code == 0, inverted.err
    done = unsample("edit", tmp_path / "there", "--to", "bee", "--editor", "p2p")
    assert (done.code, len(done.err.strip().splitlines())) == (2, 1)
    assert "with a model of Stable Diffusion 1, 2 or XL, invert with --keep states" in done.err


def test_every_editor_is_named_and_cited():
    assert set(references.EDITORS) == set(editors.EDITORS)
    assert set(references.EDITORS.values()) <= set(references.entries())
    assert parse_editor("prompt") is None
    assert parse_editor("p2p:kind=refine") == editors.Named(PromptToPrompt("refine"), False)
    assert parse_editor("stylealigned:scale=1:adain=False") == editors.Named(StyleAligned(adain=False, scale=1.0), True)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 16, 16)])
def test_masks_of_other_shapes_are_refused(saved, shape):
    model = us.load(str(saved), device="cpu")
    states = {index: us.draw_noise(model, 1) for index in range(51)}
    settings = {
        "guidance": 1.0,
        "editor": MasaCtrl(0, 0),
        "source": "a cat",
        "to": ["a dog", "a cow"],
        "source_latents": states,
    }
    with pytest.raises(us.errors.ArgumentError, match=r"expected a mask of shape \(1 or 2, 8, 8\)"):
        editors.edit_attention(model, us.draw_noise(model, 1), mask=torch.ones(shape, dtype=torch.bool), **settings)
