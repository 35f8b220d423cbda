"""`us.read_run`: the inversions of a run directory edited and sampled, against those of the Model and pictures."""

import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

import unsample as us
from unsample.pictures.read import read_photo
from unsample.runs.directory import Run
from unsample.runs.invert import invert_run
from unsample.runs.manifest import Origin
from unsample.runs.settings import InvertSettings

from ..models.test_stable_diffusion import QUICK, stable_diffusion
from ..uses.conftest import close, far, photograph


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A saved pipeline that takes prompts, and two photographs."""
    place = tmp_path_factory.mktemp("small")
    stable_diffusion(**QUICK).save_pretrained(place / "sd")
    return place / "sd", [photograph(place / f"{i}.png", i) for i in range(2)]


def inverted(place, model, files, forward="1", *, size=None, **settings):
    """A run as `unsample invert` makes it."""
    opened = us.load(str(model), size=size, device="cpu")
    settings = {"forward": tuple(forward.split(",")), "steps": 5, "batch_size": 1, **settings}
    made = InvertSettings.of(opened, origin=Origin(source=str(model), size=size), **settings)
    return invert_run(opened, [read_photo(file, opened.image_size) for file in files], made, place).path


def ids(files, size):
    return [read_photo(file, size).id for file in files]


RUNS = {
    "latents": ({}, {}),
    "states": ({"keep": "states"}, {"strength": 0.6, "mask": "auto"}),
    "corrections": ({"method": "exact:keep_eps=False"}, {}),
    "a memory": ({"method": "bdia"}, {}),
}
"""Settings of a run, and of an edit of it."""


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

    monkeypatch.setattr("unsample.uses.edit.walked_up", refuse)
    for place in (run, str(run)):
        found = us.read_run(place).edit(to="a dog", **edit)
        assert torch.equal(found.images, wanted.images)
        assert (found.nfe_up, found.nfe_down, found.nfe_mask) == (0, wanted.nfe_down, wanted.nfe_mask)
    assert (found.mask is None) == (kind != "states")
    whole = us.read_run(run).edit(to="a dog", batch_size=2, **edit)
    close(whole.images, wanted.images, 1e-4)  # convolutions of two round otherwise, and guidance enlarges it


def test_a_run_has_the_start_that_is_asked_for(tiny, tmp_path):
    """Reference: the Model's edits from each start; by default it is the run's last."""
    files = [photograph(tmp_path / "a.png")]
    model, images = us.load(str(tiny), device="cpu"), us.load_images(files, size=(8, 8))
    settings = {"to": "bee", "source": "ant", "steps": 5, "items": ids(files, (8, 8))}
    wanted = {text: us.edit(model, images, start=start, **settings).images for text, start in STARTS.items()}
    far(wanted["2"], wanted["0"])
    run = inverted(tmp_path / "run", tiny, files, "2,0", label="ant")
    for text, start in STARTS.items():
        for given in (text, start):
            close(us.read_run(run, start=given).edit(to="bee").images, wanted[text])
    close(us.read_run(run).edit(to="bee").images, wanted["0"])
    with pytest.raises(us.ArgumentError, match=r"has the starts 2, 0, not ForwardNoise\(steps=3"):
        us.read_run(run, start=us.ForwardNoise(steps=3))


def test_a_run_tells_where_it_started_and_what_it_cost(tiny, tmp_path):
    """Reference: what `us.invert` returns for the same pictures, by several starts and methods; the run's own count."""
    files = [photograph(tmp_path / f"{i}.png", i) for i in range(2)]
    model, images = us.load(str(tiny), device="cpu"), us.load_images(files, size=(8, 8))
    for start, method in (("4%", "ddim"), ("auto", "ddim"), ("2", "fixed-point"), ("0", "bdia")):
        run = inverted(tmp_path / start, tiny, files, start, method=method)
        wanted = us.invert(model, images, method=method, start=start, steps=5, items=ids(files, (8, 8)))
        found = us.read_run(run)
        told = ("start", "starts", "start_levels", "index", "nfe", "costs", "method", "schedule", "sampler")
        for name in told:
            assert getattr(found.trajectory, name) == getattr(wanted, name), (start, name)
        assert found.trajectory.nfe + found.sample().nfe == found.run.manifest.costs[start]["nfe"]
        assert len(repr(found)) < 500
        assert str(found.run.path) in repr(found)


