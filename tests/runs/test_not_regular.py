"""Pipes, sockets and devices where files of a run should be: nothing waits for them, and no run is lost to them."""

from __future__ import annotations

import os
import socket

import pytest

import unsample as us
from unsample.core import files, reading
from unsample.models import configs, network_files
from unsample.models.openai import flags
from unsample.pictures.read import demo_photos
from unsample.runs.directory import Run
from unsample.runs.tensor_file import read_tensors
from unsample.studies.experiments import checkpoints, recipe, report

PHOTOS = demo_photos()[:2]


def pipe(path):
    os.mkfifo(path)


def device(path):
    path.symlink_to("/dev/zero")


def listener(path):
    here = os.getcwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.fixture(params=[pipe, device, listener])
def put(request):
    """A function that puts something else in the place of a file."""

    def instead(path):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        request.param(path)

    return instead


inside_a_run = pytest.mark.parametrize("put", [pipe, listener], indirect=True)  # a link to a device leads out of it


@pytest.fixture
def command(tiny, tmp_path, monkeypatch):
    """An inversion as it is typed, without pictures."""
    for name in ("overview", "sheet"):
        monkeypatch.setattr(f"unsample.pictures.{name}", lambda *given, **named: b"picture")
    how = ("--model", tiny, "--steps", 2, "--start", 1, "--keep", "states", "--batch-size", 1)
    return ("invert", *PHOTOS, *how, "--out", tmp_path / "run")


@inside_a_run
def test_readers_refuse_it_and_a_rerun_makes_the_file_again(unsample, command, put, tmp_path):
    place = tmp_path / "run"
    assert unsample(*command).code == 0
    for name in ("latents.safetensors", "trajectories/1.000000.safetensors"):
        put(place / name)
        for reader in (("diagnose", place), ("reconstruct", place), ("edit", place, "--to", "bee", "--mask", "auto")):
            if name[0] == "l" or reader[0] == "edit":
                assert unsample(*reader).code == 2
        assert unsample(*command).code == 0
        assert (place / name).is_file()
    put(place / "manifest.json")
    for reader in (("diagnose", place), ("reconstruct", place), ("edit", place, "--to", "bee"), ("cite", place), command):
        assert unsample(*reader).code == 2


@inside_a_run
def test_a_part_is_made_again(unsample, command, put, tmp_path, interrupt):
    interrupt(Run, "finish", 1)
    assert unsample(*command).code == 130
    put(tmp_path / "run" / "parts" / "1.000001.safetensors")
    assert unsample(*command).code == 0


def test_every_other_reader_refuses_it(put, tmp_path):
    """Each with an error of its own kind."""
    file = tmp_path / "step-1.safetensors"
    put(file)
    assert read_tensors(file) is None
    for read, error in {
        reading.read_text: files.NotRegularError,
        reading.read_json: files.NotRegularError,
        us.Trajectory.load: us.RunError,
        configs.read_json: us.ModelError,
        report._read: us.RunError,
        us.pictures.read.read_photo: us.ImageError,
        checkpoints._read: us.ModelError,
        lambda path: network_files._read([path]): files.NotRegularError,
    }.items():
        more = [(8, 8)] if error is us.ImageError else []
        with pytest.raises(error, match="not a regular file"):
            read(file, *more)
    put(tmp_path / "recipe.toml")
    with pytest.raises(us.ArgumentError, match="not a regular file"):
        recipe(str(tmp_path / "recipe.toml"))
    put(tmp_path / "unknown.json")
    with pytest.raises(us.ModelError, match="not known"):
        flags.flags_of(tmp_path / "unknown.pt")
