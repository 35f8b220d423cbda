"""The pictures that commands are given: broken ones, repeated ones, names, and what is said of them."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from unsample.pictures.read import demo_photos

from .conftest import one_line, tensors

QUICK = ("--steps", 2, "--start", "1")


def manifest_of(place):
    return json.loads((place / "manifest.json").read_text())


@pytest.fixture
def folder(tmp_path):
    """Two pictures, a broken one and a text."""
    place = tmp_path / "in"
    place.mkdir()
    for i, name in enumerate(("a.png", "c.png")):
        Image.new("RGB", (64, 48), (40 * i, 10, 200)).save(place / name)
    (place / "b.png").write_bytes(b"broken")
    (place / "notes.txt").write_bytes(b"")
    return place


COMMANDS = {
    "invert": ("invert", *QUICK),
    "edit": ("edit", "--to", "goldfish", *QUICK),
    "variations": ("variations", "--seeds", 2, *QUICK),
}


@pytest.mark.usefixtures("without_overview")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_broken_picture_is_left_out_and_the_rest_is_done(unsample, folder, tmp_path, command):
    name, *options = COMMANDS[command]
    done = unsample(name, folder, *options, "--out", tmp_path / "run")
    assert done.code == 1
    lines = done.err.strip().splitlines()
    assert "passed over, no pictures: notes.txt" in lines
    assert any(line.startswith("left out: cannot read") and "b.png" in line for line in lines)
    assert lines[-1] == "unsample: 1 of 3 pictures left out, the rest is done: b.png"
    manifest = manifest_of(tmp_path / "run")
    assert manifest["status"] == "complete"
    assert [item["name"] for item in manifest["items"]] == ["a.png", "c.png"]
    (rejected,) = manifest["results"]["rejected"]
    assert rejected["name"] == "b.png"
    assert "not a picture" in rejected["reason"]
    refused = unsample(name, folder, *options, "--strict", "--out", tmp_path / "strict")
    assert "b.png: not a picture" in one_line(refused)
    assert not (tmp_path / "strict").exists()


@pytest.mark.usefixtures("without_overview")
def test_the_report_lists_what_is_left_out(unsample, folder, tmp_path):
    """Also of a run that is complete, given again with another broken picture, or with none."""
    command, page = ("invert", folder, *QUICK, "--out", tmp_path / "run"), tmp_path / "run" / "report.html"
    assert unsample(*command).code == 1
    assert "b.png: not a picture" in page.read_text()
    (folder / "d.png").write_bytes(b"broken, too")
    assert unsample(*command).code == 1
    assert "d.png: not a picture" in page.read_text()
    for name in ("b.png", "d.png"):
        (folder / name).unlink()
    assert unsample(*command).code == 0
    assert "left out" not in page.read_text()


def test_experiments_leave_a_broken_picture_out(unsample, folder, tmp_path):
    """Reports that may be passed on do not name it."""
    how = ("experiment", "run", "E13", "--size", "smoke", "--data", folder, "--cache", tmp_path / "cache")
    for i, options in enumerate(((), ("--hide-data",))):
        done = unsample(*how, *options, "--out", tmp_path / str(i))
        assert done.code == 1, done.err
        lines = done.err.strip().splitlines()
        assert any(line.startswith("left out: cannot read") and "b.png" in line for line in lines)
        assert lines[-1] == "unsample: 1 of 3 pictures left out, the rest is done: b.png"
        assert ("b.png" in (tmp_path / str(i) / "E13" / "report.html").read_text()) is (not options)
    stopped = unsample(*how, "--strict", "--out", tmp_path / "strict")
    assert stopped.code == 2
    assert "b.png: not a picture" in stopped.err.splitlines()[-1]


def test_compare_leaves_a_broken_picture_out(unsample, folder, tmp_path):
    options = ("--methods", "ddim", "--start", "0", "--nfe", 2, "--out", tmp_path / "out")
    done = unsample("compare", folder, *options, "--json")
    assert done.code == 1
    assert json.loads(done.out)["photos"] == 2
    assert done.err.strip().splitlines()[-1] == "unsample: 1 of 3 pictures left out, the rest is done: b.png"
    assert "b.png" in one_line(unsample("compare", folder, *options, "--strict"))


def test_interpolate_needs_every_picture(unsample, folder, tmp_path):
    done = unsample("interpolate", folder, *QUICK, "--out", tmp_path / "run")
    assert done.code == 2
    assert "b.png" in done.err.splitlines()[-1]


def test_a_broken_picture_alone_is_an_error(unsample, folder, tmp_path):
    assert "b.png: not a picture" in one_line(unsample("invert", folder / "b.png", *QUICK, "--out", tmp_path / "run"))


@pytest.mark.usefixtures("without_overview")
def test_the_size_that_is_used_is_said_once_and_in_the_manifest(unsample, folder, tmp_path):
    done = unsample("invert", folder / "a.png", folder / "c.png", *QUICK, "--json", "--out", tmp_path / "run")
    assert done.code == 0
    said = "a.png: cropped and reduced from 64x48 to 32x32, the model's size; and 1 more to that size"
    assert done.err.strip().splitlines() == [said]
    notes = [item["notes"] for item in json.loads(done.out)["items"]]
    assert notes == [["cropped and reduced from 64x48 to 32x32"]] * 2


@pytest.mark.parametrize(
    ("command", "said"),
    [(("interpolate",), "at least 2 pictures"), (("edit", "--to", "bus"), "school bus")],
    ids=["one", "class"],
)
def test_what_is_refused_says_nothing_of_sizes(unsample, folder, command, said):
    assert said in one_line(unsample(command[0], folder / "a.png", *command[1:]))
    assert "reduced" not in unsample(command[0], folder / "a.png", *command[1:]).err


@pytest.mark.usefixtures("without_overview")
def test_pictures_keep_their_places_when_they_repeat(unsample, folder, tmp_path):
    a, c = folder / "a.png", folder / "c.png"
    done = unsample("interpolate", a, c, a, *QUICK, "--frames", 5, "--animation", "none", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert [item["name"] for item in manifest_of(tmp_path / "run")["items"]] == ["a.png", "c.png", "a.png"]
    found = tensors(tmp_path / "run")
    assert found["keys"].tolist() == [0, 2, 4]
    assert torch.equal(found["latent"][0], found["latent"][4])
    assert not torch.allclose(found["latent"][0], found["latent"][2])
    (tmp_path / "other.png").symlink_to(a)
    done = unsample("invert", a, tmp_path / "other.png", *QUICK, "--out", tmp_path / "two")
    assert done.code == 0, done.err
    items, found = manifest_of(tmp_path / "two")["items"], tensors(tmp_path / "two")
    assert [item["name"] for item in items] == ["a.png", "other.png"]
    assert items[0]["id"] == items[1]["id"]
    assert torch.equal(found["latent.1"][0], found["latent.1"][1])


def test_names_that_look_like_anything_else_go_through_a_run(unsample, tmp_path):
    names = ["$x_{$.jpg", "red\x1b[31m.jpg", "b\udcff.jpg", "<script>.jpg"]
    for i, name in enumerate(names):
        (tmp_path / name).write_bytes(demo_photos()[i].read_bytes())
    done = unsample("invert", *(tmp_path / name for name in names), *QUICK, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "\x1b" not in done.err + done.out + page
    assert "<script>" not in page
    wanted = ["$x_{$.jpg", r"red\x1b[31m.jpg", r"b\udcff.jpg", "<script>.jpg"]
    assert [item["name"] for item in manifest_of(tmp_path / "run")["items"]] == wanted


@pytest.mark.parametrize("command", ["invert", "edit", "variations", "interpolate", "compare"])
@pytest.mark.parametrize(
    "place", ["a" * 5000, "~nouser/x", "\udcff.png", "/dev/zero"], ids=["long", "home", "bytes", "device"]
)
def test_places_that_cannot_be_are_one_line(unsample, command, place):
    more = ("--to", "goldfish") if command == "edit" else ()
    assert len(one_line(unsample(command, place, *more))) < 300


def test_one_picture_is_not_several(unsample, tmp_path):
    unsample("invert", demo_photos()[0], *QUICK, "--out", tmp_path / "run")
    assert "1 picture<" in (tmp_path / "run" / "report.html").read_text()


def test_a_light_picture_is_not_taken_for_a_mistake(unsample, tmp_path):
    Image.linear_gradient("L").point(lambda value: 130 + value // 3).convert("RGB").save(tmp_path / "light.png")
    done = unsample("invert", tmp_path / "light.png", *QUICK, "--out", tmp_path / "run")
    assert done.code == 0
    assert "0, 1" not in done.err