def test_a_folder_of_runs_names_the_newest(tmp_path):
    for i in range(5):
        (tmp_path / f"run-{i}").mkdir()
        (tmp_path / f"run-{i}" / "manifest.json").write_text("")
        os.utime(tmp_path / f"run-{i}" / "manifest.json", (i, i))
    names = " or ".join(str(tmp_path / f"run-{i}") for i in (4, 3, 2))
    for error, read in ((us.ArgumentError, us.read_run), (us.RunError, Run.load)):
        with pytest.raises(error, match=re.escape(f"did you mean {names}?")):
            read(tmp_path)


STARTS = {"2": us.ForwardNoise(steps=2), "0": us.FromImage()}


@pytest.mark.parametrize(
    ("settings", "kind", "says"),
    [
        ({"strength": 0.5}, us.ArgumentError, "kept no states, which a mask and a strength below 1 need: .* --keep states"),
        ({"mask": "auto"}, us.ArgumentError, "kept no states"),
        ({"to": "dog"}, us.UnknownNameError, "class 'dog'"),
    ],
)
def test_what_a_run_does_not_do(tiny, tmp_path, settings, kind, says):
    run = inverted(tmp_path / "run", tiny, [photograph(tmp_path / "a.png")], label="ant")
    with pytest.raises(kind, match=says) as caught:
        us.read_run(run).edit(**{"to": "bee", **settings})
    assert "\n" not in str(caught.value)


def test_runs_that_cannot_be_edited(unsample, tiny, tmp_path, rewrite):
    files = [photograph(tmp_path / "a.png")]
    run = inverted(tmp_path / "run", tiny, files, label="ant")
    guided = inverted(tmp_path / "guided", tiny, files, label="ant", guidance=2)
    unsample("sample", "--model", tiny, "--steps", 2, "--count", 1, "--out", tmp_path / "sampled")
    (tmp_path / "empty").mkdir()
    shutil.copytree(run, tmp_path / "moved")
    rewrite(tmp_path / "moved", lambda manifest: manifest["origin"].update(source=str(tmp_path / "gone")))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "manifest.json").write_text((run / "manifest.json").read_text()[:40])
    for place, kind, says in (
        (tmp_path / "sampled", us.RunError, "expected a run of 'invert', given one of 'sample'"),
        (tmp_path / "empty", us.ArgumentError, "no run in .*empty: expected a folder with a manifest.json"),
        (tiny, us.ArgumentError, "no run in"),
        (tmp_path / "moved", us.ModelError, "there is no such directory"),
        (tmp_path / "damaged", us.RunError, "the manifest of .* is damaged"),
    ):
        with pytest.raises(kind, match=says) as caught:
            us.read_run(place)
        assert "\n" not in str(caught.value)
    with pytest.raises(us.ArgumentError, match="was inverted with guidance 2: editing takes one of guidance 1"):
        us.read_run(guided).edit(to="bee")


@pytest.mark.parametrize("method", ["auto", "exact", "bdia"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_run_is_sampled_back(tiny, tmp_path, method, guidance):
    """Reference: the reconstructions that the run stored, and `us.sample` under another condition."""
    run = inverted(tmp_path / "run", tiny, [photograph(tmp_path / "a.png")], label="ant", method=method, guidance=guidance)
    found = us.read_run(run)
    assert torch.equal(found.sample().images, load_file(run / "latents.safetensors")["reconstruction.1"])
    there, settings = found.trajectory, {"grid": found.settings.grid(found.model), "condition": "bee", "guidance": 3.0}
    sampler = found.settings.inversion.sampler
    wanted = us.sample(found.model, there.latent, method=sampler, stored=there.stored, **settings)
    assert torch.equal(found.sample(condition="bee", guidance=3.0).images, wanted.images)


def test_a_run_of_the_command_line_is_edited_where_it_lies(unsample, tiny, tmp_path, monkeypatch):
    """Reference: `unsample edit` of the same run; the folder is given relative to the current one."""
    files, run = [photograph(tmp_path / "a.png")], tmp_path / "run"
    settings = ("--model", tiny, "--steps", 3, "--label", "ant", "--out")
    assert unsample("invert", *files, *settings, run).code == 0
    assert unsample("edit", run, "--to", "bee", "--out", tmp_path / "edited").code == 0
    monkeypatch.chdir(tmp_path)
    close(us.read_run("run").edit(to="bee").images, load_file("edited/latents.safetensors")["edit0.0"])


def test_a_run_of_other_weights_is_refused(save_tiny, tmp_path):
    save_tiny(tmp_path / "model")
    run = inverted(tmp_path / "run", tmp_path / "model", [photograph(tmp_path / "a.png")])
    save_tiny(tmp_path / "model", unet={"layers_per_block": 2})
    with pytest.raises(us.RunError, match="made with other weights of 'model'; invert again with these"):
        us.read_run(run)
