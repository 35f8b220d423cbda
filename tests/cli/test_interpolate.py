"""The command that shows what lies between pictures: its run directory, its pictures, and what it refuses."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import unsample as us
from unsample import pictures as plotting
from unsample.pictures.read import read_photo, to_bytes
from unsample.runs import invert, sample

from .conftest import tensors

QUICK = ("--steps", 3, "--start", "1", "--batch-size", 4)


@pytest.fixture
def pictures(tmp_path):
    """Four pictures of 8x8, the first 16x8."""
    paths = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(90, 160, (8, 16 if i == 0 else 8, 3)).astype(np.uint8)
        paths.append(tmp_path / f"{'abcd'[i]}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def call(unsample, tiny, tmp_path):
    """`unsample interpolate` on the tiny model, into tmp_path / "run"."""

    def run(*arguments):
        return unsample("interpolate", *arguments, *QUICK, "--model", tiny, "--device", "cpu", "--out", tmp_path / "run")

    return run


def latents(tiny, pictures, condition=None):
    """What the library finds for these pictures."""
    model = us.load(tiny, device="cpu")
    photos = [read_photo(path, model.image_size) for path in pictures]
    how = {"steps": 3, "start": us.ForwardNoise(steps=1), "items": [photo.id for photo in photos], "condition": condition}
    return model, us.invert(model, torch.stack([photo.pixels for photo in photos]), **how).latent


def test_frames_are_those_of_the_library(call, tiny, pictures, tmp_path):
    done = call(*pictures[:3], "--frames", 5)
    assert done.code == 0, done.err
    place = tmp_path / "run"
    assert "sampled back unchanged: PSNR " in done.out
    assert done.out.splitlines()[-2:] == [
        "beside strip.png: frames.gif, frames/, latents.safetensors",
        str(place / "strip.png"),
    ]
    model, keys = latents(tiny, pictures[:3])
    found, ours = tensors(place), us.interpolate(model, keys, frames=5, steps=3)
    assert found["keys"].tolist() == [0, 2, 4]
    assert torch.allclose(found["latent"], ours.latents, atol=1e-5)
    assert torch.allclose(found["samples"], ours.images, atol=1e-4)
    for i in range(5):
        with Image.open(place / "frames" / f"{i:04d}.png") as frame:
            assert np.array_equal(np.asarray(frame), to_bytes(found["samples"][i]))
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["command"] == "interpolate"
    assert [item["name"] for item in manifest["items"]] == ["a.png", "b.png", "c.png"]
    assert {name: manifest["settings"][name] for name in ("frames", "path", "labels")} == {
        "frames": 5,
        "path": "slerp",
        "labels": [None] * 3,
    }
    assert (place / "inverted" / "0" / "latents.safetensors").is_file()
    with Image.open(place / "frames.gif") as moving:
        assert moving.n_frames == 8  # there and back


def test_labels_meet_on_the_way(call, tiny, pictures, tmp_path):
    done = call(*pictures[:3], "--frames", 5, "--labels", "ant; bee;none", "--animation", "none", "--path", "lerp")
    assert done.code == 0, done.err
    model, _ = latents(tiny, pictures)
    conditions = ["ant", "bee", None]
    keys = torch.cat([latents(tiny, [path], one)[1] for path, one in zip(pictures[:3], conditions, strict=True)])
    found = tensors(tmp_path / "run")
    ours = us.interpolate(model, keys, frames=5, steps=3, condition=conditions, path="lerp")
    assert torch.allclose(found["samples"], ours.images, atol=1e-4)
    assert len(list((tmp_path / "run" / "inverted").iterdir())) == 3
    assert not (tmp_path / "run" / "frames.gif").exists()


def test_four_pictures_make_a_grid(call, pictures, tmp_path):
    done = call(*pictures, "--grid", "3x2", "--json", "--animation", "none", "--label", "ant", "--guidance", 2)
    assert done.code == 0, done.err
    assert json.loads(done.out)["settings"]["frames"] == [3, 2]
    found = tensors(tmp_path / "run")
    assert found["samples"].shape == (6, 3, 8, 8)
    assert found["keys"].tolist() == [0, 1, 4, 5]
    inverted = tensors(tmp_path / "run" / "inverted" / "0")["latent.1"]
    assert torch.equal(found["latent"][[0, 1, 4, 5]], inverted)


@pytest.mark.parametrize("made", [1, 2])
def test_an_interrupted_run_goes_on(call, pictures, tmp_path, interrupt, made):
    """Reference: the same run without the interruption, in the batch `made` of the frames or of the pictures."""
    assert call(*pictures[:2], "--frames", 6).code == 0
    whole = tensors(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "whole")
    place, name = ((invert, "invert"), (sample, "sample"))[made - 1]
    calls = interrupt(place, name, made)
    assert call(*pictures[:2], "--frames", 6).code == 130
    assert call(*pictures[:2], "--frames", 6).code == 0
    assert len(calls) == made + 1  # what was finished is not made again
    resumed = tensors(tmp_path / "run")
    assert all(torch.equal(resumed[key], tensor) for key, tensor in whole.items())


def test_a_finished_run_is_drawn_again_and_not_made_again(call, pictures, tmp_path, monkeypatch):
    assert call(*pictures[:2], "--frames", 3, "--animation", "none").code == 0
    (tmp_path / "run" / "strip.png").unlink()
    monkeypatch.setattr(sample, "sample", None)
    assert call(*pictures[:2], "--frames", 3).code == 0
    assert {"strip.png", "frames.gif"} <= {path.name for path in (tmp_path / "run").iterdir()}
    other = call(*pictures[:2], "--frames", 4)
    assert (other.code, "other frames" in other.err) == (2, True)


@pytest.mark.parametrize(
    ("count", "arguments", "says"),
    [
        (1, (), "at least 2 pictures or latents"),
        (3, ("--frames", 2), "at least 3"),
        (3, ("--grid", "3x3"), "corners of a grid"),
        (4, ("--grid", "3x3", "--frames", 5), "leave out --frames"),
        (4, ("--grid", "3"), "ROWSxCOLUMNS"),
        (2, ("--path", "arc"), "unknown path"),
        (2, ("--labels", "ant"), "one per picture"),
        (2, ("--labels", "ant;bee", "--label", "cow"), "leave out --label"),
        (2, ("--labels", "ant;elephant"), "unknown class"),
        (2, ("--method", "edict"), "what it stores"),
        (2, ("--method", "cyclediffusion"), "what it stores"),
        (2, ("--animation", "webm"), "animation"),
        (2, ("--animation", "mp4"), "ffmpeg"),
    ],
)
def test_mistakes_are_one_line_and_cost_nothing(call, pictures, tmp_path, monkeypatch, count, arguments, says):
    monkeypatch.setattr("unsample.pictures.frames._ffmpeg", lambda: None)
    done = call(*pictures[:count], *arguments)
    assert done.code == 2, done.out
    assert says in done.err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def flat(*values):
    return torch.stack([torch.full((3, 4, 6), value) for value in values])


def test_a_gif_goes_there_and_back_whole_pixels_large():
    """Reference: the frames themselves; plain ones lose nothing in a palette."""
    with Image.open(io.BytesIO(plotting.animation(flat(-1.0, 0.0, 1.0)))) as moving:
        assert (moving.size, moving.n_frames, moving.info["loop"]) == ((252, 168), 4, 0)
        shown = []
        for frame in range(4):
            moving.seek(frame)
            pixels = np.asarray(moving.convert("RGB"))
            assert len(np.unique(pixels)) == 1
            shown.append(int(pixels[0, 0, 0]))
    assert shown == [0, 128, 255, 128]


def test_a_video_goes_there_and_back(tmp_path):
    """Reference: the frames themselves, decoded by ffmpeg; video keeps luminance to a few levels of 255."""
    program = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    file = tmp_path / "moving.mp4"
    file.write_bytes(plotting.animation(flat(-1.0, 0.0, 1.0), "mp4"))
    command = [program, "-v", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    stream = subprocess.run(command, capture_output=True, check=True).stdout
    shown = np.frombuffer(stream, np.uint8).reshape(4, 168, 252, 3)
    assert [float(frame.mean()) for frame in shown] == pytest.approx([0, 128, 255, 128], abs=3)
    assert max(int(frame.max()) - int(frame.min()) for frame in shown) <= 3


def test_an_ffmpeg_that_fails_is_one_line(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such codec')\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(us.ArgumentError, match="no such codec"):
        plotting.animation(flat(0.0, 1.0), "mp4")


def test_a_moving_picture_has_frames():
    with pytest.raises(us.ArgumentError, match="at least 2 frames"):
        plotting.animation(flat(0.0))


def test_a_strip_is_as_wide_as_its_frames():
    long, grid = (
        Image.open(io.BytesIO(plotting.strip(torch.zeros(6, 3, 8, 8), {0: "a", 5: "b"}, columns=n))).size for n in (None, 2)
    )
    assert long[0] > 3 * long[1]
    assert grid[1] > grid[0]
