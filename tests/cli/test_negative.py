import json

import torch

from .conftest import tensors


def test_sampling_away_from_the_label_itself_is_sampling_without_guidance(unsample, tmp_path):
    label = ("--count", 2, "--steps", 3, "--label", "goldfish")
    runs = {"plain": (), "null": ("--guidance", 3), "away": ("--guidance", 3, "--negative", "goldfish")}
    found = {}
    for name, more in runs.items():
        done = unsample("sample", *label, *more, "--out", tmp_path / name)
        assert done.code == 0, done.err
        found[name] = tensors(tmp_path / name)["samples"]
    assert torch.equal(found["away"], found["plain"])
    assert not torch.equal(found["null"], found["plain"])
    assert json.loads((tmp_path / "away" / "manifest.json").read_text())["settings"]["negative"] == "goldfish"


def test_an_unknown_negative_is_one_line(unsample, tmp_path):
    done = unsample("sample", "--label", "goldfish", "--guidance", 3, "--negative", "no such class", "--out", tmp_path / "x")
    assert done.code == 2
    assert "unknown class" in done.err
    assert not (tmp_path / "x").exists()


def test_reconstructing_away_from_the_label(unsample, tmp_path):
    from unsample.pictures.read import demo_photos

    way = ("--steps", 3, "--start", "1", "--label", "goldfish")
    done = unsample("invert", *demo_photos()[:1], *way, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    done = unsample("reconstruct", tmp_path / "run", "--guidance", 3, "--negative", "goldfish", "--out", tmp_path / "back")
    assert done.code == 0, done.err
    ours = tensors(tmp_path / "back")["samples"]
    theirs = tensors(tmp_path / "run")["reconstruction.1"]
    assert (ours - theirs).abs().max() < 1e-4
