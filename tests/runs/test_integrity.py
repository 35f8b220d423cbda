"""Runs notice what was damaged since, repair it when the command is given again, and never write where something else lies."""

from __future__ import annotations

import json
import os
import re
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import unsample as us
from unsample.pictures.read import demo_photos
from unsample.runs import edit as editing
from unsample.runs import invert as jobs
from unsample.runs import sample as sampling
from unsample.runs.directory import Run
from unsample.runs.invert import invert_run
from unsample.runs.names import place_of
from unsample.runs.parts import joined
from unsample.runs.settings import InvertSettings
from unsample.runs.tensor_file import Part

PHOTOS = demo_photos()[:3]


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Without the pictures, which take longer than all the rest."""
    for name in ("overview", "sheet", "strip"):
        monkeypatch.setattr(f"unsample.pictures.{name}", lambda *given, **named: b"picture")
    monkeypatch.setattr("unsample.runs.edit.edit_sheet", lambda *given, **named: b"picture")


@pytest.fixture
def commands(tiny, tmp_path):
    """Each command that makes a run, as it is typed."""
    how = ("--model", tiny, "--steps", 2)
    return {
        "invert": ("invert", *PHOTOS, *how, "--start", 1, "--keep", "states", "--out", tmp_path / "run"),
        "sample": ("sample", *how, "--count", 2, "--out", tmp_path / "run"),
        "edit": ("edit", *PHOTOS, *how, "--start", 1, "--to", "bee", "--out", tmp_path / "run"),
        "variations": ("variations", *PHOTOS, *how, "--start", 1, "--seeds", 2, "--out", tmp_path / "run"),
        "interpolate": ("interpolate", *PHOTOS, *how, "--frames", 3, "--animation", "none", "--out", tmp_path / "run"),
        "compare": ("compare", *PHOTOS[:1], *how[:2], "--nfe", 3, "--methods", "ddim", "--out", tmp_path / "run"),
    }


COMMANDS = ("invert", "sample", "edit", "variations", "interpolate", "compare")


def refused(done):
    """The one line of a command that was refused, after what it may have noted on its pictures."""
    assert done.code == 2, done.err
    *notes, line = done.err.strip().splitlines()
    assert len(notes) <= 1, done.err
    assert line.startswith("unsample: ")
    return line


def contents(place):
    return {
        file.relative_to(place).as_posix(): file.read_bytes()
        for file in place.rglob("*")
        if file.is_file() and not re.match(r"manifest\.json|report\.html|comparison\.", file.name)  # these have times
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_deleted_or_damaged_is_made_again(unsample, commands, tmp_path, command):
    """Reference: the run as it was."""
    place = tmp_path / "run"
    assert unsample(*commands[command]).code == 0
    whole, listed = contents(place), Run.load(place).files
    assert listed
    assert unsample(*commands[command]).code == 0
    assert contents(place) == whole
    names = sorted(name for name in listed if name in whole)
    for name in [*names[:1], *names[-1:], *(name for name in names if name.endswith("safetensors"))]:
        (place / name).unlink()
        assert unsample(*commands[command]).code == 0
        assert contents(place) == whole, name
        flipped = bytearray(whole[name])
        flipped[-1] ^= 1
        (place / name).write_bytes(bytes(flipped))
        assert unsample(*commands[command]).code == 0
        assert contents(place) == whole, name


def test_a_flipped_bit_and_an_edited_manifest_are_noticed_where_they_are_read(unsample, commands, tmp_path):
    place = tmp_path / "run"
    assert unsample(*commands["invert"]).code == 0
    for name, commands in {
        "latents.safetensors": [("diagnose", place), ("reconstruct", place), ("edit", place, "--to", "bee")],
        "manifest.json": [("diagnose", place), ("reconstruct", place), ("edit", place, "--to", "bee"), ("cite", place)],
        "trajectories/1.000000.safetensors": [("edit", place, "--to", "bee", "--mask", "auto")],
    }.items():
        whole = (place / name).read_bytes()
        edited = whole.replace(b'"1"', b'"0"') if name == "manifest.json" else whole[:-1] + bytes([whole[-1] ^ 1])
        assert edited != whole
        (place / name).write_bytes(edited)
        for command in commands:
            assert "damaged" in refused(unsample(*command))
        (place / name).write_bytes(whole)
    assert unsample("diagnose", place).code == 0


@pytest.mark.parametrize("edit", [lambda manifest: None, lambda manifest: manifest["settings"].update(forward=["0"])])
def test_a_manifest_without_its_digest_is_not_one_of_an_older_version(unsample, commands, tmp_path, edit):
    """Which its format says; those of format 1 never had one."""
    place = tmp_path / "run"
    assert unsample(*commands["invert"]).code == 0
    manifest = json.loads((place / "manifest.json").read_text())
    del manifest["digest"]
    edit(manifest)
    (place / "manifest.json").write_text(json.dumps(manifest))
    for command in (("diagnose", place), ("cite", place), ("reconstruct", place), commands["invert"]):
        assert "damaged" in refused(unsample(*command))


def test_a_part_without_its_digest_is_made_again(unsample, commands, tmp_path, interrupt):
    """Reference: the run that was never interrupted."""
    *how, place = commands["sample"]
    assert unsample(*how, tmp_path / "whole").code == 0
    interrupt(Run, "finish", 1)
    assert unsample(*how, place).code == 130
    (part,) = (place / "parts").iterdir()
    save_file({name: tensor + 1 for name, tensor in load_file(part).items()}, part, {"unsample": '{"nfe": 2, "seconds": 0.0}'})
    assert unsample(*how, place).code == 0
    found, whole = (load_file(at / "latents.safetensors")["samples"] for at in (place, tmp_path / "whole"))
    assert torch.equal(found, whole)


@pytest.mark.parametrize("other", COMMANDS)
def test_no_command_writes_into_the_run_of_another(unsample, commands, tmp_path, other):
    place = tmp_path / "run"
    assert unsample(*commands["sample" if other == "invert" else "invert"]).code == 0
    before = {**contents(place), "manifest": (place / "manifest.json").read_bytes()}
    assert "holds a run of" in refused(unsample(*commands[other]))
    assert {**contents(place), "manifest": (place / "manifest.json").read_bytes()} == before


def test_comparisons_have_folders_of_their_own_and_experiments_too(unsample, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    how = ("--model", tiny, "--methods", "ddim", "--start", 1)
    for photo, nfe in ((PHOTOS[0], 3), (PHOTOS[1], 3), (PHOTOS[0], 4), (PHOTOS[0], 3)):
        assert unsample("compare", photo, *how, "--nfe", nfe).code == 0
    assert [place.name[:8] for place in (tmp_path / "runs").iterdir()] == ["compare-"] * 3
    given = next((tmp_path / "runs").iterdir())
    assert "was made with other" in refused(unsample("compare", PHOTOS[0], *how, "--nfe", 5, "--out", given))
    assert "not 'experiment'" in refused(
        unsample("experiment", "run", "E1", "--model", tiny, "--size", "smoke", "--out", given)
    )


@pytest.mark.parametrize("link", ["reconstructions", "parts", "trajectories"])
def test_links_that_lead_out_of_a_run_are_not_followed(unsample, commands, tmp_path, interrupt, link):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "letter.txt").write_text("dear")
    interrupt(jobs, "invert", 1)
    assert unsample(*commands["invert"]).code == 130
    shutil.rmtree(tmp_path / "run" / link, ignore_errors=True)
    (tmp_path / "run" / link).symlink_to(tmp_path / "elsewhere")
    assert "leads out" in refused(unsample(*commands["invert"]))
    assert os.listdir(tmp_path / "elsewhere") == ["letter.txt"]


def test_a_link_to_tensors_elsewhere_is_not_read(unsample, commands, tmp_path):
    assert unsample(*commands["invert"]).code == 0
    file = tmp_path / "run" / "latents.safetensors"
    file.rename(tmp_path / "moved")
    file.symlink_to(tmp_path / "moved")
    assert "leads out" in refused(unsample("diagnose", tmp_path / "run"))


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (1, 3)])
@pytest.mark.parametrize("command", ["invert", "edit", "variations", "sample"])
def test_a_run_goes_on_with_another_batch_size(unsample, commands, tmp_path, interrupt, command, first, then):
    """Reference: the run that was never interrupted. What was finished is not made again."""
    *how, place = commands[command]
    if command == "sample":
        how[how.index("--count") + 1] = 3
    assert unsample(*how, tmp_path / "whole").code == 0
    module = {"sample": sampling, "invert": jobs}.get(command, editing)
    made = interrupt(module, command, 3 if command == "edit" else 2)
    assert unsample(*how, place, "--batch-size", first).code == 130
    before = len(made)
    assert unsample(*how, place, "--batch-size", then).code == 0
    assert len(made) - before == -((first - 3) // then) * (2 if command == "edit" else 1)
    found, whole = (load_file(at / "latents.safetensors") for at in (place, tmp_path / "whole"))
    assert found.keys() == whole.keys()
    for key, tensor in whole.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-4)
    assert Run.load(place).manifest.settings["batch_size"] == then
    assert unsample(*how, place, "--batch-size", 16).code == 0


def test_the_states_of_batches_of_several_sizes_are_read_back(unsample, commands, tmp_path, interrupt):
    """Reference: the edit of a run of one batch."""
    *how, place = commands["invert"]
    assert unsample(*how, tmp_path / "whole").code == 0
    interrupt(jobs, "invert", 2)
    assert unsample(*how, place, "--batch-size", 1).code == 130
    assert unsample(*how, place, "--batch-size", 2).code == 0
    more = ("--to", "bee", "--strength", 0.5, "--out")
    for run, out in ((place, tmp_path / "a"), (tmp_path / "whole", tmp_path / "b")):
        done = unsample("edit", run, *more, out)
        assert done.code == 0, done.err
    a, b = (load_file(tmp_path / name / "latents.safetensors")["edit0.0"] for name in "ab")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_batch_size_and_device_are_not_in_the_name_of_a_folder(toy):
    ones = [InvertSettings.of(toy(), steps=3, forward=("1",), batch_size=size).key for size in (1, 2)]
    assert place_of(None, "invert", ones[0]) == place_of(None, "invert", ones[1])


def test_empty_settings_are_not_the_same_run(unsample, commands, tmp_path, rewrite):
    assert unsample(*commands["sample"]).code == 0
    rewrite(tmp_path / "run", lambda manifest: manifest.update(settings={}))
    assert "was made with other" in refused(unsample(*commands["sample"]))


@pytest.mark.parametrize("command", ["invert", "edit", "variations", "interpolate", "compare"])
def test_a_run_is_not_pictures(unsample, commands, tmp_path, command):
    assert unsample(*commands["invert"]).code == 0
    *how, _ = commands[command]
    line = refused(unsample(how[0], tmp_path / "run", *how[1:], tmp_path / "other"))
    assert "which is a run of unsample" in line
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("option", [("--dtype", "bfloat16"), ("--size", "16x16")])
def test_a_run_that_is_edited_has_its_own_size_and_precision(unsample, commands, tmp_path, option):
    assert unsample(*commands["invert"]).code == 0
    line = refused(unsample("edit", tmp_path / "run", "--to", "bee", *option, "--out", tmp_path / "other"))
    assert f"a run has its own {option[0]}" in line


@pytest.mark.filterwarnings("ignore:.* no effect")  # the wrapped edit seems to be called from here
def test_a_run_is_edited_in_batches_of_the_size_that_is_given(unsample, commands, tmp_path, interrupt):
    """Two edits of each of three pictures, one by one."""
    assert unsample(*commands["invert"]).code == 0
    calls = interrupt(editing, "edit", 100)
    done = unsample("edit", tmp_path / "run", "--to", "bee", "--batch-size", 1, "--out", tmp_path / "edited")
    assert done.code == 0, done.err
    assert len(calls) == 6


def test_corrections_of_batches_with_other_starts_are_joined():
    """A level that another batch alone corrects is zero."""
    corrections = [{f"stored.corrections.{level}": torch.ones(1, 1, 2, 2)} for level in (1, 2)]
    parts = [Part({"latent": torch.zeros(1, 1, 2, 2), **one}, 0, 0.0) for one in corrections]
    found = joined(parts)
    assert found["stored.corrections.1"].flatten(1).sum(1).tolist() == [4, 0]
    assert found["stored.corrections.2"].flatten(1).sum(1).tolist() == [0, 4]
    with pytest.raises(us.RunError, match="do not have the same tensors"):
        joined([*parts, Part({"latents": torch.zeros(1, 1, 2, 2)}, 0, 0.0)])


def test_pictures_of_an_older_run_are_drawn_and_listed(unsample, commands, tmp_path, rewrite):
    """An older run has no digests; given again, it has them."""
    assert unsample(*commands["invert"]).code == 0
    rewrite(tmp_path / "run", lambda manifest: [manifest.pop(name) for name in ("files", "drawn")])
    shutil.rmtree(tmp_path / "run" / "reconstructions")
    assert unsample("diagnose", tmp_path / "run").code == 0
    assert unsample(*commands["invert"]).code == 0
    listed = json.loads((tmp_path / "run" / "manifest.json").read_text())["files"]
    assert {"latents.safetensors", "report.html", "reconstructions/1/0000-brushes.png"} <= set(listed)
    with Image.open(tmp_path / "run" / "reconstructions" / "1" / "0000-brushes.png") as picture:
        picture.verify()


def test_a_run_of_python_is_repaired_too(toy, tmp_path):
    model = toy()
    settings = InvertSettings.of(model, steps=2, forward=("1",), keep="all")
    photos = [us.pictures.read.Photo.of(torch.zeros(1, 4, 4), "a")]
    run = invert_run(model, photos, settings, tmp_path / "run")
    (run.path / "trajectories" / "1.000000.safetensors").unlink()
    invert_run(model, photos, settings, tmp_path / "run")
    us.Trajectory.load(run.path / "trajectories" / "1.000000.safetensors")


def test_a_run_of_automatic_starts_in_batches_of_one_keeps_every_correction(tiny, tmp_path, unsample):
    """Reference: the same pictures in one batch."""
    how = ("invert", *PHOTOS, "--model", tiny, "--steps", 6, "--method", "exact:keep_eps=False", "--start", "auto")
    for size in (1, 3):
        done = unsample(*how, "--batch-size", size, "--out", tmp_path / f"{size}")
        assert done.code == 0, done.err
    one, three = (load_file(tmp_path / size / "latents.safetensors") for size in ("1", "3"))
    assert one.keys() == three.keys()
    for key, tensor in three.items():
        torch.testing.assert_close(one[key], tensor, rtol=1e-3, atol=1e-3)
