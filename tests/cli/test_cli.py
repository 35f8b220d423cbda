"""Commands besides invert, and every kind of bad input: one line, exit code 2, no traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from unsample.pictures.read import demo_photos

from .conftest import one_line, tensors

NAMELESS = (("diagnose",), ("invert",), ("cite",), ("inspect",), ("models", "fetch", "--from"))
"""Commands that want the name of something next."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    from unsample import cli

    place = tmp_path_factory.mktemp("runs") / "run"
    with pytest.raises(SystemExit):
        cli.main(["invert", *map(str, demo_photos()[:2]), "--steps", "4", "--start", "0,2", "--out", str(place)])
    return place


def test_sample(unsample, tmp_path):
    done = unsample("sample", "--count", 3, "--steps", 3, "--label", "goldfish", "--guidance", 2, "--out", tmp_path / "s")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "s" / "samples").glob("*.png"))) == 3
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["results"]["cost"]["sample"]["nfe"] == 6
    with Image.open(tmp_path / "s" / "overview.png") as sheet:
        assert sheet.width > 100


def test_reconstruct_uses_the_runs_latents(unsample, run, tmp_path):
    done = unsample("reconstruct", run, "--start", "0", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    ours = tensors(tmp_path / "r")["samples"]
    theirs = tensors(run)["reconstruction.0"]
    assert (ours - theirs).abs().max() < 1e-4


def test_diagnose_prints_null_beside_value(unsample, run):
    done = unsample("diagnose", run)
    assert done.code == 0
    assert "true noise" in done.out
    assert "std plain" in done.out


def test_models_lists_the_bundled_one(unsample):
    assert "tiny-imagenet-32" in unsample("models").out
    assert json.loads(unsample("models", "--json").out)[0]["present"] is True


def test_default_place_follows_from_the_settings(unsample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert unsample("invert", demo_photos()[0], "--steps", 2, "--start", "1").code == 0
    assert unsample("invert", demo_photos()[0], "--steps", 3, "--start", "1").code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


PHOTO = demo_photos()[0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("invert", "no-such.jpg"), "no such file"),
        (("invert", "no-such-*.jpg"), "no file matches"),
        (("invert", PHOTO, "--steps", 0), "--steps"),
        (("invert", PHOTO, "--steps", 1001), "1 to 1000"),
        (("invert", PHOTO, "--steps", "many"), "expected a whole number in digits 0 to 9, given 'many'"),
        (("invert", PHOTO, "--steps", "２"), "expected a whole number"),
        (("invert", PHOTO, "--guidance", "１.5"), "expected a number"),
        (("invert", PHOTO, "--size", "１６x16"), "HEIGHTxWIDTH"),
        (("interpolate", PHOTO, PHOTO, "--grid", "２x2"), "ROWSxCOLUMNS"),
        (("invert", PHOTO, "--label", "２"), "unknown class"),
        (("invert", PHOTO, "--start", "51"), "use a smaller start"),
        (("invert", PHOTO, "--start", "-1"), "whole number"),
        (("invert", PHOTO, "--start", "two"), "expected a forward start"),
        *((("invert", PHOTO, "--start", twice), "different starts") for twice in ("2,2", "2,02", "4%,4.0%", "0,0%")),
        (("invert", PHOTO, "--start", "２"), "expected a forward start"),
        (("invert", PHOTO, "--method", "heun", "--eval-at", "source"), "'eval_at': there are none"),
        (("invert", PHOTO, "--spacing", "foo"), "one of karras, leading, linspace, log-snr"),
        (("invert", PHOTO, "--revision", "abc"), "leave out revision"),
        (("inspect", "tiny-imagenet-32", "--revision", "abc"), "leave out revision"),
        (("sample", "--negative", "goldfish"), "guidance 1"),
        (("experiment", "run", "E1", "--checkpoints", "."), "E16 alone"),
        *((("sample", f"--{name}="), "expected a") for name in ("model", "out", "revision", "variant", "device", "dtype")),
        *(((*words, ""), "expected a") for words in NAMELESS),
        (("experiment", "report", "--out", ""), "expected a path"),
        (("invert", PHOTO, "--start", "nan%"), "finite number"),
        (("invert", PHOTO, "--method", "dimm"), "did you mean 'ddim'"),
        (("invert", PHOTO, "--eval-at", "nowhere"), "--eval-at"),
        (("invert", PHOTO, "--paper", "--method", "heun"), "leave out --method, or --paper"),
        (("invert", PHOTO, "--paper", "--start", "2"), "leave out --start, or --paper"),
        (("invert", PHOTO, "--paper", "--method", "ab", "--start", "0"), "leave out --method and --start, or --paper"),
        (("invert", PHOTO, "--label", "goldfisch"), "did you mean 'goldfish'"),
        (("invert", PHOTO, "--label", "200"), "0..199"),
        (("invert", PHOTO, "--guidance", "3"), "needs a condition"),
        (("invert", PHOTO, "--guidance", "nan", "--label", "goldfish"), "--guidance"),
        (("invert", PHOTO, "--batch-size", 0), "--batch-size"),
        (("invert", PHOTO, "--keep", "everything"), "--keep"),
        (("invert", PHOTO, "--device", "tpu9"), "expected a device"),
        (("invert", PHOTO, "--dtype", "float8"), "unknown dtype"),
        (("invert", PHOTO, "--model", "tiny-imagenet-23"), "did you mean 'tiny-imagenet-32'"),
        (("invert", PHOTO, "--model", "."), "unet/config.json"),
        (("invert", PHOTO, "--model", PHOTO), "expected a directory"),
        (("invert", PHOTO, "--colour"), "No such option"),
        (("invert",), "Missing argument"),
        (("diagnose", "no-such-run"), "no run in no-such-run: there is no such folder"),
        (("reconstruct", "no-such-run"), "no run in no-such-run: there is no such folder"),
        (("diagnose", PHOTO), f"that is a picture; `unsample invert {PHOTO}` comes first"),
        (("reconstruct", PHOTO), f"that is a picture; `unsample invert {PHOTO}` comes first"),
        (("cite", PHOTO.parent), "expected a folder with a manifest.json"),
        (("sample", "--count", 0), "--count"),
        (("paint",), "No such command"),
    ],
)
def test_bad_arguments(unsample, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in one_line(unsample(*arguments))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "tiny", "folder"])
def test_bad_pictures(unsample, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bad.png"
    if kind == "empty":
        file.write_bytes(b"")
    elif kind == "text":
        file.write_text("not a picture")
    elif kind == "truncated":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(file)
        file.write_bytes(file.read_bytes()[:2000])
    elif kind == "tiny":
        Image.new("RGB", (5, 7)).save(file)
    else:
        file = tmp_path / "empty-folder"
        file.mkdir()
    assert file.name.split(".")[0] in one_line(unsample("invert", PHOTO, file, "--steps", 2, "--strict"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_odd_pictures_are_converted_and_said(unsample, tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 255, (48, 40, 3), np.uint8)
    image = (
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    )
    file = tmp_path / ("odd.tif" if mode == "CMYK" else "odd.png")
    image.save(file)
    done = unsample("invert", file, "--steps", 2, "--start", "1", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["items"][0]["notes"]


@pytest.mark.parametrize("damage", ["manifest", "tensors", "other tensors"])
def test_a_damaged_run(unsample, run, tmp_path, damage):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    if damage == "manifest":
        (copy / "manifest.json").write_text("{")
    elif damage == "tensors":
        (copy / "latents.safetensors").write_bytes(b"\0" * 100)
    else:
        text = (copy / "manifest.json").read_text()
        first = json.loads(text)["items"][0]["id"]
        (copy / "manifest.json").write_text(text.replace(first, "0" * 16))
    one_line(unsample("diagnose", copy))
